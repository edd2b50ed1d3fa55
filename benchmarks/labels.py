"""How good are labels made from clicks? Each rule against relevance judgements of the results that were shown.

    python benchmarks/labels.py --data FOLDER [--mine all-MiniLM-L6-v2]

FOLDER holds `log.jsonl` (one row per search: query_id, session, results [{rank, doc_id}], clicks [{doc_id, dwell}])
and `qrels/test.tsv` (query-id, corpus-id, score). With `--mine MODEL`, and `corpus.jsonl` (_id, title, text), it also
mines 4 negatives for every clicked query from the shown results, and looks up how many of them are relevant: a random
unjudged passage is not counted, a judged one is. Precision is the share of a rule's positives that are relevant, and of
its negatives that are not; coverage is the share of all relevant, or not relevant, shown results that it labels.
Results without a judgement are left out. `_low` and `_high` are the ends of 95 % intervals by drawing whole sessions
again (percentile bootstrap, seeded): the results of one search, and the searches of one session, are not independent.
`against_naive` is the difference of a rule's positives to those of any click, with such an interval. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.debias import (
    aggregate,
    click_over_no_click_next,
    click_over_skip_above,
    clicked_as_positive,
    fit_click_model,
    inverse_propensity,
    last_click_over_skip_above,
    long_dwell_as_positive,
    unclicked_as_negative,
)
from qdrant_tools.indexing import index_passages
from qdrant_tools.log.readers import LogColumns, read_log
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.mining.calibration import calibrate
from qdrant_tools.mining.false_negatives import audit
from qdrant_tools.records import Label, Passage

# Judgements go by query id, so the id stands for the query.
COLUMNS = LogColumns(
    query="query_id",
    search="query_id",
    session="session",
    hits="results",
    hit="doc_id",
    rank="rank",
    events="clicks",
    feedback={"click": "doc_id", "dwell": "dwell"},
)

LINE = (
    "| {name} | {positives} | {positive_precision:.3f} ({positive_precision_weighted:.3f}) | {positive_coverage:.3f}"
    " | {negatives} | {negative_precision:.3f} | {negative_coverage:.3f} |"
)

MINED_LINE = "| {name} | {negatives} | {looked_at} | {rate:.3f} [{low:.3f}, {high:.3f}] |"

Pairs = set[tuple[str, str]]
Counts = NDArray[np.float64]
"""(sessions, 2): of each session how many labels of a rule are right, and how many there are."""
NAIVE = "naive: click / no click"
RESAMPLES = 5000


def rules(searches: Sequence[LoggedSearch]) -> dict[str, list[Label]]:
    model = fit_click_model(searches)
    print("propensities", [round(value, 3) for value in model.propensities[:10]], "repeated pairs", model.repeated)
    return {
        NAIVE: unclicked_as_negative(searches),
        "click > skip above": click_over_skip_above(searches),
        "last click > skip above": last_click_over_skip_above(searches),
        "click > no-click next": click_over_no_click_next(searches),
        "dwell >= 10 s / <= 2 s": long_dwell_as_positive(searches, seconds=10, bounce=2),
        "dwell >= 30 s / <= 2 s": long_dwell_as_positive(searches, seconds=30, bounce=2),
        "position-based model": inverse_propensity(searches, model),
    }


def read_qrels(path: Path) -> tuple[Pairs, Pairs]:
    """All judged pairs, and the relevant ones."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["query-id"], row["corpus-id"], int(row["score"])) for row in csv.DictReader(file, delimiter="\t")]
    return {(query, passage) for query, passage, _ in rows}, {(q, p) for q, p, score in rows if score > 0}


def measured(
    labels: list[Label], judged: Pairs, relevant: Pairs, session_of: Mapping[str, int]
) -> tuple[dict[str, float], Counts]:
    """`judged` and `relevant` are the shown pairs; `session_of` numbers the session of each query. Beside the figures
    the positives of each session."""
    labels = [label for label in aggregate(labels) if (label.query, label.passage_id) in judged]
    positives = {(label.query, label.passage_id): label.weight for label in labels if label.weight > 0}
    negatives = {(label.query, label.passage_id) for label in labels if label.weight <= 0}
    right = sum(weight for pair, weight in positives.items() if pair in relevant)
    counts = by_session(positives.keys(), relevant, session_of)
    figures = {
        "positives": len(positives),
        "positive_precision": len(positives.keys() & relevant) / max(len(positives), 1),
        **_interval("positive_precision", counts),
        "positive_precision_weighted": right / max(sum(positives.values()), 1e-9),
        "positive_coverage": len(positives.keys() & relevant) / len(relevant),
        "negatives": len(negatives),
        "negative_precision": len(negatives - relevant) / max(len(negatives), 1),
        **_interval("negative_precision", by_session(negatives, judged - relevant, session_of)),
        "negative_coverage": len(negatives - relevant) / len(judged - relevant),
    }
    return figures, counts


