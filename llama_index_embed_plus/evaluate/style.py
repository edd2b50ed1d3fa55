"""How every picture of this project looks: an empty page with its panels, ink, fills. Needs the extra `plot`.

Guarantees: no display is needed and nothing global is changed; fills differ in lightness too, for print in grey.
Does not know: what is drawn.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from llama_index_embed_plus.errors import MissingExtraError

INK = "#222222"
FILLS = (("#d9d9d9", ""), ("#1f4e79", ""), ("#8a8a8a", "//"), ("#f4b183", ".."))
"""Colour and hatch per system: they differ in lightness too, for print in grey."""


def page(panels: int, title: str, *, rows: int = 1) -> tuple[Any, Any]:
    """Return a figure and its axes, `panels` in each of `rows`, as `matplotlib.figure.Figure.subplots` gives them.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("drawing", extra="plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * panels, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global, nothing that needs a display
    figure.suptitle(title)
    axes = figure.subplots(rows, panels)
    for axis in np.ravel(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes
