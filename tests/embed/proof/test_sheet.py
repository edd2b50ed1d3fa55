"""A sheet: few judged passages give the difference that all would give, in the mean; and clicks by their rank."""

from __future__ import annotations

import csv
import json
from contextlib import closing

import numpy as np
import pytest
from tiny import NoisyEncoder

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.proof.moves import judged_moves, moves
from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
from llama_index_embed_plus.training.proof.sheet import draw_sheet, read_sheet, write_sheet
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.metrics import weighted_gain
from qdrant_tools.records import CLICKS, SAMPLE, HeldOut, Passage, Query

PASSAGES = [Passage(f"p{i}", f"w{i} opens this passage. w{i} then goes on with some more words") for i in range(60)]
QUERIES = [Query(f"q{i}", f"w{i} asked") for i in range(40)]
TRUTH = {f"q{i}": {f"p{i}": 1} for i in range(40)}
BASE, BETTER = NoisyEncoder(1.0, asked=1.0), NoisyEncoder(1.0, asked=0.6)
NO_GENERAL = ProofSettings(known_items=0)


@pytest.fixture(scope="module")
def docs():
    with closing(connect(":memory:")) as client:
        collection = CollectionManager(client).ensure("docs", BASE)
        index_passages(collection, PASSAGES, BASE)
        yield collection


def judge(path, *, most=None):
    """Fill a sheet in by the truth, down to a row."""
    design = json.loads(path.with_name(path.name + ".json").read_text())
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, (query, passage, _) in zip(rows[:most], design["rows"]):
        row["relevant"] = str(TRUTH[query].get(passage, 0))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_a_sheet_of_every_passage_gives_the_difference_of_dcg_itself(docs, tmp_path):
    path = tmp_path / "sheet.csv"
    write_sheet(draw_sheet(BASE, BETTER, QUERIES, docs, rows=100_000), path, docs)
    judge(path)
    held_out = read_sheet(path, BASE, BETTER)
    proof = prove(BASE, BETTER, held_out, NO_GENERAL, collection=docs)
    whole = prove(BASE, BETTER, HeldOut(tuple(QUERIES), TRUTH), NO_GENERAL, collection=docs)
    # one answer each: its DCG is its nDCG
    assert proof.queries == 40 and proof.changes[0].difference == pytest.approx(whole.changes[0].difference, abs=1e-9)
    assert proof.evidence == SAMPLE and proof.harmless == whole.harmless
    (high, _), (low, _) = proof.higher, proof.lower
    assert high > low


def test_few_rows_give_it_in_the_mean(docs, tmp_path):
    whole = prove(BASE, BETTER, HeldOut(tuple(QUERIES), TRUTH), NO_GENERAL, collection=docs).changes[0].difference
    estimates = []
    for seed in range(30):
        settings = ProofSettings(known_items=0, seed=seed)
        sheet = draw_sheet(BASE, BETTER, QUERIES, docs, rows=60, settings=settings)
        assert 30 < len(sheet.rows) < 95 and all(0 < row.probability <= 1 for row in sheet.rows)
        path = tmp_path / f"{seed}.csv"
        write_sheet(sheet, path, docs)
        judge(path)
        held_out = read_sheet(path, BASE, BETTER)
        estimates.append(prove(BASE, BETTER, held_out, settings, collection=docs).changes[0].difference)
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - whole) < 4 * error


def test_who_judges_may_stop_early_and_an_early_stop_is_a_smaller_sample(docs, tmp_path):
    path = tmp_path / "sheet.csv"
    sheet = draw_sheet(BASE, BETTER, QUERIES, docs, rows=80)
    write_sheet(sheet, path, docs)
    judge(path, most=40)
    held_out = read_sheet(path, BASE, BETTER)
    first = sheet.rows[0]
    assert sum(map(len, held_out.qrels.values())) == 40
    share = 40 / len(sheet.rows)
    assert held_out.weights[first.query][first.passage] == pytest.approx(1 / (first.probability * share))


