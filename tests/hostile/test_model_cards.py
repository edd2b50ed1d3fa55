"""Model cards and reports about a base whose names and texts a stranger chose."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml
from huggingface_hub import ModelCard

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.training.proof.model_card import model_card
from llama_index_embed_plus.training.proof.report import Lineage, Stage, TrainReport, read_report

TEXTS = {
    "image": "![x](http://evil.example/?q)",
    "link": "[click](javascript:alert(1))",
    "reference": "[a]: http://evil.example\n[a]",
    "bare address": "see http://evil.example/x now",
    "bare www": "see www.evil.example now",
    "mail": "me@evil.example",
    "autolink": "<http://evil.example>",
    "html": "<img src=http://evil.example onerror=alert(1)>",
    "html beyond a code span": "`<img src=x>`",
    "long backticks": "``` ` `` <b>",
    "front matter": "---\nlicense: evil\n---\n# mine",
    "yaml": '"\nlicense: evil\ntags: ["',
    "yaml tag": "!!python/object/apply:os.system ['id']",
    "cell": "a | b | c\n| d | e |",
    "heading": "# heading\n## another",
    "rule": "x\n=====",
    "emphasis": "__bold__ *it* ~~gone~~",
    "escape": "\x1b[31mred\x1b]52;c;aGk=\x07\x9b2J",
    "direction": "abc\u202egpj.exe\u2066",
    "separators": "a\u2028b\u0085c\u200bd",
    "surrogate": "a\ud800b",
    "entity": "&lt;script&gt;&#60;b&#62;",
    "template": "{{ secrets }} {% raw %} ${x} $$x$$",
    "backslash": "\\`\\|\\",
}


def report(text, **changes):
    lineage = Lineage(text, text, text, text, (Lineage(text, text, text),))
    made = TrainReport(
        method=text,
        settings={"loss": text, text: {text: [text]}},
        data={text: 1, "examples": 2},
        losses=(1.0,),
        seconds=1.0,
        seed=1,
        lineage=lineage,
        stages=(Stage(text, 1, {text: 1.0}, 1.0),),
        versions={text: text},
        notes=(text,),
        inherited=text,
    )
    return replace(made, **changes)


def outside_code(card: str) -> str:
    """The card without what stands in code spans and blocks: what is left may be markup."""
    body = card.split("\n---\n", 1)[1]
    body = "".join(part for i, part in enumerate(body.split("```")) if i % 2 == 0)
    lines = []
    for line in body.splitlines():
        assert line.count("`") % 2 == 0, line
        lines.append("".join(part for i, part in enumerate(line.split("`")) if i % 2 == 0))
    return "\n".join(lines)


class Tags(HTMLParser):
    found: list[str]

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_card_shows_a_strangers_texts_and_none_of_them_is_markup(text):
    card, usual = model_card(report(text)), model_card(report("usual"))
    assert all(letter == "\n" or letter.isprintable() for letter in card)
    card.encode("utf-8")
    rest = outside_code(card)
    for sign in ("![", "](", "<", ">", "://", "www.", "@evil", "javascript:", "{{", "$", "__", "~~", "**mine"):
        assert sign not in rest, sign
    tags = Tags()
    tags.found = []
    tags.feed(card.split("\n---\n", 1)[1])
    assert tags.found == []
    # as many headings, rows and columns as with any other name
    shape = [line[:2] if line.startswith("#") else line.count("|") for line in outside_code(card).splitlines()]
    expected = [line[:2] if line.startswith("#") else line.count("|") for line in outside_code(usual).splitlines()]
    assert shape == expected


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_front_matter_has_the_keys_that_we_wrote_and_no_others(text):
    card = model_card(report(text))
    front = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert set(front) == {"library_name", "pipeline_tag", "base_model", "tags"}
    assert all(isinstance(tag, str) for tag in front["tags"]) and isinstance(front["base_model"], str)
    assert ModelCard(card).data.license is None


def test_a_megabyte_of_name_is_cut():
    text = "n" * 1_000_000
    assert len(model_card(report(text))) < 30_000
    assert len(model_card(report("x", settings={f"key{i}": i for i in range(100_000)}))) < 30_000


BROKEN = {
    "a loss that is a text": {"losses": ["<img src=x>"]},
    "a loss that is no number": {"losses": [float("nan")]},
    "an integer beyond floats": {"seconds": 10**400},
    "an integer beyond 64 bits": {"seed": 2**70},
    "a method that is a list": {"method": ["lora"]},
    "counts that are texts": {"data": {"examples": "![x](http://evil)"}},
    "stages that are texts": {"stages": ["a"]},
    "a lineage that is a number": {"lineage": 3},
    "metrics that are texts": {"stages": [{"name": "a", "steps": 1, "metrics": {"ndcg": "x"}, "seconds": 1.0}]},
    "notes that are objects": {"notes": [{"a": 1}]},
    "a proof that is true": {"proof": True},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_report_with_values_of_another_kind_is_refused(tmp_path, change):
    row = json.loads(json.dumps(report("usual").as_row()))
    assert read_after(tmp_path, row) == report("usual")
    with pytest.raises(DamagedModelError, match="train_report.json"):
        read_after(tmp_path, {**row, **change})


def read_after(folder, row):
    (folder / "train_report.json").write_text(json.dumps(row))
    return read_report(folder)
