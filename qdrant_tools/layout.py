"""Where the vector, the passage id, the text and the metadata of a point are.

Guarantees: one place reads payloads, so search, indexing and mining agree on what a passage is.
Does not know: engines. For now only the layout that `qdrant_tools.index` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_tools.records import Passage


@dataclass(frozen=True)
class Layout:
    """Names of the dense vector ("" is the unnamed one) and of the payload fields."""

    vector: str = ""
    id: str = "passage_id"
    text: str = "text"
    metadata: str = "metadata"

    def passage(self, payload: Mapping[str, Any] | None, *, point_id: str | int) -> Passage:
        """Read a payload as a passage; a point without a passage id goes by its point id."""
        fields = payload or {}
        return Passage(
            str(fields.get(self.id, point_id)), str(fields.get(self.text) or ""), fields.get(self.metadata) or {}
        )

    def metadata_field(self, name: str) -> str:
        """Where a payload has a metadata field."""
        return f"{self.metadata}.{name}" if self.metadata else name

    def dense(self, vector: Any) -> list[float]:
        """The dense vector of a record, whose vectors come as one list or by name."""
        values: list[float] = vector[self.vector] if isinstance(vector, Mapping) else vector
        return values


OURS = Layout()
"""What `qdrant_tools.index` writes."""
