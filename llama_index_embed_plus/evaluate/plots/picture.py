"""A matplotlib figure that a notebook shows by itself, and matplotlib's colours.

A module of its own because it imports matplotlib when it is imported: `style` imports it once a picture is asked for.

Guarantees: no pyplot, so nothing global and no display needed. Does not know: what is drawn.
"""

from __future__ import annotations

import io

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Picture(Figure):
    """An empty figure of so many inches, whose PNG is its representation in a notebook."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=120, layout="constrained")
        FigureCanvasAgg(self)  # attaches itself to the figure

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png")
        return data.getvalue()


def cividis(place: float) -> tuple[float, float, float, float]:
    """A colour (red, green, blue, alpha) of matplotlib's map "cividis", dark at 0 and light at 1."""
    red, green, blue, alpha = colormaps["cividis"](place)
    return float(red), float(green), float(blue), float(alpha)
