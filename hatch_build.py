"""README.md -> the page of the package index, where relative links lead nowhere.

With a `Source` among the project's URLs they become addresses below it; without one a link becomes its words, and a
picture is left out: the files are in the source distribution.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ModuleNotFoundError:  # the tests read `page_of` where nothing is built
    MetadataHookInterface = object

_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


def page_of(readme: str, source: str | None) -> str:
    """Return the page: relative links absolute below `source`, or gone."""
    if source is not None:
        base = source.rstrip("/")
        readme = _PICTURE.sub(rf"![\1]({base}/raw/main/\2)", readme)
        return _LINK.sub(rf"[\1]({base}/blob/main/\2)", readme)
    without = _PICTURE.sub("", readme)
    # a table of pictures has nothing left to show
    without = re.sub(r"^\|[\s|]*\|\n(\|[-|: ]+\|\n)(\|[\s|]*\|\n)+", "", without, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", _LINK.sub(r"\1", without))


class ReadmeHook(MetadataHookInterface):
    """Gives hatchling the page as the project's readme."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = (metadata.get("urls") or {}).get("Source")
        metadata["readme"] = {"content-type": "text/markdown", "text": page_of(text, source)}
