"""From a retrieval log to a better encoder: log -> labels -> hard negatives -> query adapter -> measured gain.

The log is what your application wrote; here its users are played by the documentation of the standard library, where
the first sentence of each docstring is a question and a click on the rest of it is the feedback. The argument is the
number of docstrings.
"""

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from llama_index_embed_plus import AdaptedEncoder, compare, evaluate_retrieval, fit_adapter, open_encoder
from llama_index_embed_plus.demo import load_docstrings
from qdrant_tools import CollectionManager, RetrievalLog, connect
from qdrant_tools.debias import clicked_as_positive

encoder = open_encoder("all-MiniLM-L6-v2")
corpus = load_docstrings(limit=int(sys.argv[1]) if len(sys.argv) > 1 else 600)
train, held_out = corpus.train, corpus.held_out

with (
    tempfile.TemporaryDirectory() as folder,
    closing(connect(Path(folder) / "qdrant")) as client,
    RetrievalLog(Path(folder) / "log.sqlite") as log,
):
    # What a running system does already: index, search, and write down what was clicked.
    docs = CollectionManager(client).ensure("docs", encoder)
    docs.index(corpus.passages)
    for query, hits in zip(train.queries, docs.search_batch([query.text for query in train.queries], k=10)):
        search_id = log.record(query.text, hits, collection=docs.name, space=docs.space)
        for hit in hits:
            if hit.id in train.qrels[query.id]:
                log.feedback(search_id, hit.id, "click")

    # What is new: the log becomes training data, and that a better encoder for the same collection.
    mined = docs.mine(clicked_as_positive(log.searches()))
    adapter, report = fit_adapter(docs, mined.examples)
    better = docs.with_encoder(AdaptedEncoder(encoder, adapter))
    before = evaluate_retrieval(docs, held_out.queries, held_out.qrels)
    after = evaluate_retrieval(better, held_out.queries, held_out.qrels)

gain = compare(before, after).difference
print(f"{len(mined.examples)} training queries, {len(before.ndcg)} held-out queries")
print(f"nDCG@10 {before.means()['ndcg@10']:.3f} -> {after.means()['ndcg@10']:.3f}")
print(f"gain {gain.difference:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}")
