"""Every error this project raises on purpose, as one tree.

::

    PlusError                          catch this to catch them all
    ├── InputError                     a value the caller gave        (also a ValueError)
    │   ├── VectorError                wrong dimension, NaN, zero
    │   └── UsageError                 options that contradict each other
    ├── NotSupportedError              this engine has no such thing  (also a NotImplementedError)
    ├── LocationError                  the place where collections live
    │   ├── LocationBusyError          another process holds the folder
    │   └── UnreachableError           the server does not answer, or refuses the key
    ├── CollectionError                one collection
    │   ├── CollectionNotFoundError    (also a ValueError, as in qdrant-client)
    │   ├── CollectionExistsError      (also a ValueError, as in qdrant-client)
    │   ├── SpaceMismatchError         filled by another encoder
    │   └── DamagedCollectionError     its files are not what was acknowledged
    ├── LogError                       the retrieval log cannot be read or written
    └── EngineError                    the engine refused a valid request

`llama_index_embed_plus.errors` adds the branches for models and texts to the same root.

Guarantees: the message is one line that names the value, what was expected and the way out. Errors of foreign
libraries are translated where the library is called, with the original as `__cause__`.
"""

from __future__ import annotations

__all__ = [
    "CollectionError",
    "CollectionExistsError",
    "CollectionNotFoundError",
    "DamagedCollectionError",
    "EngineError",
    "InputError",
    "LocationBusyError",
    "LocationError",
    "LogError",
    "NotSupportedError",
    "PlusError",
    "SpaceMismatchError",
    "UnreachableError",
    "UsageError",
    "VectorError",
]


class PlusError(Exception):
    """Root of the tree."""


class InputError(PlusError, ValueError):
    """A value the caller gave cannot be used."""


class VectorError(InputError):
    """A vector has the wrong dimension, is not finite, or has no direction."""


class UsageError(InputError):
    """Options that contradict each other, or a required one is missing."""


class NotSupportedError(PlusError, NotImplementedError):
    """The engine at this location has no such operation."""


class LocationError(PlusError):
    """The place where collections live cannot be used."""


class LocationBusyError(LocationError):
    """Another process holds the folder open."""


class UnreachableError(LocationError):
    """The server does not answer, or refuses the key."""


class CollectionError(PlusError):
    """Something about one collection."""


class CollectionNotFoundError(CollectionError, ValueError):
    """No collection or alias of this name."""


class CollectionExistsError(CollectionError, ValueError):
    """A collection or alias of this name is already there."""


class SpaceMismatchError(CollectionError):
    """The collection was filled by another encoder: its vectors cannot be compared with this encoder's."""


class DamagedCollectionError(CollectionError):
    """The collection's files do not hold what was acknowledged."""


class LogError(PlusError):
    """The retrieval log cannot be read or written."""


class EngineError(PlusError):
    """The engine refused a request that looked valid."""


def first_line(error: object) -> str:
    """Return the first line of a foreign error's message, to be quoted in one of ours. Without a message: its type."""
    # cut first: a foreign message may quote a whole file
    lines = str(error)[:10_000].strip().splitlines()
    # `TimeoutError()` and others are raised without a message
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= 300 else f"{line[:297]}..."


def brief(value: object) -> str:
    """The beginning of a value's repr, for a one-line message."""
    try:
        # cut before and after: the repr of a text is up to ten times as long, and its words are many
        shown = repr(value[:100]) if isinstance(value, (str, bytes)) else repr(value)
        text = " ".join(shown[:1000].split())
    except Exception:  # whatever a stranger's __repr__ raises, a RecursionError for deep values among them
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."
