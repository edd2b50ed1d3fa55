"""Logged searches -> the queries that got no answer, for an evaluation set or for the one who writes the documents.

A refusal, a thumb down or an empty list says that something failed: the search, the writing, or the documents, which
may not have the answer. That is no label of a passage, but a query that is worth an evaluation by a person.

Guarantees: one entry a query (`same.query_key`), the most frequent first; a redacted query is in none. Does not know:
whether the documents have the answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from qdrant_tools.log.records import LoggedSearch, Verdict
from qdrant_tools.same import folded, query_key

__all__ = ["Unanswered", "is_refusal", "queries_without_answer", "thumbs_of"]

MOST_CHARACTERS = 300
"""Of a refusal. A longer text says something besides."""

_GIVEN = (
    r"(?:(?:provided|given|retrieved|above|available|supplied) (?:\w+ )?"
    r"(?:context|documents?|documentation|passages?|sources?|text|information|data)"
    r"|context(?: information)?|passages|sources)"
)
_REFUSALS = (
    # LlamaIndex writes this where it has found nothing
    "^empty response$",
    r"\b(?:i|we)(?:'m| am| are)? (?:do not|don't|cannot|can't|can not|could not|couldn't|not able to|unable to)"
    r" (?:know|find|answer|determine|provide)\b",
    r"\bno (?:relevant |sufficient |specific |further )?(?:information|details|answer)"
    r" (?:about|on|regarding|available|was found|to answer|in the)\b",
    r"\b(?:not enough|insufficient|not sufficient) (?:information|context|details)\b",
    rf"\b{_GIVEN}\b[^.]{{0,30}}\b(?:do|does|did)(?: not|n't) (?:\w+ )?"
    r"(?:answer|contain|mention|provide|include|specify|state|say|cover|address|discuss)\b",
    rf"(?:not|n't) (?:mentioned|specified|provided|stated|contained|included|found|available|covered) (?:in|by) "
    rf"(?:the |these |any )?{_GIVEN}",
    r"\bich (?:weiß|weiss) (?:es |das )?(?:leider )?nicht\b|\bkeine (?:informationen|angaben|antwort) (?:zu|über|im)\b",
    r"\bkann (?:ich )?(?:die frage |das |diese frage )?nicht beantwort",
    r"\bje ne (?:sais|peux) pas(?: répondre|$|[.,])|\baucune information\b|\bne contient pas d'information",
    r"\bno lo sé\b|\bno puedo responder\b|\bno hay información (?:sobre|en|disponible)|\bnão (?:sei|há informaç)",
    "我不知道|无法回答|(?:上下文|资料|文档|信息)中?(?:没有|未|并未|不)(?:提供|提及|提到|找到|包含)|わかりません|分かりません"
    "|情報(?:が|は)(?:ありません|含まれて)|답변할 수 없|모르겠습니다|정보가 없습니다",
    "я не знаю|нет информации|не могу ответить",
)
_REFUSAL = re.compile("|".join(f"(?:{pattern})" for pattern in _REFUSALS))


@dataclass(frozen=True)
class Unanswered:
    """A query without an answer: how often it came, when last, and why ("no hits", "refused", "thumb down")."""

    query: str
    times: int
    last: datetime
    reasons: dict[str, int]

    def as_row(self) -> dict[str, Any]:
        return asdict(self) | {"last": self.last.isoformat()}


def is_refusal(answer: str) -> bool:
    """Whether a short text says that it is no answer, in one of the languages that are known here."""
    text = folded(answer.strip()).replace("\u2019", "'")
    return 0 < len(text) <= MOST_CHARACTERS and _REFUSAL.search(text.rstrip(".")) is not None


def queries_without_answer(searches: Iterable[LoggedSearch]) -> list[Unanswered]:
    """Queries with a search that found nothing, an answer that refuses, or a thumb down that is the last word.

    A query that a language model wrote is in the list too if nothing was found for it; its answer is not its own.
    """
    reasons: dict[str, Counter[str]] = {}
    seen: dict[str, tuple[str, datetime]] = {}
    for search in searches:
        reason = None if search.redacted else reason_of(search)
        if reason is not None:
            key = query_key(search.query)
            reasons.setdefault(key, Counter())[reason] += 1
            query, last = seen.get(key, (search.query, search.at))
            seen[key] = query, max(last, search.at)
    found = [Unanswered(*seen[key][:1], counts.total(), seen[key][1], dict(counts)) for key, counts in reasons.items()]
    return sorted(found, key=lambda one: -one.times)


def reason_of(search: LoggedSearch) -> str | None:
    """Why a search is one without an answer; None for others."""
    if not search.hits:
        return "no hits"
    if search.answer is None or search.generated:
        return None
    if is_refusal(search.answer.text):
        return "refused"
    thumbs = thumbs_of(search)
    return "thumb down" if thumbs and not any(thumb.value for thumb in thumbs) else None


def thumbs_of(search: LoggedSearch) -> list[Verdict]:
    """The last thumb of each person on the answer of a search; of one moment the thumb down counts.

    A thumb of a program or a language model is none: it does not say that the answer helped anybody. People of whom
    nothing is known are one.
    """
    last: dict[str, Verdict] = {}
    if search.answer is not None:
        for said in search.answer.verdicts:
            if said.kind == "thumb" and said.by == "person":
                before = last.get(said.who)
                if before is None or (said.at, -said.value) > (before.at, -before.value):
                    last[said.who] = said
    return list(last.values())
