"""How every picture of this project looks: one size of panel, one ink, fills that differ in lightness too.

Guarantees: readable in greyscale; no pyplot, so nothing global and no display needed; a PNG is written whole or not at
all. Needs the extra `plot`. Does not know: what is drawn.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embed_plus.errors import MissingExtraError
from qdrant_tools.errors import visible
from qdrant_tools.files.written import written_whole

if TYPE_CHECKING:
    from llama_index_embed_plus.evaluate.plots.picture import Picture

INK = "#222222"
FILLS = (("#d9d9d9", ""), ("#1f4e79", ""), ("#8a8a8a", "//"), ("#f4b183", ".."))
"""Colour and hatch per system: they differ in lightness too, for print in grey."""
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")
"""Shapes of points, for what colour alone does not tell in grey."""
LONGEST_LINE = 300
LIGHT, DARK = FILLS[0][0], FILLS[1][0]


def can_draw() -> bool:
    """Whether matplotlib is installed. It is not imported."""
    return find_spec("matplotlib") is not None


def require_drawing() -> None:
    """Raise `MissingExtraError` where nothing can be drawn: called before the work for a picture that was asked for."""
    if not can_draw():
        raise MissingExtraError("drawing", extra="plot")


def page(panels: int, title: str, *, rows: int = 1, width: float = 5.5, height: float = 4.0) -> tuple[Picture, Any]:
    """Return a figure and its axes, `panels` in each of `rows`, as `matplotlib.figure.Figure.subplots` gives them.

    An axis is `width` by `height` inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_drawing()
    from llama_index_embed_plus.evaluate.plots.picture import Picture

    figure = Picture(width * panels, height * rows)
    figure.suptitle("\n".join(literal(line) for line in title.split("\n")))
    axes = figure.subplots(rows, panels)
    for axis in np.ravel(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def finish(figure: Picture, path: Path | str | None, *, overwrite: bool = True) -> Picture:
    """Write the PNG, if there is a path, and give the figure back for a notebook or for further drawing.

    Raises:
        UsageError: a file is there, and is not to be replaced.
    """
    if path is not None:
        with written_whole(path, overwrite=overwrite) as draft:
            figure.savefig(draft, format="png")  # the draft's name does not end in .png
    return figure


def label_of(text: str, *, length: int = 46) -> str:
    """A text as a label: one line, cut at so many characters, and no formulas."""
    line = " ".join(text.split())
    return literal(line if len(line) <= length else line[: length - 3] + "...")


def literal(text: str) -> str:
    """A text of one line as it is: what cannot be drawn is shown as an escape, and dollar signs make no formula."""
    shown = visible(text)
    # escaped last, so that no cut splits an escape
    return (shown if len(shown) <= LONGEST_LINE else shown[: LONGEST_LINE - 3] + "...").replace("$", r"\$")


def shades(count: int) -> list[tuple[float, float, float, float]]:
    """Colours whose lightness rises evenly, so that they differ in grey too."""
    from llama_index_embed_plus.evaluate.plots.picture import cividis

    return [cividis(place) for place in np.linspace(0.05, 0.95, count)]
