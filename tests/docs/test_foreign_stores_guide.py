"""Chroma's and FAISS's files are read by the page about them: made here byte by byte as those libraries write them."""

from __future__ import annotations

import json
import sqlite3
import struct

from pages import run_page
from paths import DOCS

from llama_index_embed_plus import open_encoder

TEXTS = {
    "bees": "Bees turn nectar into honey.",
    "whales": "Whales sing to each other.",
    "herons": "Herons wade in shallow water.",
}
CHROMA = """
CREATE TABLE collections (id TEXT PRIMARY KEY, name TEXT NOT NULL, dimension INTEGER, database_id TEXT NOT NULL,
    config_json_str TEXT, schema_str TEXT);
CREATE TABLE segments (id TEXT PRIMARY KEY, type TEXT NOT NULL, scope TEXT NOT NULL, collection TEXT NOT NULL);
CREATE TABLE embeddings (id INTEGER PRIMARY KEY, segment_id TEXT NOT NULL, embedding_id TEXT NOT NULL,
    seq_id BLOB NOT NULL, created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (segment_id, embedding_id));
CREATE TABLE embedding_metadata (id INTEGER REFERENCES embeddings(id), key TEXT NOT NULL, string_value TEXT,
    int_value INTEGER, float_value REAL, bool_value INTEGER, PRIMARY KEY (id, key));
INSERT INTO collections VALUES ('c1', 'notes', 384, 'd', '{}', '{}'), ('c2', 'others', 384, 'd', '{}', '{}');
INSERT INTO segments VALUES ('v1', 'urn:chroma:segment/vector/hnsw-local-persisted', 'VECTOR', 'c1'),
    ('m1', 'urn:chroma:segment/metadata/sqlite', 'METADATA', 'c1'),
    ('m2', 'urn:chroma:segment/metadata/sqlite', 'METADATA', 'c2');
INSERT INTO embeddings (id, segment_id, embedding_id, seq_id) VALUES (1, 'm1', 'bees', 1), (2, 'm1', 'whales', 2),
    (3, 'm1', 'herons', 3), (4, 'm1', 'no document', 4), (5, 'm2', 'bees', 5);
INSERT INTO embedding_metadata VALUES (1, 'year', NULL, 2020, NULL, NULL), (1, 'kind', 'insect', NULL, NULL, NULL),
    (1, 'wild', NULL, NULL, NULL, 0), (2, 'w', NULL, NULL, 1.5, NULL), (4, 'year', NULL, 1999, NULL, NULL),
    (5, 'chroma:document', 'Bees of another collection.', NULL, NULL, NULL);
"""


def test_the_page_reads_both(tmp_path, onnx_minilm):
    (tmp_path / "chroma").mkdir()
    with sqlite3.connect(tmp_path / "chroma" / "chroma.sqlite3") as database:
        database.executescript(CHROMA)
        for number, text in enumerate(TEXTS.values(), start=1):
            row = (number, "chroma:document", text, None, None, None)
            database.execute("INSERT INTO embedding_metadata VALUES (?, ?, ?, ?, ?, ?)", row)
    database.close()
    vectors = open_encoder(onnx_minilm).encode_passages(list(TEXTS.values()))
    header = struct.pack("<4siqqqBiQ", b"IxFI", 384, 3, 1 << 20, 1 << 20, 1, 0, vectors.size)
    # the first 45 bytes that faiss 1.15.1 writes of three such vectors
    assert header.hex() == (
        "497846498001000003000000000000000000100000000000000010000000000001000000008004000000000000"
    )
    (tmp_path / "index.faiss").write_bytes(header + vectors.tobytes())
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS.values()))

    run_page(DOCS / "migration" / "chroma-faiss.md", tmp_path, model=onnx_minilm)

    rows = [json.loads(line) for line in (tmp_path / "notes.jsonl").read_text().splitlines()]
    assert rows == [
        {"id": "bees", "text": TEXTS["bees"], "metadata": {"year": 2020, "kind": "insect", "wild": False}},
        {"id": "whales", "text": TEXTS["whales"], "metadata": {"w": 1.5}},
        {"id": "herons", "text": TEXTS["herons"], "metadata": {}},
    ]
