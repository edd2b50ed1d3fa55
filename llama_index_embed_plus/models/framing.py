"""The files of a tokenizer -> the library's tokenizer, opened safely, and the tokens that it puts around every text.

The tokens around a text are those of tokenizer.json and those that its settings, or what is published of the model, add
to them. Decoders are often saved with `add_eos_token` and a tokenizer.json that adds no such token; transformers since
version 5 reads the file alone. `frame_in_file` writes such tokens into the file, and pads on the right, so that whoever
reads the folder reads the tokens that are served.

Guarantees: what the library raises for odd files, panics included, is DamagedModelError; what `frame_in_file` wrote is
told from what was there, so that both files name one space (`as_published`). Does not know: texts, models.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HfTokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models.files import Settings, require_json, settings_of, write_json
from llama_index_embed_plus.models.growth import too_long
from qdrant_tools.errors import NotSupportedError, PlusError, first_line

Ids = NDArray[np.int32]
"""(t,) token ids."""

_WORDPIECE_FAMILIES = ("bert", "distilbert", "electra")
"""Model types whose old folders hold vocab.txt and no tokenizer.json. One can be made from the other."""
PROBES = ("Words, 1 or 2.", "a" * 60 + "!", " " * 60 + "!")
"""Texts on which a tokenizer that fails does so when it is opened."""
_MARK = "embed-plus:"
"""How the names of the tokens begin that `frame_in_file` put into a file; the rest says what asked for them."""
_TEMPLATE = "TemplateProcessing"


def check_tokenizer(folder: Path) -> None:
    """Raise DamagedModelError for a tokenizer.json that no library should run: see `Tokenizer`."""
    if (folder / "tokenizer.json").is_file():
        load_tokenizer(folder, Settings(folder, {}), Settings(folder, {}))


def load_tokenizer(folder: Path, config: Settings, settings: Settings) -> HfTokenizer:
    path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        with panics_silenced(folder):
            if path.is_file():
                tokenizer = HfTokenizer.from_file(str(path))
                if reason := too_long(tokenizer):
                    raise DamagedModelError(f"{path}: {reason}; fetch it again")
            elif vocabulary.is_file() and config.text("model_type") in _WORDPIECE_FAMILIES:
                # transformers' BertTokenizer lower-cases unless a file says otherwise
                lower = settings.flag("do_lower_case") is not False
                tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=lower)._tokenizer
            else:
                raise DamagedModelError(
                    f"{path} is missing; transformers writes it: "
                    "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
                )
            # what tokenizer.json saved of padding and truncation would act before ours
            tokenizer.no_padding()
            tokenizer.no_truncation()
            # patterns are run here for the first time: some work on no text, others never end on this one
            for probe in PROBES:
                tokenizer.encode(probe, add_special_tokens=False)
            return tokenizer
    except PlusError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise DamagedModelError(
            f"{path if path.is_file() else vocabulary} cannot be read ({first_line(error)}); fetch it again"
        ) from error


@contextmanager
def panics_silenced(folder: object) -> Iterator[None]:
    """While a tokenizer is opened: a panic of the library is DamagedModelError, and what it prints is not shown."""
    # Rust prints a panic to the file descriptor, whatever sys.stderr is
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with panics_translated(folder):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def panics_translated(folder: object) -> Iterator[None]:
    """A panic of the tokenizers library, which is no Exception to Python, becomes DamagedModelError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise DamagedModelError(
            f"the tokenizer in {folder} fails ({first_line(error)}); fetch the model again, or use another"
        ) from error


def frame_of(tokenizer: HfTokenizer, settings: Settings, append_eos: bool) -> tuple[Ids, Ids]:
    """Return the tokens before and after every text: the tokenizer's own, and those its settings ask for.

    Decoders are often saved with `add_eos_token` and a tokenizer.json that adds no such token.
    """
    probe = tokenizer.encode("a")  # any text with a token shows what is put around it
    # every backend takes token types to be 0
    if any(probe.type_ids):
        raise NotSupportedError(f"the tokenizer gives token types {probe.type_ids}, expected 0 for a single text")
    text = [i for i, special in enumerate(probe.special_tokens_mask) if not special]
    first, last = (text[0], text[-1] + 1) if text else (len(probe.ids), len(probe.ids))
    opening, closing = probe.ids[:first], probe.ids[last:]
    bos = id_of(tokenizer, settings.values.get("bos_token")) if settings.flag("add_bos_token") else None
    eos = id_of(tokenizer, settings.values.get("eos_token")) if append_eos or settings.flag("add_eos_token") else None
    if bos is not None and opening[:1] != [bos]:
        opening.insert(0, bos)
    if eos is not None and closing[-1:] != [eos]:
        closing.append(eos)
    return ids_of(opening), ids_of(closing)