def test_the_sheet_says_nothing_of_the_systems_and_formulas_stay_texts(docs, tmp_path):
    path = tmp_path / "sheet.csv"
    write_sheet(draw_sheet(BASE, BETTER, [Query("q1", "=1+1 w1 asked"), *QUERIES[2:]], docs, rows=500), path, docs)
    text = path.read_text()
    assert BASE.space not in text and BETTER.space not in text
    assert '"\'=1+1 w1 asked"' in text or "=1+1" not in text
    with pytest.raises(UsageError, match="replaced|exists"):
        write_sheet(draw_sheet(BASE, BETTER, QUERIES, docs), path, docs)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace(",\n", ",yes\n", 1), "expected 0, 1 or nothing"),
        (lambda text: text, "0 of the .* rows"),
        (lambda text: text.replace("\n1,", "\n9999,", 1), "expected 1 to"),
    ],
)
def test_a_sheet_that_cannot_be_read_says_why(docs, tmp_path, change, says):
    path = tmp_path / "sheet.csv"
    write_sheet(draw_sheet(BASE, BETTER, QUERIES, docs, rows=40), path, docs)
    path.write_text(change(path.read_text().replace("\r\n", "\n")))
    with pytest.raises(InputError, match=says):
        read_sheet(path, BASE, BETTER)


def test_a_sheet_of_other_models_or_without_its_design_is_refused(docs, tmp_path):
    path = tmp_path / "sheet.csv"
    write_sheet(draw_sheet(BASE, BETTER, QUERIES, docs), path, docs)
    with pytest.raises(UsageError, match="drawn for the model"):
        read_sheet(path, BASE, BASE)
    beside = path.with_name("sheet.csv.json")
    for broken in ("{}", "[]", json.dumps({"format": 1, "rows": [["q0", "p0", 2.0]], "queries": []})):
        beside.write_text(broken)
        with pytest.raises(InputError, match="does not belong to a sheet"):
            read_sheet(path, BASE, BETTER)
    beside.unlink()
    with pytest.raises(InputError, match="is missing"):
        read_sheet(path, BASE, BETTER)


def test_two_models_that_rank_alike_leave_nothing_to_judge(docs):
    with pytest.raises(TrainingError, match="alike: nothing to judge"):
        draw_sheet(BASE, BASE, QUERIES, docs)


def test_moves_are_the_differences_of_discounts():
    before, after = {"a": 3.0, "b": 2.0, "c": 1.0}, {"b": 3.0, "a": 2.0, "d": 1.0}
    third = 1 / np.log2(4)
    swap = 1 - 1 / np.log2(3)
    found = {name: (round(change, 9), rank) for name, change, rank in moves(before, after)}
    assert found == {
        "a": (round(-swap, 9), 1),
        "b": (round(swap, 9), 1),
        "c": (round(-third, 9), 3),
        "d": (round(third, 9), 3),
    }
    higher, lower = judged_moves({"q": {"a": 1, "b": 0, "d": 1, "x": 1}}, {"q": before}, {"q": after})
    assert (higher, lower) == ((1, 2), (1, 1))


def test_clicks_count_by_how_likely_they_were_and_then_decide(docs):
    """Of ten clicks nine are on what the base put first; each of the others stands for many that nobody saw."""
    weights = {f"q{i}": {f"p{i}": 1.0 if i < 30 else 9.0} for i in range(40)}
    naive = HeldOut(tuple(QUERIES), TRUTH, evidence=CLICKS)
    proof = prove(BASE, BETTER, naive, NO_GENERAL, collection=docs)
    assert proof.corrected is None and "clicks on what a search had shown" in proof.verdict
    weighed = HeldOut(tuple(QUERIES), TRUTH, evidence=CLICKS, weights=weights)
    proof = prove(BASE, BETTER, weighed, NO_GENERAL, collection=docs)
    runs = [{"q0": {"p0": 1.0}, "q35": {"p1": 2.0, "p35": 1.0}}]
    gains = weighted_gain({"q0": {"p0": 1.0}, "q35": {"p35": 9.0}}, runs[0])
    assert gains == {"q0": 1.0, "q35": pytest.approx(9 / np.log2(3))}
    assert proof.deciding is proof.corrected and proof.corrected.before != pytest.approx(proof.changes[0].before)
    assert 0 < proof.corrected.before < 1 and 0 < proof.corrected.after <= 1


def test_the_number_of_queries_needed_follows_from_what_was_observed(docs):
    few = HeldOut(tuple(QUERIES[:25]), {f"q{i}": TRUTH[f"q{i}"] for i in range(25)}, evidence=CLICKS)
    proof = prove(BASE, NoisyEncoder(1.0, asked=0.97), few, NO_GENERAL, collection=docs)
    assert proof.needed is None or (proof.needed >= 20 and proof.worth >= 0.005)
    same = prove(BASE, BASE, few, NO_GENERAL, collection=docs)
    assert same.needed is None and same.verdict.startswith("nothing changed on 25 held-out queries")
