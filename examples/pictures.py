"""Pictures of a collection and of its searches, made from the documentation of the standard library.

python examples/pictures.py [FOLDER] [NUMBER OF PASSAGES]: writes before-after.png, query-differences.png,
score-histograms.png, similarity.png, map-pca.png, map-tsne.png and recall-latency.png into the folder.
"""

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from llama_index_embed_plus import compare, evaluate_retrieval, open_encoder
from llama_index_embed_plus.demo import load_docstrings
from llama_index_embed_plus.evaluate import plots
from qdrant_tools import Bm25, CollectionManager, CollectionSettings, TuningGrid, connect

out = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
out.mkdir(parents=True, exist_ok=True)
corpus = load_docstrings(limit=int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
encoder = open_encoder("all-MiniLM-L6-v2")
queries, qrels = corpus.held_out.queries, corpus.held_out.qrels
subject = f"standard library documentation, {len(corpus.passages)} passages"

with tempfile.TemporaryDirectory() as folder, closing(connect(Path(folder) / "qdrant")) as client:
    docs = CollectionManager(client).ensure("docs", encoder, settings=CollectionSettings(lexical=Bm25()))
    docs.index(corpus.passages)
    docs.build_index()

    dense = evaluate_retrieval(docs, queries, qrels, name="dense")
    hybrid = evaluate_retrieval(docs, queries, qrels, mode="hybrid", name="hybrid")
    comparison = compare(dense, hybrid)
    differences = [change.difference for change in comparison.changes]
    headlines = {report.name: report.headline() for report in (dense, hybrid)}
    plots.before_after(out / "before-after.png", headlines, differences=differences, title=subject)
    plots.query_differences(out / "query-differences.png", comparison)
    scores = plots.scores_by_relevance(dense.run, qrels)
    plots.score_histograms(out / "score-histograms.png", *scores, title=subject)

    texts = [
        "How do I copy a file?", "Duplicate a document on disk", "Remove a directory and all that is in it",
        "Send an e-mail", "Post a message through an SMTP server", "Wait for a second",
    ]  # fmt: skip
    plots.similarity_heatmap(out / "similarity.png", texts, encoder.encode_passages(texts))
    for method in ("pca", "tsne"):
        mapped = plots.map_collection(docs, settings=plots.MapSettings(method, clusters=8, sample=700))
        plots.vector_map(out / f"map-{method}.png", mapped, title="standard library documentation")

    vectors = encoder.encode_queries([query.text for query in queries])
    grid = TuningGrid(hnsw_ef=(4, 8, 16, 32, 64, 128), m=(4, 16))
    plots.recall_latency(out / "recall-latency.png", docs.tune(vectors, target_recall=0.99, grid=grid))

test = comparison.deciding
print(f"{len(queries)} queries, {comparison.metric} {test.before:.3f} -> {test.after:.3f}, p {test.p_value:.4f}")
for path in sorted(out.glob("*.png")):
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
