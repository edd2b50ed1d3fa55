"""What an application put into a span as text, JSON or Python's repr -> a query, an answer, a list of documents.

Guarantees: a text that the tool has hidden is never a query or an answer; JSON is bounded in size and depth; what is
not understood is None. Does not know: tools, attributes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_tools.errors import InputError
from qdrant_tools.files.json_files import parse_json
from qdrant_tools.files.rows import LONGEST_ROW, MOST_VALUES
from qdrant_tools.foreign import whole_signs
from qdrant_tools.traces.forms.raw import score_of
from qdrant_tools.traces.records import SpanDocument

_HIDDEN = re.compile(r"\W*(?:redacted|masked|hidden|filtered|scrubbed)\W*|\*{3,}", re.IGNORECASE)
_MARKED = re.compile(r"[\[<_{(*].*[\]>_})*]", re.DOTALL)


def is_hidden(value: Any) -> bool:
    """Whether a tool has put this in place of a text: `__REDACTED__`, `[REDACTED]`, `***`. A bare word is a text."""
    if not isinstance(value, str) or len(value) >= 40 or not (text := value.strip()) or text[0] not in "[<_{(*":
        return False
    return _HIDDEN.fullmatch(text.replace("_", " ").strip()) is not None and _MARKED.fullmatch(text) is not None


_OBJECT = re.compile(r"<(?:async_)?generator object.*>|<[\w.]+ object at 0x[0-9a-f]+>")


def text_of(value: Any) -> str | None:
    """A text that says something, is not hidden, and does not stand for an object that nobody could write."""
    if not isinstance(value, str) or not value.strip() or is_hidden(value):
        return None
    return None if value[0] == "<" and _OBJECT.fullmatch(value.strip()) else whole_signs(value)


def json_in(value: Any) -> Any:
    """The object or list that a text holds as JSON, or that a value is already; None for everything else."""
    if isinstance(value, (Mapping, list, tuple)):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if text[:1] not in ("{", "[") or len(text) > LONGEST_ROW:
        return None
    try:
        return parse_json(text, "it", most_values=MOST_VALUES)
    except InputError:
        return None


LONGEST_PYTHON = 2_000_000
"""Characters: Python's parser takes a hundred bytes for each."""


