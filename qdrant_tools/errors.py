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
libraries are translated where the library is called, with the original as `__cause__`. The end of this module has what
makes foreign texts fit for a message: no keys in them, and nothing that steers a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Self

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

    on_command_line: str | None = None
    """What the command line says instead of the message, where the message's way out is a piece of Python."""

    def with_way_out(self, *, python: str, command: str) -> Self:
        """Add the way out: as Python to the message, for the command line as a command, without `embed-plus`."""
        problem = str(self)
        self.args = (f"{problem}: {python}",)
        self.on_command_line = f"{problem}: embed-plus {command}"
        return self


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
    lines = without_keys(str(error)[:10_000]).strip().splitlines()
    # `TimeoutError()` and others are raised without a message
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= 300 else f"{line[:297]}..."


def brief(value: object) -> str:
    """The beginning of a value's repr, for a one-line message."""
    try:
        # cut before and after: the repr of a text is up to ten times as long, and its words are many
        shown = repr(value[:100]) if isinstance(value, (str, bytes)) else repr(value)
        text = " ".join(without_keys(shown[:1000]).split())
    except Exception:  # whatever a stranger's __repr__ raises, a RecursionError for deep values among them
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


def listed(names: Iterable[str]) -> str:
    """The first few names, shortened, for a message."""
    shown = [name_shown(name) for name in islice(names, 9)]
    return ", ".join(shown if len(shown) < 9 else [*shown[:8], "..."])


def name_shown(name: str) -> str:
    """A name as it is, where it is short and can be read."""
    return name if len(name) <= 40 and name.isprintable() else brief(name)


def without_keys(text: str) -> str:
    """A text without the passwords and keys of the URLs in it.

    `http://user:PASS@host/path?api_key=KEY` becomes `http://***@host/path?***`.
    """
    return _AFTER_SCHEME.sub(_without_key, text)


# begins at the slashes, because to look for the scheme before them takes quadratic time in a long word; a password may
# hold quotes and slashes; a URL that was taken for a path has lost one slash
_AFTER_SCHEME = re.compile(r"(?:(?<=://)|(?<=[A-Za-z]{2}:/)(?!/))(?:\S{0,2000}@)?[^\s'\"<>]*")


def _without_key(match: re.Match[str]) -> str:
    # the last @, even behind a slash: some passwords hold both
    address, mark, query = re.fullmatch(r"([^?#]*)([?#]?)(.*)", match[0], re.DOTALL).groups()  # type: ignore[union-attr]
    if "@" in address:
        address = f"***@{address.rpartition('@')[2]}"
    return f"{address}{mark}***" if query else f"{address}{mark}"


def visible(text: str, *, lines: bool = False) -> str:
    """A text with escapes in place of the characters that steer a terminal or cannot be seen: ESC becomes `\\x1b`.

    These are control characters, marks of direction, separators of lines, characters without width and lone surrogates.
    The joiners U+200C and U+200D stay behind letters of the scripts that are written with them, and behind emoji.
    `lines`: the text may have several, so line ends and tabs stay too.
    """
    return (_UNSEEN_IN_LINES if lines else _UNSEEN).sub(lambda match: escaped(match[0]), text)


def escaped(character: str) -> str:
    """A character as Python's escape: `\\x1b`, `\\u202e`, `\\U000e0041`."""
    return character.encode("unicode_escape").decode("ascii")


_JOINED = "\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17ff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
"""Arabic and Persian, the scripts of India, Burmese, Khmer, and emoji."""
UNSEEN_BEYOND_ASCII = (
    "\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff"
    "\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
"""Inside brackets of a regular expression; DEL, which JSON does not escape either, and all beyond."""
_JOINERS = f"(?<![{_JOINED}])[\u200c\u200d]"
_UNSEEN = re.compile(f"[\x00-\x1f{UNSEEN_BEYOND_ASCII}]|{_JOINERS}")
_UNSEEN_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{UNSEEN_BEYOND_ASCII}]|{_JOINERS}")
