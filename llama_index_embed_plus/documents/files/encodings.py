"""The bytes of a text file -> its encoding, and its lines as a stream.

Guarantees: the same bytes give the same encoding. A mark at the start counts, then UTF-8 if all of the file is valid,
then what the bytes that are not ASCII are most likely to be. Whole files are checked before a line is given; none is
ever in memory whole. A line has at most `LONGEST_LINE` characters: a longer one is given in parts. Does not know: what
the lines mean.
"""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from charset_normalizer import from_bytes

from llama_index_embed_plus.errors import UnreadFileError
from qdrant_tools.errors import UsageError, brief

UTF8 = "utf-8"
LONGEST_LINE = 1 << 16
_CHUNK = 1 << 18
_SAMPLE = 1 << 15
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PRINTABLE = bytes(code in b"\t\n\r\x1b" or 32 <= code < 127 for code in range(256))
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0e-\x1f\x7f]")
"""What steers a terminal: colours in logs, and stray control characters."""
_LEGACY = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r", "koi8_u", "iso8859_2"),
    *("iso8859_5", "iso8859_7", "cp866", "tis_620", "cp932", "euc_jp", "gb18030", "big5", "cp949"),
]
_LATIN_LETTERS = {
    "cp1252": "¿¡àâäáãåæçèéêëìíîïñòóôöõøœùúûüßÿÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØŒÙÚÛÜ",
    "cp1250": "ąćęłńóśźżĄĆĘŁŃÓŚŹŻáčďéěíňřšťúůýžÁČĎÉĚÍŇŘŠŤÚŮÝŽőűŐŰöüäôľĺŕăâîșțşţđĐ",
    "iso8859_2": "ąćęłńóśźżĄĆĘŁŃÓŚŹŻáčďéěíňřšťúůýžÁČĎÉĚÍŇŘŠŤÚŮÝŽőűŐŰöüäôľĺŕăâîșțşţđĐ",
    "cp1254": "çğıöşüÇĞİÖŞÜâîû",
    "cp1257": "āčēģīķļņšūžĀČĒĢĪĶĻŅŠŪŽąęėįųĄĘĖĮŲäöõüÄÖÕÜ",
}
"""The letters of the languages that each is used for: the bytes alone do not tell these apart."""
_WESTERN_SIGNS = frozenset(
    "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u2022\u20ac\u2122\u00b0\u00a7\u00a9\u00ae\u00a3\u00b1\u00d7\u00b2\u00b3\u00bd\u00b5\u00ab\u00bb\u00a0"
)
"""What else an English text has that is not ASCII: in Japanese and Chinese encodings these bytes are letters."""
_CYRILLIC_LETTERS = dict.fromkeys(
    ("cp1251", "koi8_r", "koi8_u", "iso8859_5", "cp866", "mac_cyrillic"), "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґ"
)
"""Small letters, which are most of any text: in another of these they are large ones, or signs."""


@dataclass(frozen=True)
class Encoding:
    """How a file is decoded."""

    name: str
    replaces: bool = False
    """Whether some bytes are not valid in it, and are replaced."""

    @property
    def note(self) -> str | None:
        """What is worth saying about it; nothing for UTF-8."""
        if self.replaces:
            return f"{self.name}, with replacements"
        return None if self.name in (UTF8, "utf-8-sig") else self.name


def require_encoding(name: str) -> str:
    """The codec of a name that a user gave.

    Raises:
        UsageError: Python has no such encoding of texts.
    """
    try:
        if "a".encode(name).decode(name) == "a":
            return codecs.lookup(name).name
    except (LookupError, UnicodeError, AttributeError, TypeError, ValueError):
        pass
    raise UsageError(f"encoding is {brief(name)}, expected one that Python knows: utf-8, latin-1, cp1252, gb18030 ...")


def encoding_of(stream: BinaryIO, given: str | None = None) -> Encoding:
    """The encoding of a file, from its start to its end.

    Raises:
        UnreadFileError: it is binary, in no known encoding, or not in the one that was given.
    """
    stream.seek(0)
    head = stream.read(_CHUNK)
    if given is not None:
        if _is_valid(stream, given):
            return Encoding(given)
        raise UnreadFileError("encoding", f"it is not {given}: leave --encoding out, or give another")
    for mark, name in _MARKS:
        if head.startswith(mark):
            return Encoding(name, replaces=not _is_valid(stream, name))
    if is_binary(head):
        return Encoding(_wide(head))
    if b"\x1b$" in head and _is_valid(stream, "iso2022_jp"):
        return Encoding("iso2022_jp")
    if _is_valid(stream, UTF8):
        return Encoding(UTF8)
    return Encoding(_wide(head)) if b"\0" in head else _legacy(stream)


def is_binary(head: bytes) -> bool:
    """Whether the first bytes are not what a text in bytes has: few control characters, or ASCII nearly everywhere."""
    controls = sum(head.count(bytes([code])) for code in (*range(8), *range(14, 27), 28, 29, 30, 31, 127))
    return controls * 100 > len(head) and sum(head.translate(_PRINTABLE)) * 10 < 9 * len(head)


