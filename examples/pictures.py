"""Pictures of a collection and of its searches, made from the documentation of the standard library.

python examples/pictures.py [FOLDER] [NUMBER OF PASSAGES]: writes before-after.png, query-differences.png,
score-histograms.png, similarity.png, map-pca.png, map-tsne.png and recall-latency.png into the folder.
"""

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.evaluate import compare, evaluate_retrieval
from llama_index_embed_plus.evaluate.plots.pages import (
    before_after,
    query_differences,
    recall_latency,
    score_histograms,
    scores_by_relevance,
)
from llama_index_embed_plus.evaluate.plots.vectors import MapSettings, map_collection, similarity_heatmap, vector_map
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.indexing import index_passages
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.tuning import TuningGrid, tune

out = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
out.mkdir(parents=True, exist_ok=True)
corpus = load_docstrings(limit=int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
encoder = open_encoder("all-MiniLM-L6-v2")
queries, qrels = corpus.held_out.queries, corpus.held_out.qrels
subject = f"standard library documentation, {len(corpus.passages)} passages"

with tempfile.TemporaryDirectory() as folder, closing(connect(Path(folder) / "qdrant")) as client:
    collection = CollectionManager(client).ensure("docs", encoder, settings=CollectionSettings(lexical=Bm25()))
    index_passages(collection, corpus.passages, encoder)
    build_index(collection)

    dense = evaluate_retrieval(collection, queries, qrels, encoder, name="dense")
    hybrid = evaluate_retrieval(collection, queries, qrels, encoder, mode="hybrid", name="hybrid")
    found = compare(dense, hybrid)
    differences = [change.difference for change in found.changes]
    shown = {report.name: report.headline() for report in (dense, hybrid)}
    before_after(out / "before-after.png", shown, differences=differences, title=subject)
    query_differences(out / "query-differences.png", found)
    score_histograms(out / "score-histograms.png", *scores_by_relevance(dense.run, qrels), title=subject)

    texts = [
        "How do I copy a file?", "Duplicate a document on disk", "Remove a directory and all that is in it",
        "Send an e-mail", "Post a message through an SMTP server", "Wait for a second",
    ]  # fmt: skip
    similarity_heatmap(out / "similarity.png", texts, encoder.encode_passages(texts))
    for method in ("pca", "tsne"):
        mapped = map_collection(collection, settings=MapSettings(method, clusters=8, sample=700))
        vector_map(out / f"map-{method}.png", mapped, title="standard library documentation")

    asked = encoder.encode_queries([query.text for query in queries])
    grid = TuningGrid(hnsw_ef=(4, 8, 16, 32, 64, 128), m=(4, 16))
    recall_latency(out / "recall-latency.png", tune(collection, asked, target_recall=0.99, grid=grid))

test = found.deciding
print(f"{len(queries)} queries, {found.metric} {test.before:.3f} -> {test.after:.3f}, p {test.p_value:.4f}")
for path in sorted(out.glob("*.png")):
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
