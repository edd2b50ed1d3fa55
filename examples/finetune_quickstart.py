"""From a retrieval log to a better encoder: log -> labels -> hard negatives -> query adapter -> measured gain.

The log is what your application wrote; here its users are played by the documentation of the standard library, where
the first sentence of each docstring is a question and a click on the rest of it is the feedback. The argument is the
number of docstrings.
"""

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from llama_index_embed_plus import AdaptedEncoder, open_encoder
from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.evaluate import compare, evaluate_retrieval
from llama_index_embed_plus.training.adapter import fit_adapter
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.debias import clicked_as_positive
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import RetrievalLog
from qdrant_tools.mining import mine
from qdrant_tools.search.dense import search_batch

encoder = open_encoder("all-MiniLM-L6-v2")
corpus = load_docstrings(limit=int(sys.argv[1]) if len(sys.argv) > 1 else 600)
train, held_out = corpus.train, corpus.held_out

with (
    tempfile.TemporaryDirectory() as folder,
    closing(connect(Path(folder) / "qdrant")) as client,
    RetrievalLog(Path(folder) / "log.sqlite") as log,
):
    # What a running system does already: index, search, and write down what was clicked.
    collection = CollectionManager(client).ensure("docs", encoder)
    index_passages(collection, corpus.passages, encoder)
    for query, hits in zip(train.queries, search_batch(collection, [q.text for q in train.queries], encoder, k=10)):
        search_id = log.record(query.text, hits, collection=collection.name, space=encoder.space)
        for hit in hits:
            if hit.id in train.qrels[query.id]:
                log.feedback(search_id, hit.id, "click")

    # What is new: the log becomes training data, and that a better encoder for the same collection.
    mined = mine(collection, clicked_as_positive(log.searches()), encoder)
    adapter, report = fit_adapter(collection, mined.examples, encoder)
    before = evaluate_retrieval(collection, held_out.queries, held_out.qrels, encoder)
    after = evaluate_retrieval(collection, held_out.queries, held_out.qrels, AdaptedEncoder(encoder, adapter))

gain = compare(before, after).difference
print(f"{len(mined.examples)} training queries, {len(before.ndcg)} held-out queries")
print(f"nDCG@10 {before.means()['ndcg@10']:.3f} -> {after.means()['ndcg@10']:.3f}")
print(f"gain {gain.difference:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}")
