"""Texts that somebody else wrote -> the same texts in Markdown and YAML, where they stand for nothing but themselves.

A base model's name, the settings of its report and the reasons in it come from strangers, and a model card is shown by
web pages. Guarantees: no text becomes a link, an address that is made one, an image, HTML, a heading or a further cell;
what steers a terminal or turns the direction of writing is shown as its escape; no text is longer than `LONGEST`.
Does not know: what a card says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

LONGEST = 500
_MOST_ROWS = 200
# letters, digits and such signs as begin nothing in Markdown inside a line; underlines within words are none either
_SAFE = re.compile(r"[\w .,;:%+()=/@'\"?-]*")
_MARKUP = re.compile(r"://|\bwww\.|@[\w-]+\.|\b(mailto|xmpp|javascript|data):|\b_|_\b", re.IGNORECASE)
# a backtick ends the span, a pipe the cell of a table; the others are for pages that know neither
_LOOKALIKES = str.maketrans("`|<>", "'¦‹›")


def plain(value: object) -> str:
    """A value as one line of Markdown: as it is if nothing in it could be markup, else as code."""
    text = _line(value)
    return text if _SAFE.fullmatch(text) and not _MARKUP.search(text) else code(text)


def code(value: object) -> str:
    """A value as a code span, in which nothing is markup."""
    text = _line(value).translate(_LOOKALIKES).replace("](", "] (")
    return f"`{text}`" if text else ""


def scalar(value: Any) -> str:
    """A value for YAML, written as JSON, which YAML contains: nothing in a name can be taken for structure."""
    return json.dumps(_visible_in(value), ensure_ascii=False)


def table(head: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    """A table, of the first rows if there are hundreds."""
    lines = [head, ("---",) * len(head)]
    cells = [tuple(plain(cell) for cell in row) for row in rows]
    if len(cells) > _MOST_ROWS:
        cells = [*cells[:_MOST_ROWS], (f"{len(cells) - _MOST_ROWS} more", *("",) * (len(head) - 1))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, *cells])


def _line(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    # cut first: a name may be megabytes long
    line = " ".join(text[: 4 * LONGEST].split())
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _visible_in(value: Any) -> Any:
    if isinstance(value, str):
        return _line(value)
    if isinstance(value, dict):
        return {_line(key): _visible_in(inner) for key, inner in value.items()}
    return [_visible_in(inner) for inner in value] if isinstance(value, (list, tuple)) else value
