"""A cell that holds a list, as text -> its entries.

Read are JSON, what Python, numpy and PostgreSQL print of a list, `[a, b]` without quotes, and values that one sign
parts: `a|b|c`, `a;b`, `a,b`, or lines and tabs. Guarantees: an entry is never guessed; where two signs could part the
values, or white space could, it is an `InputError` that asks for the sign. Does not know: which column it is, and
which signs other rows have.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

from qdrant_tools.errors import InputError
from qdrant_tools.files.json_files import parse_json
from qdrant_tools.validation import brief

SEPARATORS = ("\n", "\t", "|", ";", ",")
_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<number>[+-]?[0-9][0-9.eE+-]*)"""
    r"""|(?P<name>[A-Za-z_][\w.]*)|(?P<mark>[][(){},:])""",
    re.DOTALL,
)
_NAMES = {"True": "true", "true": "true", "False": "false", "false": "false", "None": "null", "null": "null"}
_NAMES |= {"nan": "null", "NaN": "null"}
_BRACKETS = {"(": "[", "[": "[", "{": "{", ")": "]", "]": "]", "}": "}"}
_ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[^()]*)?\)", re.DOTALL)
_UNQUOTED = re.compile(r"""\[[^][{}()"'|;]*\]""")
_POSTGRES = re.compile(r"""\{(?:"(?:[^"\\]|\\.)*"|[^][{}"\\,:]+)(?:,(?:"(?:[^"\\]|\\.)*"|[^][{}"\\,:]+))*\}""")
_POSTGRES_ENTRY = re.compile(r'"((?:[^"\\]|\\.)*)"|([^{}",]+)')


@dataclass(frozen=True)
class ListCell:
    """The entries of a cell; `parted_by` is the sign between them, or "" where the cell itself says that it is a list,
    or None where it holds one value, which may be a list or none."""

    entries: list[Any]
    parted_by: str | None


def list_in(what: str, cell: str, *, separator: str | None = None, usual: str | None = None) -> ListCell:
    """The list in a cell. `separator` parts it, whatever else is in it; `usual` is the sign of other rows.

    Raises:
        InputError: it cannot be told where one value ends; `what` says whose cell it is.
    """
    if separator is not None:
        return ListCell(_parts(what, cell, separator), separator)
    array = _ARRAY.fullmatch(cell.strip())
    text = array[1] if array else cell.strip()
    if text[:1] in ("[", "("):
        return ListCell(_written_list(what, text), "")
    if text == "{}":
        return ListCell([], "")
    if _POSTGRES.fullmatch(text):
        quoted = (found.groups() for found in _POSTGRES_ENTRY.finditer(text[1:-1]))
        return ListCell([bare or re.sub(r"\\(.)", r"\1", inner) for inner, bare in quoted], "")
    if text[:1] == "{":
        raise InputError(f"{what} is {brief(cell)}, expected a list")
    signs = [sign for sign in SEPARATORS if sign in text]
    if usual in signs or (usual and not signs):
        return ListCell(_parts(what, cell, usual or ""), usual if signs else None)
    if usual is not None:
        raise InputError(
            f"{what} is {brief(cell)}, and other rows part their values by {usual!r}: {_way_out(usual)}, if they do"
        )
    if len(signs) > 1:
        raise InputError(
            f"{what} is {brief(cell)}, in which {_either(signs)} may part the values: {_way_out(signs[0])}"
        )
    parts = _parts(what, cell, signs[0]) if signs else [text]
    if (not signs or signs[0] == ",") and any(re.search(r"\s", part) for part in parts):
        sign = signs[0] if signs else " "
        one = "" if signs else " for several words, separator='|' for one value"
        raise InputError(f"{what} is {brief(cell)}, which may be one value or several: {_way_out(sign)}{one}")
    return ListCell(parts, signs[0] if signs else None)


def _parts(what: str, cell: str, separator: str) -> list[Any]:
    # a space is any run of white space
    parts = cell.split() if separator == " " else [part.strip() for part in cell.strip().split(separator)]
    if parts and not parts[-1]:
        parts.pop()  # a sign behind every value
    if "" in parts:
        raise InputError(f"{what} is {brief(cell)}, and nothing stands between two {separator!r}")
    return list(parts)


def _written_list(what: str, text: str) -> list[Any]:
    """The list that JSON, Python or numpy have written."""
    try:
        value = parse_json(text, what)
    except InputError as error:
        if _UNQUOTED.fullmatch(text) and re.search(r"[^\s\[\]\d.,+-]", text):
            inner = text[1:-1].strip()
            if "," not in inner and re.search(r"\s", inner):
                raise InputError(f"{what} is {brief(text)}, which may hold one value or several: quote them") from error
            return _parts(what, inner, ",")
        written = _as_json(text)
        if written is None:
            raise InputError(f"{error}, and no list of Python either") from error
        value = parse_json(written, what)
    if not isinstance(value, list):
        raise InputError(f"{what} is {brief(text)}, expected a list")
    return value


def _as_json(text: str) -> str | None:
    """The JSON of what `repr` writes of lists, tuples, dicts, texts and numbers; None for anything else."""
    written: list[str] = []
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            return None
        kind, token, place = found.lastgroup, found[0], found.end()
        if kind == "space":
            continue
        if token in (")", "]", "}"):
            if written and written[-1] == ",":
                written.pop()
            written.append(_BRACKETS[token])
        elif kind == "mark":
            # numpy writes nothing between two rows
            if token in _BRACKETS and written and written[-1] in ("]", "}"):
                written.append(",")
            written.append(_BRACKETS.get(token, token))
        else:
            value = _value(kind, token)
            if value is None:
                return None
            # numpy writes nothing between two values
            if written and written[-1] not in ("[", "{", ",", ":"):
                written.append(",")
            written.append(value)
    return "".join(written)


def _value(kind: str | None, token: str) -> str | None:
    if kind == "name":
        return _NAMES.get(token)
    if kind == "number":
        return token.lstrip("+").removesuffix(".")
    try:
        # one literal of a text, which nests nothing
        return json.dumps(ast.literal_eval(token.replace("\n", r"\n")))
    except (ValueError, SyntaxError):
        return None


def _either(signs: list[str]) -> str:
    return " or ".join(map(repr, signs))


def _way_out(sign: str) -> str:
    return f"say which sign parts them, for example separator={sign!r}"