def id_of(tokenizer: HfTokenizer, token: Any) -> int | None:
    """Return the id of a token as tokenizer_config.json writes it: its text, or an object with `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    token_id: int | None = tokenizer.token_to_id(content) if isinstance(content, str) else None
    return token_id


def ids_of(ids: list[int]) -> Ids:
    """Token ids as an array. Raises DamagedModelError for one that no model has."""
    try:
        return np.asarray(ids, np.int32)
    except OverflowError as error:
        raise DamagedModelError(f"the tokenizer gives word {max(ids)}, which no model has; fetch it again") from error


def frame_in_file(inner: Path, *, append_eos: bool) -> None:
    """Make tokenizer.json put all tokens around a text that `frame_of` finds, and the settings pad on the right.

    The first token keeps position 0 then, as in serving: left padding shifts positions with the longest neighbour.

    append_eos: whether the closing token is added although no file says so.
    """
    if not (inner / "tokenizer.json").is_file():
        return
    settings = settings_of(inner, "tokenizer_config.json")
    if settings.values.get("padding_side") != "right":
        write_json(inner / "tokenizer_config.json", {**settings.values, "padding_side": "right"})
    if not (append_eos or settings.flag("add_bos_token") or settings.flag("add_eos_token")):
        return
    tokenizer = load_tokenizer(inner, settings_of(inner, "config.json"), settings)
    with panics_silenced(inner):
        wanted, found = frame_of(tokenizer, settings, append_eos), frame_of(tokenizer, Settings(inner, {}), False)
    asked = ("add_bos_token", "add_eos_token" if settings.flag("add_eos_token") else "append_eos")
    # frame_of adds one token at the very beginning and one at the very end, or none
    added = [
        (name, int(ids[place]) if len(ids) > len(has) else None)
        for name, ids, has, place in zip(asked, wanted, found, (0, -1), strict=True)
    ]
    if any(token is not None for _, token in added):
        saved = require_json(inner, "tokenizer.json")
        first, last = (None if id is None else (name, id, str(tokenizer.id_to_token(id))) for name, id in added)
        saved["post_processor"] = _with_tokens(saved.get("post_processor"), first, last)
        write_json(inner / "tokenizer.json", saved)


_Added = tuple[str, int, str] | None
"""What asked for a token, its id, and the token."""


def _with_tokens(processor: dict[str, Any] | None, first: _Added, last: _Added) -> dict[str, Any]:
    """A post-processor with one more token at the beginning, and one at the end."""
    if processor is None:
        text, other = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
        processor = {"type": _TEMPLATE, "single": [text], "pair": [text, other], "special_tokens": {}}
    elif processor.get("type") != _TEMPLATE:
        steps = processor.get("processors") if processor.get("type") == "Sequence" else None
        if steps and steps[-1].get("type") == _TEMPLATE:
            return {**processor, "processors": [*steps[:-1], _with_tokens(steps[-1], first, last)]}
        return {"type": "Sequence", "processors": [processor, _with_tokens(None, first, last)]}
    tokens = {
        _MARK + name: {"id": _MARK + name, "ids": [number], "tokens": [token]}
        for name, number, token in filter(None, (first, last))
    }
    before, after = (
        [{"SpecialToken": {"id": _MARK + added[0], "type_id": 0}}] if added else [] for added in (first, last)
    )
    return {
        **processor,
        **{kind: [*before, *processor[kind], *after] for kind in ("single", "pair")},
        "special_tokens": {**processor["special_tokens"], **tokens},
    }


def as_published(tokenizer: Mapping[str, Any]) -> tuple[Any, frozenset[str]]:
    """The post-processor of a tokenizer.json without what `frame_in_file` wrote, and what had asked for that."""
    asked: set[str] = set()
    return _without_tokens(tokenizer.get("post_processor"), asked), frozenset(asked)


def _without_tokens(processor: Any, asked: set[str]) -> Any:
    kind = processor.get("type") if isinstance(processor, dict) else None
    if kind == "Sequence" and isinstance(processor.get("processors"), list):
        steps = [_without_tokens(step, asked) for step in processor["processors"]]
        if asked and len(steps) == 2 and steps[1] is None:
            return steps[0]
        return {**processor, "processors": steps} if asked else processor
    if kind != _TEMPLATE or not isinstance(processor.get("special_tokens"), dict):
        return processor
    kept = {key: token for key, token in processor["special_tokens"].items() if not key.startswith(_MARK)}
    if len(kept) == len(processor["special_tokens"]):
        return processor
    asked |= {key.removeprefix(_MARK) for key in processor["special_tokens"].keys() - kept}
    pieces = {name: [row for row in processor[name] if not _is_added(row)] for name in ("single", "pair")}
    return {**processor, **pieces, "special_tokens": kept} if kept or len(pieces["single"]) > 1 else None


def _is_added(piece: Any) -> bool:
    token = piece.get("SpecialToken") if isinstance(piece, dict) else None
    return isinstance(token, dict) and str(token.get("id")).startswith(_MARK)
