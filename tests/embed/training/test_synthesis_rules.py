"""A passage -> the queries that each rule makes of it."""

from __future__ import annotations

import time

import pytest

from llama_index_embed_plus.training.synthesis.overview import Overview, read
from llama_index_embed_plus.training.synthesis.records import RULES
from llama_index_embed_plus.training.synthesis.rules import queries_of
from llama_index_embed_plus.training.synthesis.texts import length, paragraphs, script, whole_sentences, without
from qdrant_tools.records import Passage


def made(rule, *passages, of=0):
    """The queries of one of these passages, all of which are the collection."""
    return [one.query for one in queries_of(read(passages[of]), overview_of(*passages), rule)]


def overview_of(*passages):
    overview = Overview()
    for each in passages:
        overview.add(each)
    return overview


def passage(text, path="guide.md", headings=(), part=0, **metadata):
    place = {"source": "docs", "file_path": path, "document": f"docs/{path}", "part": part}
    return Passage(f"docs/{path}#{part}", text, place | {"header_path": " > ".join(headings)} | metadata)


ANSWER = "It takes the nearest passages and leaves out what may be an answer too."


def test_a_heading_asks_for_the_passage_that_its_section_begins_with():
    first = passage("Choosing hard negatives\n\n" + ANSWER, headings=("Mining", "Choosing hard negatives"))
    second = passage(ANSWER, headings=("Mining", "Choosing hard negatives"), part=1)
    assert made("headings", first, second) == ["Mining: Choosing hard negatives"]
    assert made("headings", first, second, of=1) == []


@pytest.mark.parametrize(
    "heading", ["Introduction", "1. Summary", "Zusammenfassung", "Введение", "まとめ", "参考文献", "Résumé", "3.2"]
)
def test_a_heading_that_stands_above_anything_needs_the_one_above_it(heading):
    assert made("headings", passage(ANSWER, headings=(heading,))) == []
    with_context = made("headings", passage(ANSWER, headings=("Query adapters: how to", heading)))
    assert with_context in (["Query adapters: " + heading.removeprefix("1. ")], ["Query adapters: 3.2"], [])


def test_a_heading_that_many_documents_have_is_generic_whatever_its_language():
    passages = [passage(ANSWER, f"{n}.md", ("Käyttöohje",)) for n in range(5)]
    assert made("headings", *passages) == []
    assert made("headings", passages[0], passage(ANSWER, "x.md", ("Hunajan keruu syksyllä",)), of=1) == [
        "Hunajan keruu syksyllä"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "# Mining\n\nAbout it.\n\n## Choosing hard negatives\n\n" + ANSWER,
        "Mining\n======\n\nAbout it.\n\nChoosing hard negatives\n-----------------------\n\n" + ANSWER,
    ],
)
def test_a_collection_without_places_has_the_headings_of_its_texts(text):
    assert "Choosing hard negatives" in " ".join(made("headings", Passage("a", text)))


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("How do I mine hard negatives?\n\n" + ANSWER, "How do I mine hard negatives?"),
        ("## How do I mine hard negatives?\n" + ANSWER, "How do I mine hard negatives?"),
        ("**Q: How do I mine hard negatives?**\n\nA: " + ANSWER, "How do I mine hard negatives?"),
        ("Q1. How do I mine negatives?\nA1. " + ANSWER, "How do I mine negatives?"),
        ("Frage: Wie findet man schwere Negative?\nAntwort: " + ANSWER, "Wie findet man schwere Negative?"),
        ("问:如何挖掘困难负样本？\n答:从最近的段落中选取,去掉可能的答案。", "如何挖掘困难负样本？"),
        (
            "كيف تجد الأمثلة السلبية الصعبة؟\nمن أقرب المقاطع في المجموعة نفسها بعد حذف الأجوبة.",
            "كيف تجد الأمثلة السلبية الصعبة؟",
        ),
        ("What is asthma? Asthma is a disease of the airways that makes it hard to breathe.", "What is asthma?"),
    ],
)
def test_a_question_with_its_answer_below_is_asked(text, question):
    assert made("faq", Passage("a", text)) == [question]


