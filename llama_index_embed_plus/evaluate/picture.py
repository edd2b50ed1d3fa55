"""A matplotlib figure that a notebook shows by itself. Imports matplotlib: reach it through `style`.

Guarantees: no pyplot, so nothing global and no display needed. Does not know: what is drawn.
"""

from __future__ import annotations

import io

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Picture(Figure):
    """A `Figure` whose PNG is its representation in a notebook."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png")
        return data.getvalue()


def new_picture(width: float, height: float) -> Picture:
    """An empty figure of so many inches."""
    figure = Picture(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def cividis(place: float) -> tuple[float, float, float, float]:
    """A colour (red, green, blue, alpha) of matplotlib's map "cividis", dark at 0 and light at 1."""
    red, green, blue, alpha = colormaps["cividis"](place)
    return float(red), float(green), float(blue), float(alpha)
