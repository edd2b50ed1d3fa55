"""How often a rule for answers is right: by a sheet that a person fills in, by judgements, or by nobody."""

from __future__ import annotations

import csv
import json

import pytest

from qdrant_tools.debias import (
    AnswerVote,
    audit_rules,
    read_rule_sheet,
    read_weights,
    write_rule_sheet,
)
from qdrant_tools.errors import InputError
from qdrant_tools.records import Label


def vote(number, rule="supported", value=1.0):
    return AnswerVote(rule, f"s{number}", f"question {number}", f"p{number}", value, ("u1",))


VOTES = [vote(i) for i in range(40)] + [vote(i, "cited") for i in range(20, 50)] + ["nobody said anything"]


def texts(ids):
    return {name: f"=text, of {name}" for name in ids}


def filled(path, relevant):
    """The sheet as a person fills it in."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["relevant"] = relevant(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_a_sheet_has_each_pair_once_and_its_answers_give_precisions_with_intervals(tmp_path):
    sheet = tmp_path / "rules.csv"
    assert write_rule_sheet(VOTES, texts, sheet) == 50
    rows = filled(sheet, lambda row: "1" if int(row["passage_id"][1:]) < 30 else "0")
    assert {row["rules"] for row in rows} == {"supported", "cited", "supported|cited"}
    assert rows[0]["passage"].startswith("'=text"), "no spreadsheet computes it"
    report = audit_rules(VOTES, sheet=sheet)
    found = {one.rule: (one.pairs, one.looked_at, one.relevant) for one in report.rules}
    assert found == {"supported": (40, 40, 30), "cited": (30, 30, 10)} and report.source == "sheet"
    supported = report.rules[0]
    assert 0.59 < supported.low < 0.75 < supported.high < 0.87 and "75.0%, 95 % interval" in supported.sentence
    assert report.weights == {one.rule: round((one.low + one.high) / 2, 4) for one in report.rules}


def test_the_sample_is_the_same_for_a_seed_in_any_order_and_rules_count_by_their_own_sample(tmp_path):
    first, second, other = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv"))
    write_rule_sheet(VOTES, texts, first, size=10, seed=1)
    write_rule_sheet(VOTES[::-1], texts, second, size=10, seed=1)
    write_rule_sheet(VOTES, texts, other, size=10, seed=2)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    filled(first, lambda row: "1")
    assert [one.looked_at for one in audit_rules(VOTES, sheet=first).rules] == [10, 10]
    assert audit_rules(VOTES, sheet=first).weights == {}, "ten are too few for a weight"


def test_without_judgements_nothing_is_measured():
    report = audit_rules(VOTES)
    assert report.source == "" and report.weights == {} and [one.looked_at for one in report.rules] == [0, 0]
    assert "none of its 40 passages was looked at" in report.rules[0].sentence
    assert audit_rules([]).rules == ()


def test_judgements_count_by_the_text_of_the_query_and_unjudged_pairs_do_not():
    judged = [Label(f"Question {i}?", f"p{i}", float(i % 2)) for i in range(40)]
    report = audit_rules(VOTES, judgements=judged)
    assert [(one.looked_at, one.relevant, one.at_least) for one in report.rules] == [(40, 20, False), (20, 10, False)]


def test_judgements_of_relevant_passages_only_give_a_lower_bound():
    judged = [Label(f"question {i}", "p1" if i else "p0", 1.0) for i in range(40)]
    (supported, _) = audit_rules(VOTES, judgements=judged).rules
    assert (supported.looked_at, supported.relevant, supported.at_least, supported.high) == (40, 2, True, 1.0)
    assert "at least 2 of 40" in supported.sentence


def test_votes_against_a_passage_are_no_part_of_a_precision():
    assert audit_rules([vote(1, "labelled", 0.0)]).rules == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query,passage_id\nq,p\n", "no column 'relevant'"),
        ("query,relevant,rules\nq,1,thumbs\n", "rules is 'thumbs'"),
        ("query,relevant,rules\nq,perhaps,cited\n", "relevant is 'perhaps'"),
        ("query,relevant,rules\nq,1,judged\n", "which find nothing in this log"),
    ],
)
def test_a_sheet_that_is_none_names_its_line(tmp_path, content, message):
    (tmp_path / "sheet.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        audit_rules(VOTES, sheet=tmp_path / "sheet.csv")


def test_spellings_of_yes_and_no_are_read_and_empty_rows_left_out(tmp_path):
    (tmp_path / "sheet.csv").write_text("rules;relevant\ncited;yes\ncited;FALSE\ncited;\ncited|supported;1.0\n")
    assert read_rule_sheet(tmp_path / "sheet.csv") == [
        (("cited",), True),
        (("cited",), False),
        (("cited", "supported"), True),
    ]


def test_measured_weights_are_read_back_and_others_are_refused(tmp_path):
    path = tmp_path / "weights.json"
    sheet = tmp_path / "rules.csv"
    write_rule_sheet(VOTES, texts, sheet)
    filled(sheet, lambda row: "1")
    report = audit_rules(VOTES, sheet=sheet)
    path.write_text(json.dumps(report.as_row()))
    assert read_weights(path) == report.weights and report.weights["supported"] > 0.9
    for odd in (
        [],
        {},
        {"weights": {}},
        {"weights": {"thumbs": 1}},
        {"weights": {"cited": 2}},
        {"weights": {"cited": True}},
    ):
        path.write_text(json.dumps(odd))
        with pytest.raises(InputError, match=r"weights\.json"):
            read_weights(path)
