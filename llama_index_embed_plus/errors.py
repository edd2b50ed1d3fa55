"""Errors about models and texts, on the tree of `qdrant_tools.errors`.

::

    PlusError
    ├── InputError
    │   ├── TextError              a text that cannot be embedded
    │   └── UnreadFileError        a file that is not read, and the reason
    ├── ModelError                 one model or artifact
    │   ├── ModelNotFoundError     no such name or folder
    │   ├── DamagedModelError      a file is missing, damaged or contradicts another
    │   └── ParityError            an export does not agree with its original
    ├── SourceGoneError            a folder that is watched is not there any more
    ├── CacheError                 the vector cache cannot be read or written
    ├── TrainingError              training could not go on
    │   └── LeakError              held-out queries are in the training data
    ├── GenerationError            a language model does not answer
    └── MissingExtraError          an optional dependency is not installed  (also an ImportError)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdrant_tools.errors import InputError, PlusError, UsageError

if TYPE_CHECKING:
    from llama_index_embed_plus.documents.records import Reason

__all__ = [
    "CacheError",
    "DamagedModelError",
    "GenerationError",
    "InputError",
    "LeakError",
    "MissingExtraError",
    "ModelError",
    "ModelNotFoundError",
    "ParityError",
    "PlusError",
    "SourceGoneError",
    "TextError",
    "TrainingError",
    "UnreadFileError",
    "UsageError",
]


class TextError(InputError):
    """A text that cannot be embedded: not a string, or empty."""


class UnreadFileError(InputError):
    """A file that is not read. `reason` is one of `documents.records.Reason`, and the message says what helps."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason: Reason = reason
        super().__init__(detail)


class ModelError(PlusError):
    """Something about one model or artifact."""


class ModelNotFoundError(ModelError):
    """No installed package, folder or hub repository of this name."""


class DamagedModelError(ModelError):
    """A model file is missing, damaged, or contradicts another one."""


class ParityError(ModelError):
    """An exported build does not give the vectors of its original."""


class SourceGoneError(PlusError):
    """A folder that is watched is not there any more, or is another one now."""


class CacheError(PlusError):
    """The vector cache cannot be read or written."""


class GenerationError(PlusError):
    """A language model does not answer, or not with what it was asked for."""


class TrainingError(PlusError):
    """Training could not go on."""


class LeakError(TrainingError):
    """Held-out queries, or questions about their passages, are in the training data."""


# an ImportError too, for code that tries an import and does without
class MissingExtraError(PlusError, ImportError):
    """An optional dependency is missing. `extra` names what to install."""

    def __init__(self, what: str, *, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'llama-index-embed-plus[{extra}]'")
