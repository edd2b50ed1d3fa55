"""A file's name and first bytes -> which reader takes it, or why none does.

The content counts more than the name: a PDF under the name `x.txt` is read as PDF, a picture under it is no text. Where
the content tells nothing, the ending does; without a known ending, what looks like text is text. Does not know: how
anything is read.
"""

from __future__ import annotations

import mimetypes
import zipfile
from dataclasses import dataclass
from pathlib import Path

from llama_index_embed_plus.documents.files.archives import open_zip
from llama_index_embed_plus.errors import UnreadFileError

HEAD = 1 << 12


def _all(endings: str, value: str) -> dict[str, str]:
    return dict.fromkeys((f".{ending}" for ending in endings.split()), value)


_BY_ENDING = {
    **_all(
        "py pyi pyx js mjs cjs jsx ts tsx vue svelte java kt kts scala groovy gradle c h cc cpp cxx hpp hh hxx cu m mm "
        "cs fs fsx vb go rs rb php pl pm lua r jl swift dart ex exs erl hrl clj cljs hs ml mli elm nim zig d pas f f90 "
        "f95 ada asm s sh bash zsh fish ps1 bat cmd sql graphql proto thrift tf hcl css scss sass less cmake mk make "
        "tex sty bib cls awk sed vim el lisp scm rkt v sv vhd vhdl sol wat diff patch ipy",
        "code",
    ),
    **_all("json json5 yaml yml toml ini cfg conf properties xml xsd xsl plist gpx kml", "code"),
    **_all("txt text log srt vtt org adoc asciidoc wiki", "text"),
    **_all("md markdown mdx mdown mkd qmd rmd", "markdown"),
    **_all("rst rest", "rst"),
    **_all("html htm xhtml shtml", "html"),
    **_all("xlsx xlsm xltx xltm", "xlsx"),
    **_all("docx docm dotx dotm", "docx"),
    **_all("pptx pptm ppsx potx", "pptx"),
    **_all("odt ods odp", "opendocument"),
    **{f".{name}": name for name in ("pdf", "epub", "rtf", "mbox", "hwp", "xls")},
    **_all("csv tsv", "table"),
    ".ipynb": "notebook",
    # a page that a browser saved as a single file is a mail without a sender
    **_all("eml mht mhtml", "mail"),
}
_BY_NAME = {"makefile": "code", "dockerfile": "code", "cmakelists.txt": "code", "gemfile": "code", "rakefile": "code"}
_MUST_BEGIN = {
    "pdf": "a PDF",
    "docx": "a document of Word",
    "pptx": "slides of PowerPoint",
    "xlsx": "a workbook",
    "xls": "a workbook",
    "opendocument": "a document of OpenOffice",
    "epub": "an e-book",
    "hwp": "a document of Hangul",
}

PICTURE = "a picture: its text would need OCR, or a reader of LlamaIndex (ReadSettings.readers)"
SOUND = "sound or video: it would need a transcript, or a reader of LlamaIndex (ReadSettings.readers)"
ARCHIVE = "an archive: unpack it"
PROGRAM = "a program"
_MAGIC = {
    **dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"8BPS"), PICTURE),
    **dict.fromkeys((b"ID3", b"OggS", b"fLaC", b"\x1aE\xdf\xa3"), SOUND),
    **dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"), ARCHIVE),
    **dict.fromkeys((b"\x7fELF", b"MZ\x90", b"\xca\xfe\xba\xbe"), PROGRAM),
    b"SQLite format 3\0": "a database: export what is to be searched as JSONL or CSV",
    b"\x80\x04\x95": "a pickle of Python, which is not opened",
    b"\x93NUMPY": "an array of numbers",
    b"PAR1": "rows of Parquet: give it the ending .parquet",
}
_UNREAD = {
    **_all("svg png jpg jpeg gif webp bmp tif tiff heic ico psd", PICTURE),
    **_all("mp3 mp4 wav ogg flac m4a avi mov mkv webm mpg mpeg", SOUND),
    **_all("zip gz bz2 xz 7z rar tar tgz zst jar whl", ARCHIVE),
    ".doc": "a document of Word before 2007: save it as .docx",
    ".ppt": "slides of PowerPoint before 2007: save them as .pptx",
    ".msg": "a mail of Outlook: save it as .eml",
    ".pages": "a document of Pages: save it as .docx or .pdf",
    ".numbers": "a document of Numbers: save it as .xlsx",
    ".key": "slides of Keynote: save them as .pptx or .pdf",
}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# a table of its own: the system's would make the metadata depend on the machine
_TYPES = mimetypes.MimeTypes()
_OFFICE = "application/vnd.openxmlformats-officedocument"
_MORE_TYPES = {
    ".md": "text/markdown",
    ".rst": "text/x-rst",
    ".log": "text/plain",
    ".ts": "text/x-typescript",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".ipynb": "application/x-ipynb+json",
    ".epub": "application/epub+zip",
    ".mbox": "application/mbox",
    ".rtf": "application/rtf",
    ".docx": f"{_OFFICE}.wordprocessingml.document",
    ".pptx": f"{_OFFICE}.presentationml.presentation",
    ".xlsx": f"{_OFFICE}.spreadsheetml.sheet",
    ".odt": "application/vnd.oasis.opendocument.text",
}
_TYPE_OF_READER = {
    **{name: _MORE_TYPES[f".{name}"] for name in ("docx", "pptx", "xlsx", "epub", "rtf")},
    "pdf": "application/pdf",
    "html": "text/html",
    "text": "text/plain",
}


