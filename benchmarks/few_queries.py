"""Few judged queries: what does a proof make of them that holds some out, and one by cross-fitting?

    python benchmarks/few_queries.py [--queries 75] [--draws 20] [--model all-MiniLM-L6-v2]

The docstrings of `embed-plus demo`. So many judged queries are drawn from the training part, by seed; queries that
share an answer with those that measure the truth are none of them. From the same draw come two adapters:

- `held out`: a fifth of the queries is held out and decides, the adapter is fitted on the others;
- `cross-fitted`: every query decides, ranked by one of 5 adapters that did not see it; what serves is fitted on all.

`kept` is the share of draws in which the proof lets the adapter serve, `truth` what the adapter gains in nDCG@10 on the
367 held-out queries of the demo, which no draw has seen, `harmful` how many of the kept ones lose there, and `estimate`
the gain that the proof saw. Exact search; seeded; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from llama_index_embed_plus import AdaptedEncoder, fit_adapter, open_encoder
from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.training import ProofSettings, SplitSettings, cross_fit, prove, split_queries
from llama_index_embed_plus.training.proof.proof import Proof
from qdrant_tools import CollectionManager, connect
from qdrant_tools.records import Encoder, Example, HeldOut, ScoredText, Vectors

# forgetting is another question, and asks nothing of the judged queries
PROOF = ProofSettings(known_items=0)


class Known:
    """An encoder that embeds every text once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.dimension, self.space = encoder, encoder.dimension, encoder.space
        self._queries: dict[str, Vectors] = {}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        if new := [text for text in dict.fromkeys(texts) if text not in self._queries]:
            self._queries.update(zip(new, self._encoder.encode_queries(new), strict=True))
        return np.stack([self._queries[text] for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._encoder.encode_passages(texts)


def row(proof: Proof, truth: Proof) -> dict[str, float | bool]:
    change = proof.changes[0]
    return {
        "kept": proof.harmless,
        "queries": proof.queries,
        "estimate": change.difference,
        "low": change.low,
        "truth": truth.changes[0].difference,
    }


def summary(rows: Sequence[dict[str, float | bool]]) -> dict[str, float]:
    kept = [each for each in rows if each["kept"]]
    return {
        "draws": len(rows),
        "kept": len(kept) / len(rows),
        "harmful": sum(each["truth"] < 0 for each in kept),
        "estimate": fmean(float(each["estimate"]) for each in rows),
        "truth": fmean(float(each["truth"]) for each in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=75)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    corpus = load_docstrings()
    texts = {passage.id: passage.text for passage in corpus.passages}
    test = corpus.held_out.qrels
    answers = {passage for grades in test.values() for passage in grades}
    train = [
        Example(query.text, tuple(ScoredText(name, texts[name]) for name in corpus.train.qrels[query.id]))
        for query in corpus.train.queries
        if not answers & corpus.train.qrels[query.id].keys()
    ]
    encoder = Known(open_encoder(arguments.model))
    docs = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    docs.index(corpus.passages)
    unseen = HeldOut(tuple(corpus.held_out.queries), test)

    def fit(examples: Sequence[Example]) -> Encoder:
        return AdaptedEncoder(encoder, fit_adapter(docs, examples, encoder)[0])

    def truth_of(after: Encoder) -> Proof:
        return prove(encoder, after, unseen, PROOF, collection=docs)

    found: dict[str, list[dict[str, float | bool]]] = {"held out": [], "cross-fitted": []}
    for draw in range(arguments.draws):
        drawn = random.Random(draw).sample(train, arguments.queries)
        split = split_queries(drawn, SplitSettings(dev=0.0, test=0.2, seed=draw), encoder=encoder)
        held_out, after = HeldOut.of_examples(split.test), fit(split.train)
        found["held out"].append(row(prove(encoder, after, held_out, PROOF, collection=docs), truth_of(after)))
        crossed = cross_fit(drawn, fit, settings=SplitSettings(seed=draw), encoder=encoder)
        proof = prove(encoder, crossed, HeldOut.of_examples(drawn), PROOF, collection=docs)
        found["cross-fitted"].append(row(proof, truth_of(crossed.served)))
        print(draw, {name: rows[-1] for name, rows in found.items()}, flush=True)
    print(json.dumps({"queries": arguments.queries, **{name: summary(rows) for name, rows in found.items()}}))


if __name__ == "__main__":
    main()