def python_in(value: Any) -> Any:
    """As `json_in`, also out of Python's repr of lists, dicts and numpy arrays, as pandas writes them into CSV."""
    found = json_in(value)
    if found is not None or not isinstance(value, str):
        return found
    text = value.strip()
    if text[:1] not in ("{", "[", "(", "a") or len(text) > LONGEST_PYTHON:
        return None
    # numpy parts what is in an array by white space; in a repr, a line end is never inside of a text
    text = re.sub(r"([}\])])[ \t\r]*+\n\s*+(?=[{\[(])", r"\1, ", text)
    try:
        return _plain(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _plain(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple():
            return [_plain(part) for part in node.elts]
        case ast.Dict():
            return {str(_plain(key)): _plain(part) for key, part in zip(node.keys, node.values, strict=True) if key}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id="nan" | "NaT" | "null"):
            return None
        # array([...], dtype=object), np.float64(0.5), Timestamp('...')
        case ast.Call(args=[first, *_]):
            return _plain(first)
    raise ValueError("no plain value")


# in this order: an engine's own question before the parts of a template
_ASKED = (
    "str_or_query_bundle", "query_bundle", "query_str", "query", "question", "user_query", "query_text", "search_query",
    "input", "message", "prompt", "text", "content", "inputs", "q", "user_input", "user_message", "user_msg",
)  # fmt: skip
_ANSWERED = (
    "response", "answer", "result", "output", "final_answer", "content", "text", "message", "outputs", "generation",
    "replies", "completion",
)  # fmt: skip
_DEEPEST = 6
# of JSON that has lost its end; nobody asks in these signs
_BROKEN = re.compile(r'\s*(?:\{\s*"|\[\s*[\[{"])')


_QUESTIONS = frozenset(
    ["str_or_query_bundle", "query_str", "query", "question", "user_query", "query_text", "search_query", "user_input"]
)
"""Under these names lies what somebody asked, also where it is written in JSON."""
_WRAPPING = (*_ASKED, "messages", "args", "kwargs")


def query_in(value: Any, *, plain: bool = False) -> str | None:
    """The question in the input of a retriever or an engine: a text, or an object that has it under a usual name.

    plain: whoever wrote the value says that it is a text: JSON in it, whole or not, is what somebody typed, unless it
        is the object of a framework.
    """
    if plain and isinstance(value, str) and is_typed(value):
        return text_of(value)
    return _words(value, _ASKED, ("user", "human"), _DEEPEST)


def is_typed(text: str) -> bool:
    """Whether a text that looks like JSON is none in which a framework wraps a question or messages."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    inside = json_in(text)
    if isinstance(inside, Mapping):
        return not any(name in inside for name in _WRAPPING)
    if inside is None:
        return text.lstrip()[0] == "{" and not any(f'"{name}"' in text[:200] for name in _WRAPPING)
    return len(inside) > 1 and not any(isinstance(part, (Mapping, list)) for part in inside)


def answer_in(value: Any) -> str | None:
    """The answer in the output of an engine: a text, or an object that has it under a usual name."""
    return _words(value, _ANSWERED, ("assistant", "ai", "model"), _DEEPEST)


def _words(value: Any, names: Sequence[str], roles: Sequence[str], deep: int) -> str | None:
    inside = json_in(value)
    if inside is None or deep == 0:
        if not isinstance(value, str) or _BROKEN.match(value):
            return None
        return _of_repr(value, roles) if _CALL.match(value) else text_of(value)
    if not isinstance(inside, Mapping):
        return _last_said(inside, roles) or (_words(inside[0], names, roles, deep - 1) if len(inside) == 1 else None)
    if isinstance(messages := inside.get("messages"), (list, tuple)):
        return _last_said(messages, roles)
    for name in names:
        if name in _QUESTIONS and isinstance(part := inside.get(name), str) and is_typed(part):
            return text_of(part)
        if (part := inside.get(name)) is not None and (found := _words(part, names, roles, deep - 1)) is not None:
            return found
    texts = [part for part in inside.values() if text_of(part) and not _OBJECT_SHOWN.match(part)]
    # of one text, nobody can be in doubt
    return text_of(texts[0]) if len(texts) == 1 and len(inside) == 1 else _of_parts(inside, names, roles, deep)


_OBJECT_SHOWN = re.compile(r"[A-Z]\w*\(")
"""The beginning of Python's repr of an object: `StartEvent()`."""


def _of_parts(inside: Mapping[str, Any], names: Sequence[str], roles: Sequence[str], deep: int) -> str | None:
    """What the parts of a pipeline were given or gave under usual names, if that is one and the same text."""
    found: set[str] = set()
    layer = [part for part in inside.values() if isinstance(part, Mapping)]
    for _ in range(deep):
        said = [_words(part[name], names, roles, 2) for part in layer for name in names if name in part]
        found.update(text for text in said if text is not None)
        layer = [value for part in layer for value in part.values() if isinstance(value, Mapping)]
    return found.pop() if len(found) == 1 else None


# Python's repr of what LlamaIndex's agents and workflows hand on, often cut at its end
_CALL = re.compile(r"(?:StopEvent|AgentInput|AgentOutput|AgentSetup|AgentChatResponse|ChatMessage|ChatResponse)\(")
_LITERAL = r"""('(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")"""
_SAID = re.compile(
    rf"role=<MessageRole\.(\w{{1,20}}):[^>]{{0,40}}>.{{0,200}}?TextBlock\(block_type='text', text={_LITERAL}", re.DOTALL
)
_RESULT = re.compile(rf"\w+\((?:result|response)={_LITERAL}")


def _of_repr(text: str, roles: Sequence[str]) -> str | None:
    """What the last message of a role says in such a repr; or the plain text that is its result."""
    said = [words for role, words in _SAID.findall(text) if role.lower() in roles]
    plain = _RESULT.match(text)
    found = said[-1] if said else plain[1] if plain is not None else None
    return None if found is None else text_of(ast.literal_eval(found))


def _last_said(messages: Sequence[Any], roles: Sequence[str]) -> str | None:
    """What the last message of a role says: `{"role", "content"}`, LangChain's `{"type", "content"}`, pairs."""
    for message in reversed(messages):
        if isinstance(message, (list, tuple)):
            found = _last_said(message, roles) if len(message) != 2 or not isinstance(message[0], str) else None
            if isinstance(message[0] if message else None, str) and message[0] in roles:
                found = _content(message[-1])
        elif isinstance(message, Mapping):
            # LangChain: {"kwargs": {...}} of dumped objects, {"data": {...}} of message dicts
            inner: Mapping[str, Any] = next(
                (message[name] for name in ("kwargs", "data") if isinstance(message.get(name), Mapping)), {}
            )
            role = next((r for r in (message.get("role"), inner.get("type"), message.get("type")) if r), "")
            found = _content(inner or message) if str(role).lower() in roles else None
        else:
            found = None
        if found is not None:
            return found
    return None


def _content(message: Any) -> str | None:
    """The text of a message whose content is a text, or a list of parts of which some are texts."""
    content = message
    if isinstance(message, Mapping):
        content = next((message[name] for name in ("content", "parts", "blocks", "text") if message.get(name)), None)
    if isinstance(content, (list, tuple)):
        parts = [part.get("text") or part.get("content") for part in content if isinstance(part, Mapping)]
        content = "\n".join(part for part in parts if isinstance(part, str))
    return text_of(content)


_CUT_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{0,4}-){0,3}[0-9a-f]{0,12}", re.IGNORECASE)


