"""A folder and patterns -> the files in it that are read, in one order, and what is passed over.

Guarantees: sorted by path; each file once, under its own name, however many links lead to it; links that lead round
end. Nothing is opened. What is passed over as a kind (hidden files, what programs keep for themselves, what patterns
leave out) is counted in `left_out`; everything else that is not read is in `skipped` with its reason. Does not know:
formats.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pathspec import GitIgnoreSpec

from llama_index_embed_plus.documents.records import ReadSettings, Reason, SkippedFile
from qdrant_tools.errors import UsageError, brief
from qdrant_tools.files.trees import allowed_roots
from qdrant_tools.validation import is_unicode

OF_PROGRAMS = frozenset({"node_modules", "bower_components", "__pycache__", "__MACOSX"})
"""Folders that programs fill for themselves."""
OF_SYSTEMS = frozenset(
    {"Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r", "package-lock.json", "yarn.lock", "pnpm-lock.yaml"}
)
GENERATED = (".min.js", ".min.css", ".js.map", ".css.map")
ENVIRONMENTS, HIDDEN, SYSTEM = "virtual environments", "hidden", "files of programs"
EXCLUDED, NOT_INCLUDED, READ_ANYWAY = "excluded", "not included", "links to files that are read anyway"


@dataclass(frozen=True)
class Found:
    """A file that is to be read."""

    path: Path
    name: str
    """Its path below the folder, with slashes."""


@dataclass
class Walk:
    """What lies below a folder, seen once."""

    root: Path
    settings: ReadSettings
    skipped: list[SkippedFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """How many files and folders were passed over as a kind."""

    def __post_init__(self) -> None:
        self._include = _patterns("include", self.settings.include)
        self._exclude = _patterns("exclude", self.settings.exclude)
        self._named = [part for pattern in self.settings.include for part in pattern.strip("!/").split("/")]
        self._folders: set[str] = set()
        self._links: list[Found] = []

    def files(self) -> list[Found]:
        """Everything to read, sorted."""
        found: dict[tuple[int, int], Found] = {}
        waiting = [Found(self.root, "")]
        self._folders.add(os.path.realpath(self.root))
        allowed = allowed_roots(self.root)
        while waiting or self._links:
            if waiting:
                for file in sorted(self._folder(waiting.pop(), waiting), key=_order):
                    self._add(file, found)
            else:
                # last: a file has its own name, not that of a link to it
                self._links.sort(key=lambda link: (os.path.isdir(link.path), _order(link)), reverse=True)
                self._follow(self._links.pop(), allowed, waiting, found)
        self.skipped.sort(key=lambda each: each.path)
        return sorted(found.values(), key=_order)

    def _folder(self, folder: Found, waiting: list[Found]) -> Iterator[Found]:
        try:
            entries = list(os.scandir(folder.path))
        except OSError as error:
            self._skip(folder.path, "unreadable", f"the folder cannot be read: {error.strerror}")
            return
        for entry in entries:
            file = Found(Path(entry.path), f"{folder.name}/{entry.name}" if folder.name else entry.name)
            try:
                is_folder = os.path.isdir(file.path) if entry.is_symlink() else entry.is_dir()
                if not is_unicode(entry.name):
                    self._skip(file.path, "name", "its name is not UTF-8, and ids are made of names: rename it")
                elif not self._wanted(file, is_folder=is_folder):
                    continue
                elif entry.is_symlink():
                    self._links.append(file)
                elif is_folder:
                    self._folders.add(os.path.realpath(file.path))
                    waiting.append(file)
                elif entry.is_file():
                    yield file
                else:
                    self._skip(file.path, "unreadable", "it is a pipe, a socket or a device")
            except OSError as error:
                self._skip(file.path, "unreadable", str(error.strerror))

    def _wanted(self, file: Found, *, is_folder: bool) -> bool:
        kind = _kind(file.path, is_folder=is_folder)
        if kind and not self._is_named(file.path.name):
            self.left_out[kind] += 1
            return False
        if self._exclude.match_file(f"{file.name}/" if is_folder else file.name):
            self.left_out[EXCLUDED] += 1
            return False
        if self.settings.include and not is_folder and not self._include.match_file(file.name):
            self.left_out[NOT_INCLUDED] += 1
            return False
        return True

    def _is_named(self, name: str) -> bool:
        """Whether a pattern of `include` means this very kind: `*.md` does not mean `.git`, `.*` and `.github` do."""
        return any(fnmatchcase(name, part) and (part[:1] == "." or part == name) for part in self._named)

    def _add(self, file: Found, found: dict[tuple[int, int], Found]) -> None:
        try:
            status = os.stat(file.path)
        except OSError as error:
            self._skip(file.path, "unreadable", str(error.strerror))
            return
        if found.setdefault((status.st_dev, status.st_ino), file) is not file:
            self.left_out[READ_ANYWAY] += 1

    def _follow(
        self,
        link: Found,
        allowed: tuple[Path, ...],
        waiting: list[Found],
        found: dict[tuple[int, int], Found],
    ) -> None:
        try:
            real = os.path.realpath(link.path, strict=True)
        except OSError as error:
            self._skip(link.path, "link", f"it leads nowhere ({error.strerror})")
            return
        inside = any(Path(real).is_relative_to(root) for root in allowed)
        if os.path.isdir(real):
            if real in self._folders:
                self.left_out[READ_ANYWAY] += 1
            elif self.settings.follow_links:
                self._folders.add(real)
                waiting.append(link)
            else:
                where = "to a folder that is left out" if inside else "out of the folder"
                self._skip(link.path, "link", f"it leads {where}: --follow-links reads it")
        elif not inside and not self.settings.follow_links:
            self._skip(link.path, "link", "it leads out of the folder: --follow-links reads it")
        elif not os.path.isfile(real):
            self._skip(link.path, "link", "it leads to a pipe, a socket or a device")
        else:
            self._add(link, found)

    def _skip(self, path: Path, reason: Reason, detail: str) -> None:
        self.skipped.append(SkippedFile(shown(path), reason, detail))


def shown(path: Path) -> str:
    """A path as text that can be printed and written as JSON: bytes that are not UTF-8 are `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _kind(path: Path, *, is_folder: bool) -> str | None:
    if path.name.startswith("."):
        return HIDDEN
    if not is_folder:
        is_theirs = path.name in OF_SYSTEMS or path.name.startswith("~$") or path.name.endswith((*GENERATED, "~"))
        is_theirs |= path.name.startswith("#") and path.name.endswith("#")  # what Emacs saves by itself
        return SYSTEM if is_theirs else None
    if path.name in OF_PROGRAMS:
        return path.name
    return ENVIRONMENTS if os.path.exists(path / "pyvenv.cfg") else None


def _patterns(name: str, patterns: Iterable[str]) -> GitIgnoreSpec:
    if isinstance(patterns, str):
        raise UsageError(f"{name} is {brief(patterns)}, expected a list of patterns")
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{name} is {brief(list(patterns))}, expected patterns as in .gitignore: {error}") from error


def _order(file: Found) -> list[str]:
    return file.name.split("/")