def by_session(pairs: Iterable[tuple[str, str]], right: Pairs, session_of: Mapping[str, int]) -> Counts:
    counts = np.zeros((max(session_of.values()) + 1, 2))
    for query, passage in pairs:
        counts[session_of[query]] += ((query, passage) in right, 1)
    return counts


def shares(counts: Counts) -> NDArray[np.float64]:
    """The share of right labels in each redraw of the sessions (resamples,); the same sessions for every rule."""
    drawn = np.random.default_rng(0).integers(len(counts), size=(RESAMPLES, len(counts)))
    right, of = counts[drawn].sum(axis=1).T
    return np.asarray(right / np.maximum(of, 1))


def _interval(name: str, counts: Counts) -> dict[str, float]:
    low, high = np.percentile(shares(counts), [2.5, 97.5])
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


def against(naive: Counts, counts: Counts) -> dict[str, float]:
    """How much better the positives of a rule are than those of any click."""
    (right, of), (naive_right, naive_of) = counts.sum(axis=0), naive.sum(axis=0)
    low, high = np.percentile(shares(counts) - shares(naive), [2.5, 97.5])
    difference = right / max(of, 1) - naive_right / max(naive_of, 1)
    return {"difference": float(difference), "low": float(low), "high": float(high)}


def false_negatives(data: Path, model: str) -> dict[str, dict[str, float]]:
    """How many mined negatives are relevant, with and without the rules that keep away from positives."""
    from llama_index_embed_plus import open_encoder

    encoder = open_encoder(model)
    collection = CollectionManager(connect(":memory:")).ensure("shown", encoder)
    with (data / "corpus.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    index_passages(collection, (Passage(row["_id"], f"{row['title']} {row['text']}".strip()) for row in rows), encoder)
    searches = list(read_log(data / "log.jsonl", replace(COLUMNS, query="query")))
    text = {search.id: search.query for search in searches}
    judged, relevant = read_qrels(data / "qrels" / "test.tsv")
    judgements = [Label(text[q], p, float((q, p) in relevant)) for q, p in sorted(judged) if q in text]
    clicks = aggregate(clicked_as_positive(searches))
    bare = MiningSettings(max_share=None, duplicate_similarity=None, depth=50, sampling="top")
    at_95 = replace(bare, duplicate_similarity=0.95, max_share=0.95)
    settings = {
        "no rules": bare,
        "copies of positives out": replace(at_95, max_share=None),
        "and at most 95 % of the positive's score": at_95,
        "at most 80 %": replace(at_95, max_share=0.8),
        "at most 95 %, drawn at random from 50": replace(at_95, sampling="random"),
        "at most 95 %, drawn at random from 200": replace(at_95, sampling="random", depth=200),
        "calibrated": calibrate(collection, clicks, encoder, settings=at_95).settings,
    }
    found = {}
    for name, its in settings.items():
        result = mine(collection, clicks, encoder, settings=its)
        (finding,) = audit(result.examples, judgements=judgements).false_negatives
        found[name] = {"negatives": result.stats.counts["negatives"], **asdict(finding)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--mine", metavar="MODEL", help="also mine, with this encoder")
    arguments = parser.parse_args()
    data = arguments.data
    searches = list(read_log(data / "log.jsonl", COLUMNS))
    judged, relevant = read_qrels(data / "qrels" / "test.tsv")
    shown = {(search.query, hit.id) for search in searches for hit in search.hits}
    judged, relevant = judged & shown, relevant & shown
    print(f"{len(searches)} searches, {len(judged)} judged shown results, {len(relevant) / len(judged):.3f} relevant")
    numbers: dict[str, int] = {}
    session_of = {search.query: numbers.setdefault(search.session, len(numbers)) for search in searches}
    found = {name: measured(labels, judged, relevant, session_of) for name, labels in rules(searches).items()}
    figures = {
        name: {**row, "against_naive": against(found[NAIVE][1], counts)} for name, (row, counts) in found.items()
    }
    print("| rule | positives | precision (by weight) | coverage | negatives | precision | coverage |")
    print("|---|---|---|---|---|---|---|")
    for name, row in figures.items():
        print(LINE.format(name=name, **row))
        print(f"    {row}")
    mined = false_negatives(data, arguments.mine) if arguments.mine else {}
    for name, row in mined.items():
        print(MINED_LINE.format(name=name, **row))
    shares = {"searches": len(searches), "relevant_share": len(relevant) / len(judged)}
    print(json.dumps({**shares, "rules": figures, "false_negatives": mined}))


if __name__ == "__main__":
    main()
