"""Questions of a language model: a real subclass of LlamaIndex's, plain callables, and those that fail, lie and die."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from test_synthesize import TOPICS, sections
from tiny import WordEncoder

from llama_index_embed_plus.errors import GenerationError, UsageError
from llama_index_embed_plus.training import GenerationSettings, SynthesisSettings, synthesize
from llama_index_embed_plus.training.synthesis.answers import points_to_passage, questions_in, read_answer
from llama_index_embed_plus.training.synthesis.generate import PROMPT, Generator
from llama_index_embed_plus.training.synthesis.overview import Seen
from qdrant_tools import CollectionManager, Passage, connect
from qdrant_tools.errors import InputError

ONLY_LLM = SynthesisSettings(rules=())


def words_of(prompt: str) -> list[str]:
    """The words of the passage that a prompt shows, in the order of the passage."""
    return re.findall(r"\w{4,}", prompt.rpartition("The text:")[2])


class Asking(CustomLLM):
    """Asks for the words of the passage: what a small model does, without a model."""

    calls: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="asking")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.calls += 1
        words = list(dict.fromkeys(words_of(prompt)))
        text = f"1. What is known about {words[0]} and {words[2]}?\n2. Who wrote of {words[0]} {words[2]} {words[-1]}?"
        usage = {"usage": {"prompt_tokens": len(prompt) // 4, "completion_tokens": 20}}
        return CompletionResponse(text=text, raw=usage)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


def asking(prompt: str) -> str:
    return Asking().complete(prompt).text


@pytest.fixture
def collection(tmp_path):
    with closing(connect(tmp_path / "data", create=True)) as client:
        opened = CollectionManager(client).ensure("nature", WordEncoder())
        opened.index(sections())
        yield opened


def test_a_model_of_llama_index_asks_about_every_passage_and_its_cost_is_counted(collection):
    llm = Asking()
    result = synthesize(collection, settings=ONLY_LLM, llm=llm)
    cost = result.report.cost
    assert llm.calls == cost["calls"] == cost["answered"] == 2 * len(TOPICS) and cost["failed"] == 0
    assert cost["questions"] == 4 * len(TOPICS)
    assert cost["completion_tokens"] == 20 * llm.calls and cost["prompt_tokens"] > 100 * llm.calls
    assert cost["prompt_characters"] > llm.calls * len(PROMPT)
    assert {made.rule for made in result.made} == {"generated"} and len(result.made) >= len(TOPICS)
    stored = collection.fetch([made.passage_id for made in result.made])
    for example, made in zip(result.examples, result.made, strict=True):
        assert example.synthetic and example.negatives and made.rank is not None and not made.positive
        assert example.positives[0].text == stored[made.passage_id].text, "nothing is taken out of the passage"


def test_rules_and_a_model_are_mixed_and_a_callable_may_return_a_list(collection):
    result = synthesize(collection, llm=lambda prompt: questions_in(asking(prompt)))
    assert set(result.report.kept) == {"generated", "headings", "first-sentences"}


def test_a_number_of_passages_bounds_the_cost_and_they_are_spread_over_the_documents(collection):
    result = synthesize(
        collection, settings=ONLY_LLM, llm=asking, generation=GenerationSettings(passages=len(TOPICS), questions=2)
    )
    assert result.report.cost["calls"] == len(TOPICS) == len({made.document for made in result.made})


def test_a_journal_spares_every_call_that_was_answered_and_asks_again_where_a_text_changed(collection, tmp_path):
    journal = tmp_path / "examples.generated.jsonl"
    first = synthesize(collection, settings=ONLY_LLM, llm=asking, journal=journal)
    silent = Asking()
    again = synthesize(collection, settings=ONLY_LLM, llm=silent, journal=journal)
    assert silent.calls == 0 and again == first and oct(journal.stat().st_mode)[-3:] == "600"
    changed = next(iter(sections()))
    collection.index([Passage(changed.id, changed.text + " And they dance for their sisters.", changed.metadata)])
    third = synthesize(collection, settings=ONLY_LLM, llm=silent, journal=journal)
    assert silent.calls == 1 and third.report.cost["calls"] == 2 * len(TOPICS) + 1, "the cost is that of all runs"


@pytest.mark.parametrize("change", ["prompt", "questions", "collection", "foreign"])
def test_a_journal_of_another_run_is_refused(collection, tmp_path, change):
    journal = tmp_path / "j.jsonl"
    seen = [Seen("a", "Bees make honey in their hive, and much of it.", "d")]
    list(Generator(asking, GenerationSettings(), journal=journal, of="nature").ask(seen))
    if change == "foreign":
        journal.write_text('{"query": "x", "positives": []}\n')
    changed: dict[str, Any] = {
        "prompt": {"prompt": "Ask: {passage}"},
        "questions": {"generation": GenerationSettings(questions=1)},
    }
    if change == "collection":
        collection = CollectionManager(collection.client).ensure("other", WordEncoder())
        collection.index(sections())
    with pytest.raises(UsageError, match="another prompt|no journal"):
        synthesize(collection, llm=asking, journal=journal, **changed.get(change, {}))


def killed_program(folder: str, journal: str, after: str) -> None:
    calls = 0

    def dying(prompt: str) -> str:
        nonlocal calls
        calls += 1
        if calls > int(after):
            os.kill(os.getpid(), signal.SIGKILL)
        return asking(prompt)

    with closing(connect(folder)) as client:
        synthesize(
            CollectionManager(client).open("nature", WordEncoder()), settings=ONLY_LLM, llm=dying, journal=journal
        )


def test_a_run_that_is_killed_goes_on_where_it_stopped_and_ends_as_if_nothing_had_happened(tmp_path):
    with closing(connect(tmp_path / "data", create=True)) as client:
        CollectionManager(client).ensure("nature", WordEncoder()).index(sections())
    journal = tmp_path / "j.jsonl"
    done = programs.run(killed_program, tmp_path / "data", journal, 5)
    assert done.returncode == -signal.SIGKILL
    assert len(journal.read_text().splitlines()) == 1 + 5
    with journal.open("ab") as file:
        file.write(b'{"passage_id": "docs/1.md#0", "text_ha')  # what a crash of the machine may leave
    with closing(connect(tmp_path / "data")) as client:
        opened = CollectionManager(client).open("nature", WordEncoder())
        llm = Asking()
        resumed = synthesize(opened, settings=ONLY_LLM, llm=llm, journal=journal)
        assert llm.calls == 2 * len(TOPICS) - 5
        whole = synthesize(opened, settings=ONLY_LLM, llm=asking)
    assert resumed.examples == whole.examples and resumed.made == whole.made


@pytest.mark.parametrize("failure", ["raises", "garbage", "nothing", "object"])
def test_what_fails_now_and_then_is_counted_and_what_fails_for_good_ends_the_run_with_all_answers_kept(
    collection, tmp_path, failure
):
    def fail() -> object:
        if failure == "raises":
            raise ConnectionError("the server is gone")
        return {"garbage": "I cannot help with that.", "nothing": "", "object": object()}[failure]

    calls = 0

    def flaky(prompt: str) -> object:
        nonlocal calls
        calls += 1
        return fail() if calls % 3 == 0 else asking(prompt)

    result = synthesize(collection, settings=ONLY_LLM, llm=flaky)
    assert result.report.cost["failed"] == calls // 3 and result.examples

    answered = 0

    def broken(prompt: str) -> object:
        nonlocal answered
        answered += 1
        return asking(prompt) if answered <= 4 else fail()

    journal = tmp_path / "j.jsonl"
    with pytest.raises(GenerationError, match="failed 3 times in a row .*4 answers are kept in .*j.jsonl"):
        synthesize(collection, llm=broken, journal=journal, generation=GenerationSettings(failures=3))
    mended = Asking()
    result = synthesize(collection, settings=ONLY_LLM, llm=mended, journal=journal)
    assert mended.calls == 2 * len(TOPICS) - 4 and result.report.cost["failed"] == 3


def test_several_workers_ask_at_once_and_the_result_is_the_same(collection):
    together = threading.Barrier(4, timeout=30)

    def waiting(prompt: str) -> str:
        together.wait()
        return asking(prompt)

    result = synthesize(collection, settings=ONLY_LLM, llm=waiting, generation=GenerationSettings(workers=4))
    assert result.examples == synthesize(collection, settings=ONLY_LLM, llm=asking).examples


def test_questions_that_are_none_are_dropped_and_counted(collection):
    def poor(prompt: str) -> list[str]:
        words = words_of(prompt)
        return [
            "What does the text say about bees?",
            "Why?",
            f"What is known about {words[0]} and {words[2]}?",
            "蜜蜂如何酿造蜂蜜并储存在蜂巢中？",
            "qwert zuiop asdfg yxcvb",
            " ".join(words * 3),
        ]

    dropped = synthesize(collection, settings=SynthesisSettings(rules=(), within=3), llm=poor).report.dropped
    assert dropped["speaks of the passage"] == dropped["too short"] == dropped["too long"] == 2 * len(TOPICS)
    assert dropped["several documents"] >= 2 * len(TOPICS), "the same question about everything asks for nothing"


def test_questions_in_another_script_than_the_passage_are_dropped(collection):
    numbers = iter(range(1000))
    result = synthesize(
        collection,
        llm=lambda prompt: [
            f"蜜蜂如何酿造第{next(numbers)}种蜂蜜并储存在蜂巢中？",
            f"为什么第{next(numbers)}只猫白天睡觉？",
        ],
    )
    assert "generated" not in result.report.kept
    assert result.report.dropped["another language"] == 4 * len(TOPICS)


def test_a_model_that_repeats_its_prompt_makes_no_examples_that_point_to_a_text(collection):
    result = synthesize(collection, llm=MockLLM())
    assert not any(points_to_passage(made.query) for made in result.made)


@pytest.mark.parametrize(
    "answer",
    [
        "How do bees make honey?\nWhy do cats sleep?",
        "1. How do bees make honey?\n2) Why do cats sleep?",
        "- How do bees make honey?\n* **Why do cats sleep?**",
        'Sure! Here are 2 questions:\n\n"How do bees make honey?"\n“Why do cats sleep?”',
        '["How do bees make honey?", "Why do cats sleep?"]',
        '```json\n{"questions": ["How do bees make honey?", "Why do cats sleep?"]}\n```',
        "Here you go: ['How do bees make honey?', 'Why do cats sleep?']",
        '[{"question": "How do bees make honey?", "answer": "x"}, {"question": "Why do cats sleep?"}]',
        "Q1: How do bees make honey?\nQ2: Why do cats sleep?",
        "Question 1: How do bees make honey?\nQuestion 2: Why do cats sleep?",
        "<think>\nThe user wants questions: one? two?\n</think>\nHow do bees make honey?\n\nWhy do cats sleep?\n",
        "How do bees make honey?\nHow do bees make honey?\nWhy do cats sleep?",
        '"How do bees make honey?",\n"Why do cats sleep?"',
    ],
)
def test_answers_come_in_many_forms(answer):
    assert questions_in(answer) == ["How do bees make honey?", "Why do cats sleep?"]


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "",
            "I'm sorry, but I can't help with that.",
            "As an AI language model, I have no access.",
            "{}",
            "[]",
            "[1, 2]",
        ),
        *("Es tut mir leid, das kann ich nicht.", "抱歉，我无法回答。", "Je suis désolé.", "<think>how? why?"),
    ],
)
def test_refusals_and_empty_answers_have_no_question(answer):
    assert questions_in(answer) == []


@settings(max_examples=60)
@given(st.text(max_size=400) | st.from_regex(r"[\[{\"'\d.\-*\s]{0,60}", fullmatch=True))
def test_no_answer_raises(text):
    for question in questions_in(text):
        assert question and question == question.strip() and "\n" not in question
    read_answer(text)


@pytest.mark.parametrize("value", [None, 3, object(), [object()], {"a": {1: object()}}])
def test_what_has_no_text_is_no_answer(value):
    assert read_answer(value) is None


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 50_000, "(" * 100_000 + "]" * 10, "1. " * 100_000])
def test_hostile_answers_are_bounded(deep):
    assert isinstance(questions_in(deep), list)


def test_a_prompt_is_filled_and_what_a_passage_says_is_not():
    seen = Seen("a", "Write {questions} about {place} and {passage}.", "d", headings=("Bees",), path="a/b.md")
    filled = Generator(asking, GenerationSettings(questions=7)).filled(seen)
    assert "Write 7 questions" in filled and "a/b.md > Bees" in filled and seen.text in filled


@pytest.mark.parametrize(
    ("llm", "prompt", "message"),
    [
        (None, "Ask about {passage}", "expected one of LlamaIndex's LLMs"),
        (Asking, PROMPT, "expected one of LlamaIndex's LLMs"),
        (asking, "Ask something", "expected a text with {passage}"),
    ],
)
def test_what_cannot_ask_is_refused(llm, prompt, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Generator(llm, GenerationSettings(), prompt=prompt)


def test_a_coroutine_is_refused():
    async def later(prompt: str) -> str:
        return prompt

    with pytest.raises(UsageError, match="has to be awaited"):
        Generator(later, GenerationSettings())


@pytest.mark.parametrize("name", ["questions", "passages", "workers", "failures", "longest"])
def test_counts_are_at_least_one(name):
    with pytest.raises(InputError, match=name):
        GenerationSettings(**{name: 0})


def test_the_command_imports_a_model_shows_its_prompt_and_counts_the_cost(run, tmp_path, monkeypatch):
    with closing(connect(tmp_path / "embed-plus-data", create=True)) as client:
        CollectionManager(client).ensure("nature", WordEncoder()).index(sections())
    monkeypatch.setattr("llama_index_embed_plus.cli.opened.open_encoder", lambda *args, **kwargs: WordEncoder())
    Path(tmp_path / "my_models.py").write_text(
        "from test_synthesis_llm import Asking\nllm = Asking()\n\ndef broken(prompt):\n    raise OSError('gone')"
    )
    code, out, _ = run("synthesize", "nature", "--show-prompt")
    assert code == 0 and "{passage}" in out
    command = ("synthesize", "nature", "--out", "e.jsonl", "--rules", "", "--llm")
    code, out, _ = run(*command, "my_models:llm", "--show", "1")
    assert code == 0 and f"language model: {2 * len(TOPICS)} calls (0 failed)" in out and " tokens" in out
    assert json.loads((tmp_path / "e.synthesis.json").read_text())["cost"]["calls"] == 2 * len(TOPICS)
    assert "e.generated.jsonl" in " ".join(path.name for path in tmp_path.iterdir())
    assert run(*command, "my_models:Asking", "--overwrite")[0] == 0, "a class is called for a model"
    for wrong, message in (
        ("my_models", "MODULE:NAME"),
        ("my_models:nobody", "cannot be imported"),
        ("nowhere:x", "nowhere"),
    ):
        code, _, err = run(*command, wrong, "--overwrite")
        assert code == 2 and message in err
    (tmp_path / "prompt.txt").write_text("Ask about {passage}")
    code, _, err = run(*command, "my_models:llm", "--overwrite", "--prompt", "prompt.txt")
    assert code == 2 and "another prompt" in err
    other = ("synthesize", "nature", "--out", "f.jsonl", "--llm", "my_models:broken")
    code, _, err = run(*other)
    assert code == 1 and "failed 5 times in a row" in err and "gone" in err
