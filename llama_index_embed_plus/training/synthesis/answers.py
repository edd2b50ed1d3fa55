"""What a language model answered -> questions, and what it cost.

Models answer as JSON, as a list with numbers or dots, or as plain lines, with words before and after; with quotes, bold
type, or a refusal. Guarantees: nothing in an answer raises or takes long. Does not know: models, prompts.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regex

from llama_index_embed_plus.training.synthesis.texts import one_line

LONGEST_ANSWER = 20_000
"""Characters of an answer that are read."""
MOST_QUESTIONS = 50
_FENCE = regex.compile(r"```\w*\n?")
_REASONING = regex.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", regex.DOTALL | regex.IGNORECASE)
_LEAD = regex.compile(
    r"^\s*(?:[-*•·‣–]\s+|\(?\d{1,2}[.):]\s*|(?:Q|Question|Query|Frage|Pregunta|Domanda|Pergunta|Вопрос|问题|質問)"
    r"\s?\d{0,2}\s?[.:：)]\s*)+",
    regex.IGNORECASE,
)
_QUOTES = "\"'“”„‘’«»「」『』`"
_REFUSAL = regex.compile(
    r"^(?:I(?:'m| am) (?:sorry|unable|not able|an AI)|I (?:cannot|can't|can not|apologi[sz]e)|Sorry,|As an AI"
    r"|As a language|Unfortunately,|Es tut mir leid|Ich kann (?:leider )?(?:keine|nicht)|Leider|Je suis désolé"
    r"|Je ne peux|Lo siento|No puedo|Mi dispiace|Desculpe|Извините|К сожалению|抱歉|对不起|申し訳)",
    regex.IGNORECASE,
)
_CHATTER = regex.compile(
    r"^(?:Sure|Certainly|Of course|Here (?:are|is)|Okay|Gern|Natürlich|Hier sind|Voici|Aquí|Claro|Ecco|Вот)\b.*[:!.]$",
    regex.IGNORECASE,
)
_POINTS = regex.compile(
    r"\b(?:(?:this|the|given|above|provided|following)\s+(?:passage|text|excerpt|paragraph|snippet|article|author|context)"
    r"|according to the (?:document|section)"
    r"|(?:diese[rsmn]?|de[rsmn]|das)\s+(?:Text(?:es)?|Abschnitts?|Absatz(?:es)?|Auszugs?|Autors?)"
    r"|(?:ce|cet|le|du)\s+(?:texte|passage|extrait|paragraphe|auteur)|(?:este|el|del)\s+(?:texto|pasaje|fragmento|autor))\b"
    r"|(?:这段|该段|本文|上述)(?:文字|文本|段落)?|この(?:文章|段落|テキスト)",
    regex.IGNORECASE,
)


@dataclass(frozen=True)
class Answer:
    """What came back of one call: its text, and the tokens it cost if the model says so."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


def read_answer(value: Any) -> Answer | None:
    """What a callable or one of LlamaIndex's models returned; None for what has no text."""
    if isinstance(value, str):
        return Answer(value)
    if isinstance(value, list | tuple | Mapping):
        try:
            return Answer(json.dumps(value, ensure_ascii=False))
        except (TypeError, ValueError, RecursionError):
            return None
    text = getattr(value, "text", None)
    if not isinstance(text, str):
        text = getattr(getattr(value, "message", None), "content", None)
    return Answer(text, *_tokens(value)) if isinstance(text, str) else None


def questions_in(answer: str) -> list[str]:
    """The questions of an answer, one each, without what stands around them; none of a refusal."""
    text = _FENCE.sub("", _REASONING.sub("", answer[:LONGEST_ANSWER])).strip()
    if _REFUSAL.match(text):
        return []
    listed = _listed(text)
    lines = text.splitlines() if listed is None else listed
    found: dict[str, None] = {}
    for line in lines:
        question = _question(line)
        if (
            any(map(str.isalpha, question))
            and not _REFUSAL.match(question)
            and not (listed is None and _is_chatter(question, lines))
        ):
            found.setdefault(question)
    return list(found)[:MOST_QUESTIONS]


def points_to_passage(question: str) -> bool:
    """Whether a question speaks of the passage, which nobody who searches has before them."""
    return _POINTS.search(question) is not None


def _question(line: str) -> str:
    text = one_line(line)
    before = ""
    while text != before:
        before = text
        text = _LEAD.sub("", text).strip().strip("*_").strip()
        if len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
            text = text[1:-1].strip()
        text = text.rstrip(",") if text[:1] in _QUOTES else text
    return text


def _is_chatter(line: str, lines: list[str]) -> bool:
    """Whether a line speaks about the questions; with several lines, one that ends in a colon does."""
    return _CHATTER.match(line) is not None or (len(lines) > 1 and line.endswith((":", "：")))


def _listed(text: str) -> list[str] | None:
    """The entries of a JSON or Python list in the text, or of the first list in an object; None if there is none."""
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if start < 0 or end < start:
            continue
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(text[start : end + 1])
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
            entries = _entries(value)
            if entries is not None:
                return entries
    return None


def _entries(value: Any) -> list[str] | None:
    if isinstance(value, Mapping):
        lists = [entry for entry in value.values() if isinstance(entry, list | tuple)]
        if lists:
            return _entries(lists[0])
        texts = [entry for name, entry in value.items() if isinstance(entry, str) and name != "answer"]
        return texts or None
    if not isinstance(value, list | tuple):
        return None
    found: list[str] = []
    for entry in value:
        if isinstance(entry, str):
            found.append(entry)
        elif isinstance(entry, Mapping):
            named = (entry.get(name) for name in ("question", "query", "text", "q"))
            found += [next((text for text in named if isinstance(text, str)), "")]
    return [entry for entry in found if entry]


def _tokens(value: Any) -> tuple[int, int]:
    """(prompt, completion) tokens, as OpenAI, Anthropic and LlamaIndex name them; 0 where nothing is said."""
    raw = getattr(value, "raw", None)
    usage = raw.get("usage") if isinstance(raw, Mapping) else getattr(raw, "usage", None)
    for counts in (getattr(value, "additional_kwargs", None), usage):
        found = [
            _count(counts, names)
            for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
        ]
        if any(found):
            return found[0], found[1]
    return 0, 0


def _count(counts: Any, names: tuple[str, str]) -> int:
    for name in names:
        value = counts.get(name) if isinstance(counts, Mapping) else getattr(counts, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53:
            return value
    return 0
