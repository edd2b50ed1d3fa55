"""The folder of one improvement: the log that files are imported into, mined examples, the model, a sheet, the report.

Guarantees: a folder of something else is refused, not filled; what was made of other labels or settings is made anew,
what was made of the same ones is gone on with, or taken as it is; a report is of the last call that came to its end, or
is not there. Does not know: what is in them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index_embed_plus.models import artifact
from qdrant_tools.errors import UsageError
from qdrant_tools.files.json_files import read_json
from qdrant_tools.files.written import refuse_link, write_text

_MARKER = ".embed-plus-improve.json"


@dataclass(frozen=True)
class ImproveFolder:
    """The paths of what lies in it."""

    path: Path

    @property
    def log(self) -> Path:
        return self.path / "log.sqlite"

    @property
    def examples(self) -> Path:
        return self.path / "examples.jsonl"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def report(self) -> Path:
        return self.path / "improve.json"

    def begin(self) -> None:
        """Make the folder, or go on in it.

        Raises:
            UsageError: it holds something else, or is a link.
        """
        refuse_link(self.path, UsageError)
        marker = self._marker
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file, expected a folder to write to: give another --out")
        if self.path.exists() and any(self.path.iterdir()) and not marker.is_file():
            raise UsageError(f"{self.path} holds something else than an improvement: give another --out, or empty it")
        self.path.mkdir(parents=True, exist_ok=True)
        if not marker.is_file():
            write_text(marker, "{}\n", overwrite=True)

    def without_report(self) -> None:
        """Remove the report of an earlier call: what is done from here on makes it untrue, and may be interrupted."""
        refuse_link(self.report, UsageError)
        self.report.unlink(missing_ok=True)

    def is_mined(self, key: str) -> bool:
        """Whether the examples that lie here were mined for this key."""
        return self._known().get("examples") == key

    def examples_for(self, key: str) -> Path:
        """Where examples are mined into that belong to a key: those of another one are removed first."""
        if not self.is_mined(key):
            # the marker last: a kill in between leaves nothing that would be taken for its own
            for stale in (self.examples, self.examples.with_name(self.examples.name + ".state.json")):
                refuse_link(stale, UsageError)
                stale.unlink(missing_ok=True)
            self._mark({"examples": key})
        return self.examples

    def sheet_of(self, key: str) -> Path:
        """The sheet that is about the model of a key: no other one is written over it."""
        return self.path / f"sheet-{key[:8]}.csv"

    def is_trained(self, key: str) -> bool:
        """Whether the model that lies here was trained for this key."""
        return self._known().get("model") == key and artifact.is_artifact(self.model)

    def trained(self, key: str) -> None:
        """Remember what the model was trained for."""
        self._mark({**self._known(), "model": key})

    def _known(self) -> dict[str, Any]:
        row = read_json(self._marker, error=UsageError)
        if not isinstance(row, dict):
            raise UsageError(f"{self._marker} is damaged: remove it and what lies beside it")
        return row

    def _mark(self, row: dict[str, Any]) -> None:
        write_text(self._marker, json.dumps(row) + "\n", overwrite=True)

    @property
    def _marker(self) -> Path:
        return self.path / _MARKER


def key_of(*parts: Any) -> str:
    """What tells whether something has to be made anew: equal for equal values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode(errors="surrogatepass")).hexdigest()