def test_a_question_as_heading_asks_for_its_section():
    assert made("faq", passage(ANSWER, headings=("FAQ", "How are negatives mined?"))) == ["How are negatives mined?"]
    assert made("headings", passage(ANSWER, headings=("FAQ", "How are negatives mined?"))) == []


@pytest.mark.parametrize("text", ["What is asthma?", "Is it better?\n\n" + ANSWER, "Who?\nWhat?\nWhere?\n"])
def test_a_question_without_an_answer_or_a_subject_is_not_asked(text):
    assert made("faq", Passage("a", text)) == []


def test_a_title_asks_for_the_beginning_of_its_document():
    first, second = (
        passage(ANSWER, title="Mining hard negatives"),
        passage(ANSWER, part=1, title="Mining hard negatives"),
    )
    assert made("titles", first, second) == ["Mining hard negatives"]
    assert made("titles", first, second, of=1) == []
    assert made("titles", Passage("r7", "Bees. " + ANSWER, {"title": "Bees make honey"})) == ["Bees make honey"]


@pytest.mark.parametrize(
    ("path", "title"),
    [("how-to/travel_expenses-abroad.pdf", "travel expenses abroad"), ("IMG_20260101.md", None), ("README.md", None)],
)
def test_a_document_without_a_title_is_asked_for_by_a_name_that_says_something(path, title):
    assert made("titles", passage(ANSWER, path)) == ([title] if title else [])


def test_a_link_asks_for_the_passage_that_it_leads_to():
    overview = Overview()
    source = passage(
        "See [how negatives are mined](mining.md#which-candidates), [the whole story](../docs/mining.md), "
        "[here](mining.md), [`mine`](mining.md), [somewhere else](https://example.org) and ![a picture](mining.md).",
        "guides/start.md",
    )
    targets = [
        passage("Mining. " + ANSWER, "guides/mining.md", ("Mining",)),
        passage("Which candidates\n\n" + ANSWER, "guides/mining.md", ("Mining", "Which candidates?"), part=1),
    ]
    for each in (source, *targets):
        overview.add(each)
    found = queries_of(read(source), overview, "links")
    assert [(one.query, one.passage_id) for one in found] == [("how negatives are mined", "docs/guides/mining.md#1")]


@pytest.mark.parametrize(
    ("name", "code", "query"),
    [
        ("a.py", 'def mine(a,\n         b) -> list:\n    """Find hard negatives for a query.\n\n    More."""\n', None),
        ("b.py", '"""Find hard negatives for a query. More."""\n\nimport os\n', None),
        (
            "c.js",
            "/**\n * Find hard negatives for a query.\n * @param a b\n */\nexport async function mine(a) {\n",
            None,
        ),
        ("d.go", "// Find hard negatives for a query.\nfunc Mine(a string) {\n", None),
        ("e.rs", "/// Find hard negatives for a query.\n#[inline]\npub fn mine(a: &str) {\n", None),
        ("f.java", "/** Find hard negatives for a query. */\n@Override\npublic List<String> mine(String a) {\n", None),
        ("g.c", "/* Find hard negatives for a query. */\nstatic int mine(char *a)\n{\n", None),
    ],
)
def test_what_is_written_about_code_asks_for_it(name, code, query):
    assert made("docstrings", passage(code, name)) == ["Find hard negatives for a query"]


def test_markdown_is_no_code():
    assert made("docstrings", passage("# Find hard negatives for a query.\nclass of things\n")) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Bees make honey in their hive. They sleep.", "Bees make honey in their hive."),
        (
            "This is why. Bees, e.g. those of Dr. Frisch, make honey. More.",
            "Bees, e.g. those of Dr. Frisch, make honey.",
        ),
        (
            "# Bees\n\n- a list. Of things.\n\n| a | table. |\n\nBees make\nhoney in summer. More.",
            "Bees make honey in summer.",
        ),
        ("```\nCode is. Not prose here.\n```\n\nBees make honey in summer.", "Bees make honey in summer."),
        ("蜜蜂在蜂巢里酿造蜂蜜。它们睡觉。", "蜜蜂在蜂巢里酿造蜂蜜。"),
        ("BACKGROUND AND STUDY AIMS Bees make honey in summer. More.", "Bees make honey in summer."),
        ("Key Points - Bees make honey in summer. More.", "Bees make honey in summer."),
        ("of the last page. Bees make honey in summer. More.", "Bees make honey in summer."),
        ("All [the bees](bees.md) make `honey` in summer. More.", "All the bees make honey in summer."),
    ],
)
def test_the_first_sentence_that_is_understood_by_itself_is_asked(text, sentence):
    assert made("first-sentences", Passage("a", text)) == [sentence]