def lines_of(stream: BinaryIO, encoding: Encoding) -> Iterator[str]:
    """The lines of a text without their ends, whichever of the three ends they have."""
    stream.seek(0)
    errors = "replace" if encoding.replaces else "strict"
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding.name)(errors), translate=True)
    rest = ""
    while True:
        chunk = stream.read(_CHUNK)
        try:
            rest += decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise UnreadFileError("changed", f"it is no longer {encoding.name}: index again") from error
        *lines, rest = _STEERING.sub("", rest).replace("\f", "\n").split("\n")
        for line in lines:
            yield from _parts(line)
        *parts, rest = _parts(rest)
        yield from parts
        if not chunk:
            break
    if rest:
        yield rest


def _parts(line: str) -> Iterator[str]:
    """A line in parts of at most `LONGEST_LINE`, parted between words where there are some."""
    while len(line) > LONGEST_LINE:
        end = line.rfind(" ", LONGEST_LINE // 2, LONGEST_LINE) + 1 or LONGEST_LINE
        yield line[:end]
        line = line[end:]
    yield line


def _is_valid(stream: BinaryIO, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    stream.seek(0)
    try:
        while chunk := stream.read(_CHUNK):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def _wide(head: bytes) -> str:
    """UTF-16 or UTF-32 without a mark: the reading in which nearly all are letters and signs of one or two scripts."""
    best, name = 0.0, ""
    for candidate, width in (("utf-16-le", 2), ("utf-16-be", 2), ("utf-32-le", 4), ("utf-32-be", 4)):
        try:
            text = head[: min(len(head), 1 << 13) // width * width].decode(candidate, "strict")
        except UnicodeDecodeError:
            continue
        share = _likeness(text)
        if share > best:
            best, name = share, candidate
    if best < 0.9:
        raise UnreadFileError("no reader", "its content is binary")
    return name


def _likeness(text: str) -> float:
    """The share of characters that are in the two scripts that have the most."""
    counts = Counter(text)
    if any(
        unicodedata.category(character) in ("Cn", "Co", "Cc") for character in counts if character not in "\t\n\r\f"
    ):
        return 0.0
    scripts = Counter[int]()
    for character, count in counts.items():
        scripts[_script(ord(character))] += count
    share = sum(count for _, count in scripts.most_common(2)) / max(1, len(text))
    # the signs decide between two readings that both look like one script: Greek with its bytes exchanged is Chinese
    return share + sum(counts[sign] for sign in " \n.,。、") / max(1, len(text))


def _script(code: int) -> int:
    """A number for the script of a character, roughly."""
    if code < 0x180:
        return 0
    # ideographs, kana and Hangul fill many blocks
    return 0x4E if 0x3000 <= code < 0xA000 or 0xAC00 <= code < 0xD7B0 or code >= 0xFF00 else code >> 8


def _legacy(stream: BinaryIO) -> Encoding:
    sample = _telling_lines(stream)
    text = sample.decode(UTF8, "replace")
    wrong = text.count("\ufffd")
    if sum(character > "\x7f" for character in text) > 10 * wrong:
        return Encoding(UTF8, replaces=True)
    if all(ord(sign) < 128 or sign in _WESTERN_SIGNS for sign in sample.decode("cp1252", "replace")):
        return Encoding("cp1252")
    found = [match.encoding for match in from_bytes(sample, cp_isolation=_LEGACY, preemptive_behaviour=False)]
    others = sum(byte > 127 for byte in sample)
    for alike in (_LATIN_LETTERS, _CYRILLIC_LETTERS):
        best = max(alike, key=lambda name: _letters(sample, name, alike[name]))
        # the library refuses some short texts of one language that all letters of its encoding fit
        if found[0] in alike if found else _letters(sample, best, alike[best])[0] > 0.9 * others:
            found.insert(0, best)
    found[:0] = [name for name in ("cp932", "euc_jp") if _is_japanese(sample, name)]
    for name in found:
        if _is_valid(stream, name):
            return Encoding(name)
    raise UnreadFileError("encoding", "its encoding cannot be found out: give it with --encoding, or save it as UTF-8")


def _is_japanese(sample: bytes, name: str) -> bool:
    """Whether a fifth of what is not ASCII is kana, which no other language has."""
    try:
        text = sample.decode(name)
    except UnicodeDecodeError:
        return False
    kana = sum("\u3041" <= character <= "\u30fe" for character in text)
    return kana * 5 > sum(character > "\x7f" for character in text)


def _telling_lines(stream: BinaryIO) -> bytes:
    """The first lines that are not ASCII: in no encoding of bytes is a line end part of another character."""
    stream.seek(0)
    lines, size = [], 0
    for line in iter(lambda: stream.readline(_SAMPLE), b""):
        if not line.isascii():
            lines.append(line)
            size += len(line)
            if size >= _SAMPLE:
                break
    return b"".join(lines)


def _letters(sample: bytes, name: str, letters: str) -> tuple[int, bool]:
    try:
        text = sample.decode(name)
    except UnicodeDecodeError:
        return -1, False
    return sum(map(text.count, letters)), name == "cp1252"
