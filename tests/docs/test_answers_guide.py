"""The guide to answers cannot lie: its Python runs from top to bottom, its commands exist, its table is the rules'."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime

from paths import DOCS

from qdrant_tools.debias import AnswerSettings, Support, labels_from_answers
from qdrant_tools.debias.answer_rules import RULES
from qdrant_tools.log import Answer, LoggedSearch, Verdict

GUIDE = (DOCS / "answers.md").read_text()
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "{'thumb down': 2, 'thumb up': 2}"
    assert lines[1] == "[('how do I connect it?', 'cable', 0.96, 'thumb up, support x2')]"
    assert "{'supported': 1}" in lines[2] and "the answer is a refusal" in lines[2] and "thumb down" in lines[2]
    assert "1 rows to fill in" in lines
    assert any(line.startswith("supported: 1 of 1 are relevant (100.0%, 95 % interval") for line in lines)
    assert lines[-2:] == [
        "how long does the ink last? {'refused': 1}",
        "why does it grind? {'thumb down': 1}",
    ]


def test_the_commands_exist():
    commands = re.findall(r"^\$ embed-plus ((?:log )?\w+)", GUIDE, flags=re.M)
    assert len(commands) == 5
    for command in set(commands):
        code = "from llama_index_embed_plus.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], check=True, capture_output=True)


def test_the_table_of_votes_is_what_the_code_makes_of_them():
    shown = re.findall(r"^\| (?:one person|two people).* \| ([\d., ]+) \|$", GUIDE, flags=re.M)
    votes = ["apple-1", "apple-1 apple-2", "apple-1 berry-1", "apple-1 berry-2", "apple-1 apple-2 berry-3"]
    assert shown == [", ".join(map("{:.2f}".format, made(each))) for each in votes]


def made(votes):
    """The weights of the labels where each of these people liked an answer that these passages support."""
    liked = {}
    for passage, person in (vote.split("-") for vote in votes.split()):
        liked.setdefault(person, []).append(passage)
    searches = []
    for person, passages in liked.items():
        thumb = Verdict("thumb", 1.0, NOON, who=person)
        answer = Answer(person, " ".join(passages), verdicts=(thumb,), context=("apple", "berry", "cherry"))
        searches.append(LoggedSearch(person, NOON, "which one?", answer=answer))
    support = Support(lambda text, passages: [float(passage in text) for passage in passages], 0.5, 0.1)
    labels, _ = labels_from_answers(searches, lambda ids: {name: name for name in ids}, AnswerSettings(support=support))
    return [label.weight for label in labels]


def test_the_benchmarks_page_measured_the_weights_that_the_rules_have():
    page = (DOCS / "benchmarks.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \| ([\d.]+)[ |].*$", page, flags=re.M)
    found = {name: (float(weight), float(demo)) for name, weight, demo in rows if name in RULES}
    assert found.keys() == {"supported", "one-passage", "cited"}
    assert all(weight == RULES[name][1] and 0 <= demo - weight < 0.1 for name, (weight, demo) in found.items())


def test_the_table_names_every_rule_with_its_weight():
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| ([\d.]+) \|$", GUIDE, flags=re.M)
    assert {name: float(weight) for name, weight in rows} == {name: rule[1] for name, rule in RULES.items()}
