"""The audit says how many negatives are answers, and on whose word; calibration picks how careful to be."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from tiny import WordEncoder

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import Judge, MiningSettings, mine
from qdrant_tools.mining.calibration import SHARES, calibrate
from qdrant_tools.mining.false_negatives import audit, false_negative_rate, read_sheet, write_sheet
from qdrant_tools.records import Example, Label, Passage, ScoredText


def example(query: str, *negatives: str) -> Example:
    return Example(query, (ScoredText("p", "the answer"),), tuple(ScoredText(n, f"text {n}", 0.5) for n in negatives))


EXAMPLES = [example("q1", "a", "b", "c"), example("q2", "a"), example("q3")]


def test_the_audit_counts_examples_and_negatives():
    found = audit(EXAMPLES)
    assert (found.examples, found.queries, found.negatives, found.distinct_negatives) == (3, 3, 4, 3)
    assert found.without_negatives == 1 and found.negatives_per_example == {0: 1, 1: 1, 3: 1}
    assert found.false_negatives == () and found.removed == {} and found.histograms == {}
    json.dumps(found.as_row())


def test_judgements_count_only_where_there_are_any():
    judgements = [Label("q1", "a", 1.0), Label("q1", "b", 0.0), Label("q2", "c", 1.0), Label("q9", "a", 1.0)]
    (finding,) = audit(EXAMPLES, judgements=judgements).false_negatives
    assert (finding.source, finding.looked_at, finding.relevant, finding.rate) == ("judgements", 2, 1, 0.5)
    assert finding.of_all == 0.25, "one of the four negatives is known to be an answer"


def test_judgements_of_relevant_passages_alone_give_a_lower_bound():
    """As nearly all qrels are: what they looked at is relevant by definition, which says nothing of the rest."""
    judgements = [Label("q1", "a", 1.0), Label("q2", "c", 2.0)]
    (finding,) = audit(EXAMPLES, judgements=judgements).false_negatives
    assert finding.only_positives and (finding.rate, finding.low, finding.high) == (0.25, 0.25, 1.0)
    assert finding.sentence.startswith("at least 1 of 4 negatives (25.0%) are answers by judgements")
    (judged,) = audit(EXAMPLES, judgements=[*judgements, Label("q9", "z", 0.0)]).false_negatives
    assert not judged.only_positives and judged.sentence.startswith("1 of 1 negatives are answers")
    (unmet,) = audit(EXAMPLES, judgements=[Label("q7", "a", 1.0)]).false_negatives
    assert unmet.sentence.startswith("at least 0 of 4 negatives (0.0%)")


def test_judgements_are_found_by_any_spelling_of_their_query_and_passage():
    mined = [example("Where is the Café?", "cafe\u0301.md", "b")]
    judgements = [Label("where is the cafe\u0301", "caf\u00e9.md", 1.0), Label("WHERE is the caf\u00e9", "b", 0.0)]
    (finding,) = audit(mined, judgements=judgements).false_negatives
    assert (finding.looked_at, finding.relevant) == (2, 1)
    assert audit([*mined, example("where is the café")]).queries == 1


def test_a_judge_looks_at_every_negative():
    judge = Judge(lambda pairs: [float(text == "text a") for _, text in pairs], 0.5)
    (finding,) = audit(EXAMPLES, judge=judge).false_negatives
    assert (finding.source, finding.looked_at, finding.relevant) == ("judge", 4, 2)


def test_a_sheet_goes_to_a_person_and_comes_back(tmp_path):
    path = tmp_path / "sheet.csv"
    many = [example(f'query, with\n"quotes" {i}', "a", "b") for i in range(50)]
    assert write_sheet(many, path, size=10) == 10
    first = path.read_bytes()
    write_sheet(many[::-1], path, size=10)
    assert path.read_bytes() == first, "the sample does not depend on the order"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, verdict in zip(rows, ["1", "0", "0", " 1 ", ""]):
        row["relevant"] = verdict
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert read_sheet(path) == [True, False, False, True]
    (finding,) = audit(many, sheet=path).false_negatives
    assert (finding.source, finding.looked_at, finding.relevant) == ("sheet", 4, 2)


def test_a_sheet_with_other_verdicts_is_refused(tmp_path):
    write_sheet(EXAMPLES, tmp_path / "sheet.csv")
    text = (tmp_path / "sheet.csv").read_text()
    (tmp_path / "sheet.csv").write_text(text.rstrip() + "maybe\n")
    with pytest.raises(InputError, match="relevant is 'maybe'"):
        read_sheet(tmp_path / "sheet.csv")
    with pytest.raises(InputError, match="cannot read .*none.csv"):
        read_sheet(tmp_path / "none.csv")


def test_the_interval_of_a_rate_is_wilsons():
    finding = false_negative_rate([True] * 5 + [False] * 95, source="x", negatives=100)
    assert (finding.low, finding.high) == (pytest.approx(0.0215, abs=1e-4), pytest.approx(0.1118, abs=1e-4))
    assert (
        false_negative_rate([], source="x", negatives=100).low,
        false_negative_rate([], source="x", negatives=100).high,
    ) == (0.0, 1.0)


class PlacedEncoder(WordEncoder):
    """Texts of the form "angle seed" lie that many degrees from the query "0 0", in a direction of their own."""

    def encode_queries(self, texts):
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            angle, direction, query = text.split()
            row[int(query)] = np.cos(np.radians(float(angle)))
            row[40 + int(direction)] = np.sin(np.radians(float(angle)))
        return rows


@pytest.fixture
def placed():
    """30 queries, each with 3 answers at 30, 33 and 36 degrees, and other passages from 45 degrees on."""
    encoder = PlacedEncoder(dimension=120)
    collection = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    angles = [30, 33, 36, 45, 50, 55, 60, 65, 70]
    passages = [Passage(f"{q}-{a}", f"{a} {i} {q}") for q in range(35) for i, a in enumerate(angles)]
    index_passages(collection, passages, encoder)
    return collection, encoder


def test_calibration_hides_answers_and_finds_the_share_that_spares_them(placed):
    collection, encoder = placed
    labels = [Label(f"0 0 {q}", f"{q}-{a}") for q in range(35) for a in (30, 33, 36)]
    found = calibrate(collection, labels, encoder, settings=MiningSettings(depth=8, negatives=3, sampling="top"))
    assert found.method == "labelled" and found.queries == 35
    by_share = {trial.max_share: trial for trial in found.trials}
    assert by_share[0.95].false_negatives > 0.05, "an answer at 36 degrees is within 0.95 of one at 30"
    # cos 36 / cos 30 = 0.934, cos 33 / cos 30 = 0.968: from 0.92 on no hidden answer is drawn.
    assert found.settings.max_share == 0.92 and by_share[0.92].false_negatives == 0
    assert found.settings.duplicate_similarity == 0.95, "the other settings stay"
    assert [trial.max_share for trial in found.trials] == list(SHARES)
    discarded = [trial.discarded for trial in found.trials]
    assert discarded == sorted(discarded)
    assert found.chosen == by_share[0.92] and found.reaches and found.chosen.negatives == 3
    json.dumps(found.as_row())


def test_a_share_that_draws_nothing_cannot_win_and_deeper_candidates_are_drawn_instead():
    """Every answer stands among the first: at the given depth only a share that leaves nothing spares them."""
    encoder = PlacedEncoder(dimension=120)
    docs = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    answers = [30, 31, 32, 33, 34, 35, 36, 37]
    angles = [*answers, *range(60, 84, 2)]
    index_passages(
        docs, [Passage(f"{q}-{a}", f"{a} {i} {q}") for q in range(35) for i, a in enumerate(angles)], encoder
    )
    labels = [Label(f"0 0 {q}", f"{q}-{a}") for q in range(35) for a in answers]
    # five candidates of a query are all answers: all that they leave once answers are kept out is nothing
    found = calibrate(docs, labels, encoder, settings=MiningSettings(depth=5, negatives=4, sampling="top"))
    alone = [trial for trial in found.trials if (trial.depth, trial.sampling) == (5, "top")]
    assert any(trial.false_negatives == 0 and trial.negatives == 0 for trial in alone), "this one won before"
    assert (found.settings.depth, found.chosen.depth) == (20, 20) and found.reaches
    assert found.chosen.negatives >= 2 and found.chosen.false_negatives <= 0.05
    assert [(t.depth, t.sampling) for t in found.trials[:: len(SHARES)]] == [(5, "top"), (5, "random"), (20, "top")]


def test_where_no_share_spares_the_answers_that_is_said_and_enough_is_drawn():
    encoder = PlacedEncoder(dimension=120)
    docs = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    angles = list(range(30, 60, 1))
    index_passages(
        docs, [Passage(f"{q}-{a}", f"{a} {i} {q}") for q in range(35) for i, a in enumerate(angles)], encoder
    )
    labels = [Label(f"0 0 {q}", f"{q}-{a}") for q in range(35) for a in angles]
    found = calibrate(docs, labels, encoder, settings=MiningSettings(depth=5, negatives=2, sampling="top"), target=0.0)
    assert not found.reaches and found.chosen.negatives >= 1 and len(found.trials) == 4 * len(SHARES)


@pytest.mark.parametrize("sampling", ["top", "random"])
@pytest.mark.parametrize("answers", [2, 6, 12, 24])
def test_calibration_never_chooses_what_draws_too_little_where_another_draws_enough(answers, sampling):
    """Answers lie as close together as other passages do, so that what spares them all leaves next to nothing."""
    encoder = PlacedEncoder(dimension=120)
    docs = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    places = range(30, 78, 2)
    index_passages(
        docs, [Passage(f"{q}-{a}", f"{a} {i} {q}") for q in range(31) for i, a in enumerate(places)], encoder
    )
    labels = [Label(f"0 0 {q}", f"{q}-{a}") for q in range(31) for a in places[:answers]]
    for target in (0.0, 0.05):
        given = MiningSettings(depth=6, negatives=4, sampling=sampling)
        found = calibrate(docs, labels, encoder, settings=given, target=target)
        most = max(trial.negatives for trial in found.trials)
        assert found.chosen.negatives >= min(2, most), "half of the negatives, or as many as there are"
        assert found.reaches == (found.chosen.negatives >= 2 and found.chosen.false_negatives <= target)


def test_without_several_positives_the_margin_follows_from_how_far_positives_stand_out(placed):
    collection, encoder = placed
    labels = [Label(f"0 0 {q}", f"{q}-30") for q in range(35)]
    found = calibrate(collection, labels, encoder, settings=MiningSettings(depth=8))
    assert found.method == "distribution" and found.settings.max_share is None
    background = np.median(np.cos(np.radians([50, 55, 60, 65, 70])))
    assert found.settings.margin == pytest.approx(0.1 * (np.cos(np.radians(30)) - background), abs=2e-3)
    assert len(mine(collection, labels, encoder, settings=found.settings).examples) == 35


def test_where_queries_have_many_answers_the_default_draws_fewer_of_them_than_the_nearest_are():
    """One answer of 20 is known; the others stand first below the limit, and other passages behind them."""
    encoder = PlacedEncoder(dimension=120)
    docs = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    angles = [40, *np.linspace(45, 54, 19).round(2), *np.linspace(56, 85, 59).round(2)]
    index_passages(docs, [Passage(f"{q}-{i}", f"{a} {i} {q}") for q in range(4) for i, a in enumerate(angles)], encoder)
    answers = {f"{q}-{i}" for q in range(4) for i in range(20)}
    labels = [Label(f"0 0 {q}", f"{q}-0") for q in range(4)]

    def drawn(settings: MiningSettings) -> tuple[int, int]:
        negatives = [n.id for e in mine(docs, labels, encoder, settings=settings).examples for n in e.negatives]
        return len(negatives), len(answers.intersection(negatives))

    assert drawn(MiningSettings(sampling="top", depth=50)) == (16, 16)
    number, wrong = drawn(MiningSettings())
    assert number == 16 and wrong <= 8


def test_calibration_needs_a_positive_and_a_share(placed):
    collection, encoder = placed
    with pytest.raises(InputError, match="none of the 1 labelled queries"):
        calibrate(collection, [Label("0 0 1", "gone")], encoder)
    with pytest.raises(InputError, match="target is 5"):
        calibrate(collection, [], encoder, target=5)


def test_the_page_shows_scores_and_rules(placed, tmp_path):
    from llama_index_embed_plus.evaluate.plots.pages import audit_page

    collection, encoder = placed
    labels = [Label(f"0 0 {q}", f"{q}-30") for q in range(35)]
    result = mine(collection, labels, encoder)
    found = audit(result.examples, judgements=[Label("0 0 1", "1-45")], stats=result.stats)
    # cos 33 / cos 30 = 0.968: one passage of each query is too close to its positive.
    assert found.removed == {"known_positive": 35, "close_to_positive": 35}
    assert found.removed_share["close_to_positive"] == pytest.approx(35 / (35 * 201))
    assert sum(found.histograms["negatives"].values()) == found.negatives
    for name, page in (("full", found), ("empty", audit([]))):
        audit_page(tmp_path / f"{name}.png", page)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_examples_that_lost_all_their_negatives_are_counted_even_when_they_were_left_out(placed):
    collection, encoder = placed
    labels = [Label(f"0 0 {q}", f"{q}-{a}") for q in range(35) for a in (30, 70)]
    strict = MiningSettings(depth=5, minimum=1, margin=0.9, max_share=None)
    result = mine(collection, labels, encoder, settings=strict)
    found = audit(result.examples, stats=result.stats)
    assert (found.examples, found.without_negatives) == (0, 35) and found.removed["close_to_positive"] > 0