@dataclass(frozen=True)
class Format:
    """Which reader takes a file."""

    reader: str
    type: str | None
    """MIME."""


def format_of(path: Path, head: bytes) -> Format:
    """The format of a file whose first `HEAD` bytes are these.

    Raises:
        UnreadFileError: nothing here reads such a file.
    """
    ending = path.suffix.lower()
    named = _BY_NAME.get(path.name.lower()) or _BY_ENDING.get(ending)
    reader = _by_content(path, head, ending, named)
    if reader is None and named in _MUST_BEGIN:
        raise UnreadFileError("damaged", f"it does not begin as {_MUST_BEGIN[named]}")
    if reader is None and (why := _UNREAD.get(ending)):
        raise UnreadFileError("no reader", why)
    chosen = reader or named or _guess(head)
    guessed = type_of(path)
    fits = chosen == named or guessed is None and chosen not in _TYPE_OF_READER
    return Format(chosen, guessed if fits else _TYPE_OF_READER.get(chosen))


def type_of(path: Path) -> str | None:
    """The MIME type that a file's ending stands for."""
    return _MORE_TYPES.get(path.suffix.lower()) or _TYPES.guess_type(path.name)[0]


def _by_content(path: Path, head: bytes, ending: str, named: str | None) -> str | None:
    if head.startswith(b"%PDF-") or (named == "pdf" and b"%PDF-" in head[:1024]):
        return "pdf"
    if head.startswith(b"{\\rtf"):
        return "rtf"
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path, named, ending)
    if head.startswith(_OLE):
        return _compound(ending, named)
    if head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"AVI ")):
        raise UnreadFileError("no reader", SOUND)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        raise UnreadFileError("no reader", PICTURE)
    for magic, why in _MAGIC.items():
        if head.startswith(magic):
            raise UnreadFileError("no reader", why)
    return None


def _zipped(path: Path, named: str | None, ending: str) -> str:
    try:
        with open_zip(path) as archive:
            names = set(archive.namelist())
            kind = (
                archive.read("mimetype")[:80]
                if "mimetype" in names and archive.getinfo("mimetype").file_size < 99
                else b""
            )
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        if named in _MUST_BEGIN:
            raise UnreadFileError("damaged", f"it is cut off or damaged: {error}") from error
        raise UnreadFileError("no reader", ARCHIVE) from error
    for part, reader in (("word/document.xml", "docx"), ("ppt/presentation.xml", "pptx"), ("xl/workbook.xml", "xlsx")):
        if part in names:
            return reader
    if kind.startswith(b"application/epub"):
        return "epub"
    if kind.startswith(b"application/vnd.oasis.opendocument"):
        return "opendocument"
    if named in _MUST_BEGIN:
        return named
    raise UnreadFileError("no reader", _UNREAD.get(ending, ARCHIVE))


def _compound(ending: str, named: str | None) -> str:
    if named in ("docx", "pptx", "xlsx"):
        raise UnreadFileError("encrypted", "it is protected by a password: save it without one")
    if named in ("xls", "hwp"):
        return named
    raise UnreadFileError("no reader", _UNREAD.get(ending, "a document of an old Office: save it in a newer format"))


def _guess(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    return "html" if start.startswith((b"<!doctype html", b"<html")) else "text"
