"""How many mined negatives are answers? Answers that are known are hidden from the miner, and looked for.

    python benchmarks/false_negatives.py --data FOLDER/scifact [--int8] [--work FOLDER]

FOLDER/scifact is in BEIR's layout, as for `mining.py`. Of every train query with several relevant passages, one is
given as the known positive and the others are hidden, each in turn; 4 negatives are mined per query with and without
the rules that keep away from positives. `hidden_rate` is the share of the hidden answers that were drawn as
negatives, with its 95 % Wilson interval: what a rule must bring down. `false_negative_rate` is the share of the
negatives that are hidden answers: a lower bound, since nobody judged the rest. `negatives` says what a rule costs.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from mining import Bench, Data, Given, Work, int8_build, read_data

from llama_index_embed_plus import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.mining.calibration import calibrate
from qdrant_tools.records import Encoder, Label, Passage
from qdrant_tools.statistics import wilson

BARE = MiningSettings(max_share=None, duplicate_similarity=None, exact=True)
LINE = "| {name} | {negatives} | {hidden_found} of {hidden} | {hidden_rate:.3f} [{low:.3f}, {high:.3f}] | {rate:.4f} |"


def rules(collection: Collection, labels: list[Label], encoder: Encoder) -> dict[str, MiningSettings]:
    """By name; `labels` are those of queries with one known positive."""
    both = replace(BARE, duplicate_similarity=0.95)
    return {
        "no rules": BARE,
        "copies of positives out": both,
        "and at most 95 % of the positive's score": replace(both, max_share=0.95),
        "at most 90 %": replace(both, max_share=0.9),
        "at most 80 %": replace(both, max_share=0.8),
        "at most 95 %, drawn at random from 50": replace(both, max_share=0.95, sampling="random"),
        "calibrated": calibrate(collection, labels, encoder, settings=both).settings,
    }


def rounds(data: Data) -> list[list[Label]]:
    """Labels with one positive per query; in round number i it is the i-th of those that have so many."""
    positives = data.positives
    several = {query: its for query, its in positives.items() if len(its) > 1}
    return [
        [Label(query, its[turn]) for query, its in several.items() if turn < len(its)]
        for turn in range(max(map(len, several.values()), default=0))
    ]


def measure(data: Data, collection: Collection, encoder: Encoder) -> dict[str, dict[str, Any]]:
    turns = rounds(data)
    found: dict[str, dict[str, Any]] = {}
    for name, settings in rules(collection, turns[0], encoder).items():
        negatives = hits = hidden = 0
        for labels in turns:
            known = {label.query: label.passage_id for label in labels}
            secret = {query: set(data.positives[query]) - {passage} for query, passage in known.items()}
            hidden += sum(map(len, secret.values()))
            for example in mine(collection, labels, encoder, settings=settings).examples:
                negatives += len(example.negatives)
                hits += sum(negative.id in secret[example.query] for negative in example.negatives)
        low, high = wilson(hits, hidden)
        found[name] = {"negatives": negatives, "hidden": hidden, "hidden_found": hits, "hidden_rate": hits / hidden}
        found[name] |= {"low": low, "high": high, "false_negative_rate": hits / max(negatives, 1)}
        print(LINE.format(name=name, rate=found[name]["false_negative_rate"], **found[name]), flush=True)
    return found


def filled(bench: Bench, encoder: Encoder, client: Any) -> Collection:
    collection = CollectionManager(client).ensure(bench.data.name, encoder)
    index_passages(collection, (Passage(key, text) for key, text in bench.data.passages.items()), encoder)
    return collection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--int8", action="store_true", help="embed with the int8 build, which is made first")
    parser.add_argument("--work", type=Path, help="where vectors are kept, as by mining.py")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Work(arguments.work or Path(temporary))
        encoder = open_encoder(int8_build(arguments.model, work.folder) if arguments.int8 else arguments.model)
        data = read_data(arguments.data, queries=None, passages=None)
        bench = Bench(data, work, encoder)
        given = Given(encoder, bench.passages, bench.queries)
        with closing(connect(Path(temporary) / "qdrant")) as client:
            found: Mapping[str, Any] = measure(data, filled(bench, given, client), given)
    print(json.dumps({"dataset": data.name, "rules": found}))


if __name__ == "__main__":
    main()