def is_cut_id(value: Any) -> bool:
    """Whether an id is the beginning of a UUID."""
    return isinstance(value, str) and 8 < len(value) < 36 and _CUT_UUID.fullmatch(value) is not None


def id_of(own: Any, metadata: Any, field: str | None) -> str | None:
    """The id of a document: the metadata's `field` if that is named; else its own, or langchain-qdrant's `_id`."""
    inside = json_in(metadata)
    inside = inside if isinstance(inside, Mapping) else {}
    value = own if own not in (None, "") else inside.get("_id")
    if field is not None:
        value = _at_path(inside, field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if is_cut_id(value) else text_of(value)


def _at_path(inside: Mapping[str, Any], field: str) -> Any:
    """The value of a field, whose name may be a path: `source.page`."""
    value: Any = inside.get(field)
    if value is None and "." in field:
        value = inside
        for step in field.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


_REPR = re.compile(r"<?NodeWithScore\(node=\w+\(id_=(.+)\), score=([^)]*)\)>?", re.DOTALL)


def reprs_in(value: Any) -> tuple[SpanDocument, ...] | None:
    """Ids and scores in a list of `<NodeWithScore(node=TextNode(id_=...), score=...)>`; None if it is none."""
    inside = json_in(value)
    if not isinstance(inside, (list, tuple)):
        return None
    found = [_REPR.fullmatch(part) if isinstance(part, str) else None for part in inside]
    if any(match is None for match in found):
        return None
    return tuple(SpanDocument(place, match[1], score_of(match[2])) for place, match in enumerate(found) if match)


def sources_of_answer(output: Any) -> tuple[SpanDocument, ...] | None:
    """The passages that an answer of LlamaIndex was made of, where it names them; None if it does not."""
    inside = json_in(output)
    if not isinstance(inside, Mapping) or not {"response", "response_gen"} & inside.keys():
        return None
    if (named := reprs_in(inside.get("source_nodes"))) is not None:
        return named
    # OpenLLMetry leaves the nodes out, and keeps their metadata by their ids
    by_id = inside.get("metadata")
    if not isinstance(by_id, Mapping) or not all(isinstance(value, Mapping) for value in by_id.values()):
        return None
    return tuple(SpanDocument(place, str(name)) for place, name in enumerate(by_id)) or None
