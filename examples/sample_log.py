"""Passages and a log as other systems keep them, for trying `log import`: python examples/sample_log.py [DOCUMENTS]

Writes `passages.jsonl` and `searches.csv`, one row per search, of the documentation strings of Python's own library:
the first sentence of each is a search, and a person opens the entry it belongs to if it is among the ten shown.
"""

import csv
import json
import sys
from datetime import datetime, timedelta

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.demo import load_docstrings
from qdrant_tools import CollectionManager, connect

corpus = load_docstrings(limit=int(sys.argv[1]) if len(sys.argv) > 1 else None)
with open("passages.jsonl", "w", encoding="utf-8") as file:
    for passage in corpus.passages:
        print(json.dumps({"id": passage.id, "text": passage.text}), file=file)

entries = CollectionManager(connect(":memory:")).ensure("entries", open_encoder("all-MiniLM-L6-v2"))
entries.index(corpus.passages)
queries = [query for split in (corpus.train, corpus.held_out) for query in split.queries]
answers = {**corpus.train.qrels, **corpus.held_out.qrels}
moment = datetime(2026, 10, 20, 9, 0, 0)
with open("searches.csv", "w", encoding="utf-8", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["when", "visitor", "term", "shown", "clicked"])
    for number, query in enumerate(queries):
        shown = [hit.id for hit in entries.search(query.text, k=10)]
        opened = [id for id in shown if id in answers[query.id]]
        time = moment + timedelta(minutes=3 * number)
        rows.writerow([f"{time:%Y-%m-%d %H:%M:%S}", f"v{number % 50}", query.text, "|".join(shown), "|".join(opened)])
print(f"wrote passages.jsonl ({len(corpus.passages)} entries) and searches.csv ({len(queries)} searches)")