def test_a_title_before_a_sentence_is_no_part_of_it():
    row = Passage("a", "Honey Bees make honey in their hive. More.", {"title": "Honey"})
    assert made("first-sentences", row) == ["Bees make honey in their hive."]


def test_what_was_asked_is_taken_out_of_the_answer():
    text = "# Mining\n\nChoosing hard\nnegatives is easy. The rest stays here.\n\nMining\n======\n\nMore of mining."
    rest = without(text, ("Choosing hard negatives is easy.", "Mining"))
    assert rest == "The rest stays here.\n\nMore of mining."
    assert without("蜜蜂酿蜜。它们睡觉。", ("蜜蜂酿蜜。",)) == "它们睡觉。"


def test_words_and_scripts_of_any_language():
    assert [length("How do I mine?"), length("如何挖掘困难负样本"), length("")] == [4, 5, 0]
    assert [script(text) for text in ("bees", "蜜蜂", "ミツバチの巣", "пчёлы", "النحل", "42")] == [
        *("Latin", "Han", "Kana", "Cyrillic", "Arabic", ""),
    ]
    assert list(whole_sentences("One is 3.5 metres. Two! 三。Four? X")) == [
        "One is 3.5 metres.",
        "Two!",
        "三。",
        "Four?",
    ]


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "a\n" * 10_000, '"""' * 7000, "? " * 10_000, "/*" * 10_000, "a " * 10_000]
)
def test_no_text_takes_long(text):
    started = time.monotonic()
    for rule in RULES:
        made(rule, passage(text, "a.py", ("x " * 500,)))
    list(paragraphs(text))
    without(text, ("a a a a a a b",))
    assert time.monotonic() - started < 20


def test_what_stands_before_a_markdown_text_names_and_describes_it_and_is_no_heading():
    text = f"---\ntitle: Bees of the garden\nsection: 1\ndescription: How to keep bees in a garden\n---\n\n{ANSWER}"
    assert made("titles", passage(text)) == ["How to keep bees in a garden", "Bees of the garden"]
    assert made("headings", passage(text)) == []
    asked = queries_of(read(passage(text)), overview_of(passage(text)), "titles")
    assert without(text, asked[0].quotes).replace("-", "").strip() == ANSWER


def test_comments_in_code_are_no_headings_and_no_questions():
    code = "# Why is this here?\n# Because of the rules of RFC 822 and their many exceptions in the wild.\nx = 1\n"
    assert made("headings", passage(code, "a.py")) == made("faq", passage(code, "a.py")) == []
    fenced = f"{ANSWER}\n\n```python\n# A comment about the code\nprint(1)\n```\n"
    assert made("headings", passage(fenced)) == []


@pytest.mark.parametrize(
    "line",
    [
        "const dir = isFilePath ?",
        "return new.target ?",
        "rl.question('What is your favorite food?",
        "const original = require('fn'); module.exports = load ?",
    ],
)
def test_a_line_of_a_program_is_no_question(line):
    text = f"{line}\n  dirname(specifier) : specifier, which is the folder that the module was loaded from"
    assert made("faq", Passage("a", text)) == []


def test_a_question_may_name_a_function():
    question = "What does os.listdir() return?"
    assert made("faq", Passage("a", f"{question}\n\n{ANSWER}")) == [question]


def test_a_notice_of_copyright_is_no_first_sentence():
    law = "Copyright law protects programs as it does books."
    text = f"Copyright (c) 2020 to present, the authors of this program. {law} {ANSWER}"
    assert made("first-sentences", Passage("a", text)) == [law]
