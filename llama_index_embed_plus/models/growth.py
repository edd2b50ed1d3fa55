"""A tokenizer that somebody else made -> how many times as long as a text its tokens may be, at most.

A step that makes a text only twice as long is harmless, thirty of them one after another are not: the library takes
the memory without asking, and ends the process when there is no more.

Guarantees: the number is an upper bound for every text, found without running a step. Does not know: files.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

_MOST_GROWTH = 100
_MOST_STEPS = 200
_MOST_ADDED = 1000
"""Tokens around a text."""
_OF_A_KIND: Mapping[str, int] = {"ByteLevel": 4, "BertNormalizer": 3}
"""Each byte of a character becomes one; each Chinese character gets spaces around it."""


def too_long(tokenizer: Tokenizer) -> str | None:
    """Say how a tokenizer would make texts too long. None: it does not."""
    added = tokenizer.num_special_tokens_to_add(False)
    if added > _MOST_ADDED:
        return f"it puts {added:,} tokens around a text"
    steps = [step for part in (tokenizer.normalizer, tokenizer.pre_tokenizer) for step in _steps(part)]
    if len(steps) > _MOST_STEPS:
        return f"it prepares a text in {len(steps):,} steps"
    growth = 1
    for step in steps:
        growth *= _growth(step)
        if growth > _MOST_GROWTH:
            return f"its steps make texts {growth:,} times as long"
    return None


def _steps(part: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, as their file names them."""
    waiting = [json.loads(part.__getstate__())] if part is not None else []
    while waiting:
        step = waiting.pop()
        waiting += [*(step.get("normalizers") or ()), *(step.get("pretokenizers") or ())]
        yield step


def _growth(step: Mapping[str, Any]) -> int:
    kind = str(step.get("type"))
    if kind == "Replace":
        content, pattern = len(str(step.get("content") or "")), step.get("pattern") or {}
        # what a pattern finds between two characters is put beside them
        return max(1, content + (content > 0 and _may_be_empty(pattern)))
    if kind == "Precompiled":
        return max(1, _longest_of(str(step.get("precompiled_charsmap") or "")))
    return _OF_A_KIND.get(kind, 1) * max(1, len(str(step.get("prepend") or "")))


def _may_be_empty(pattern: Mapping[str, Any]) -> bool:
    if "Regex" not in pattern:
        return not pattern.get("String")
    try:
        # how wide a match is at least, as Python reads the pattern; the library reads nearly the same language
        return bool(re._parser.parse(str(pattern["Regex"])).getwidth()[0] == 0)  # type: ignore[attr-defined]
    except Exception:  # what Python cannot read may be anything
        return True


def _longest_of(charsmap: str) -> int:
    """The longest text that sentencepiece's table puts in the place of a character."""
    table = base64.b64decode(charsmap)
    # the size of a trie, the trie, and the texts, each with a zero byte behind it
    texts = table[4 + int.from_bytes(table[:4], "little") :]
    return max(len(text) for text in texts.split(b"\0")) if texts else 1
