"""A forked process embeds, caches and records like its parent, or says at once why not; it never waits for ever.

Each program here runs in a process of its own, with two threads for OpenMP: it forks, and a child that does not answer
in time is killed and named.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import programs
import pytest
from models import TEXTS, save_cross_encoder, save_model
from programs import PATIENCE, awaited, forked

from llama_index_embed_plus import PlusEmbedding
from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter, attach_adapter
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import CacheError
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.serving.cache import VectorCache
from llama_index_embed_plus.serving.service import EncoderService

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

SENTENCES = [f"sentence number {n} about rivers, bread and the {'long ' * (n % 9)}winter" for n in range(16)]


ALONE = {"env": os.environ | {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "true"}, "timeout": 4 * PATIENCE}


_of_the_parent = {}


def embedded_in_a_pool(text):
    return _of_the_parent["embedding"].get_text_embedding(text)


def use_torch(model):
    """Every door of a torch model, in children of all kinds; the real model, whose products use OpenMP."""
    embedding = PlusEmbedding(model, backend="torch", device="cpu")
    encoder = open_encoder(model, backend="torch", device="cpu")
    service = EncoderService(lambda: encoder)
    one, many = embedding.get_text_embedding(SENTENCES[0]), embedding.get_text_embedding_batch(SENTENCES)
    asked = asyncio.run(embedding.aget_query_embedding(SENTENCES[1]))
    assert len(service.encode("passage", SENTENCES[:2])) == 2

    def everything():
        np.testing.assert_allclose(embedding.get_text_embedding(SENTENCES[0]), one, atol=1e-5)
        np.testing.assert_allclose(embedding.get_text_embedding_batch(SENTENCES), many, atol=1e-5)
        np.testing.assert_allclose(asyncio.run(embedding.aget_query_embedding(SENTENCES[1])), asked, atol=1e-5)
        np.testing.assert_allclose(asyncio.run(embedding.aget_text_embedding_batch(SENTENCES)), many, atol=1e-5)
        np.testing.assert_allclose(encoder.encode_passages(SENTENCES), many, atol=1e-5)
        np.testing.assert_allclose(service.encode("passage", SENTENCES), many, atol=1e-5)

    forked(everything, "a child")
    forked(lambda: forked(everything, "a grandchild"), "its parent")
    forked(lambda: (everything(), forked(everything, "a grandchild")), "a parent that computes")
    with ThreadPoolExecutor(1) as threads:
        threads.submit(forked, everything, "a child of a thread").result()
    _of_the_parent["embedding"] = embedding
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map_async(embedded_in_a_pool, SENTENCES[:4]).get(PATIENCE)
        np.testing.assert_allclose(found, many[:4], atol=1e-5)
    everything()  # the parent goes on
    programs.report("done")


def test_children_of_a_process_that_runs_torch_get_its_vectors_and_are_told_once(minilm):
    done = programs.run(use_torch, minilm, **ALONE)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr
    told = [line for line in done.stderr.splitlines() if "torch has one thread here" in line]
    # four children that compute, the grandchild of one that does not, and two workers at most; never the parent
    assert 4 <= len(told) <= 6


def fork_while_busy(model):
    """Children are forked all the time while threads compute, and while one opens the model."""
    embedding = PlusEmbedding(model, backend="torch", device="cpu")
    # the first text imports torch and reads the weights: a child that waited for this thread would wait for ever
    stop, opened = threading.Event(), threading.Event()

    def open_model():
        embedding.get_text_embedding(SENTENCES[0])
        opened.set()
        stop.wait()

    opening = threading.Thread(target=open_model)
    opening.start()
    time.sleep(0.3)
    while not opened.is_set():
        forked(lambda: embedding.get_text_embedding(SENTENCES[0]), "a child of an opening process")
    many = embedding.get_text_embedding_batch(SENTENCES)

    def busy():
        while not stop.is_set():
            embedding.get_text_embedding_batch(SENTENCES)

    busy_threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in busy_threads:
        thread.start()

    def compare():
        np.testing.assert_allclose(embedding.get_text_embedding_batch(SENTENCES), many, atol=1e-5)
        np.testing.assert_allclose(embedding.get_query_embedding(SENTENCES[0]), many[0], atol=1e-5)

    try:
        for number in range(4):
            time.sleep(0.03 * number)
            forked(compare, f"child {number} of a busy process")
    finally:
        stop.set()
        for thread in [opening, *busy_threads]:
            thread.join()
    programs.report("done")


def fork_after_opening(model):
    """A child is forked at the moment when a thread has opened the model, and goes on: with a text that is too long."""
    embedding = PlusEmbedding(model, backend="torch", device="cpu")
    texts = [SENTENCES[0], "long " * 400]
    told, end = threading.Event(), threading.Event()

    def embed():
        embedding.get_text_embedding_batch(texts)
        told.set()
        end.wait()  # a library may free what belongs to a thread when it ends, and no fork can wait for that

    first = threading.Thread(target=embed)
    first.start()
    while not told.is_set():
        forked(lambda: embedding.get_text_embedding_batch(texts), "a child of a process that tells what is cut")
    end.set()
    first.join()
    programs.report("done")


def test_a_fork_while_a_thread_tells_of_a_text_that_is_cut_hangs_nobody(minilm):
    assert programs.output(fork_after_opening, minilm, **ALONE) == "done\n"


def test_a_fork_in_the_middle_of_the_work_of_other_threads_hangs_nobody(minilm):
    assert programs.output(fork_while_busy, minilm, **ALONE) == "done\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Tiny models of every build: ONNX in both precisions, with an adapter, and a cross-encoder."""
    folder = tmp_path_factory.mktemp("served")
    save_model(folder / "base", prompts={"query": "query : ", "document": "passage : "})
    export_onnx(folder / "base", folder / "onnx", precision="int8", force=True)
    base = open_encoder(folder / "base", device="cpu")
    attach_adapter(folder / "onnx", QueryAdapter.identity(base.dimension, base.space), folder / "adapted")
    save_cross_encoder(folder / "judge")
    return folder


def use_onnx(folder):
    """Sessions, which have threads of their own; a cache; adapters; a child that ends as Python ends."""
    folder = Path(folder)
    doors = {
        "fp32": open_encoder(folder / "onnx", backend="onnx-fp32"),
        "int8": open_encoder(folder / "onnx", backend="onnx-int8"),
        "adapter": open_encoder(folder / "adapted"),
    }
    adapter = QueryAdapter.identity(doors["fp32"].dimension, doors["fp32"].space)
    doors["without"] = AdaptedEncoder(doors["adapter"], adapter)  # shares a copy of the encoder
    # many batches use another session than one
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS * 20)]
    before = {name: (door.encode_queries(TEXTS), door.encode_passages(texts)) for name, door in doors.items()}
    os.chdir(folder)
    cached = PlusEmbedding(folder / "onnx", vector_cache="cache.sqlite")
    vector = cached.get_text_embedding(TEXTS[0])

    def everything():
        for name, door in doors.items():
            np.testing.assert_allclose(door.encode_queries(TEXTS), before[name][0], atol=1e-6)
            np.testing.assert_allclose(door.encode_passages(texts), before[name][1], atol=1e-6)
        os.chdir("/")  # as daemons do
        np.testing.assert_allclose(cached.get_text_embedding(TEXTS[0]), vector, atol=1e-6)
        cached.get_text_embedding(f"of process {os.getpid()}")

    forked(everything, "a child")
    forked(lambda: (everything(), forked(everything, "a grandchild")), "a parent that computes")
    child = os.fork()
    if child == 0:
        everything()
        sys.exit(0)  # with all destructors
    awaited(child, "a child that ends as Python ends")
    cached.get_text_embedding(TEXTS[1])
    assert len(VectorCache("cache.sqlite")) == 6, "what children computed is in the one cache"
    everything()
    programs.report("done")


def test_children_of_a_process_that_runs_onnx_get_its_vectors_and_share_its_cache(served):
    assert programs.output(use_onnx, served, **ALONE) == "done\n"


def use_cross_encoder(folder):
    import torch

    from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_judge

    judge = cross_encoder_judge(Path(folder) / "judge", threshold=0.5, device="cpu")
    pairs = [(TEXTS[0], text) for text in TEXTS * 8]
    scores = judge.score(pairs)
    torch.ones(4_000_000).exp_().sum()  # as a large model does: OpenMP has its threads now

    def compare():
        np.testing.assert_allclose(judge.score(pairs), scores, atol=1e-5)
        assert float(torch.ones(4_000_000).sum()) == 4_000_000

    forked(compare)
    compare()
    programs.report("done")


def test_a_child_judges_by_its_parents_cross_encoder(served):
    assert programs.output(use_cross_encoder, served, **ALONE) == "done\n"


def test_what_a_child_stores_outlives_its_parents_connection(tmp_path):
    """Whoever is the last to close a cache deletes the write-ahead log, so a child must be known to others."""
    row = np.ones(3, np.float32)
    path = tmp_path / "cache.sqlite"
    cache = VectorCache(path)
    cache.put({"before": row})
    (first, tell), (go_on, let) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            cache.put({"child 1": row})
            os.write(tell, b"x")
            os.read(go_on, 1)
            cache.put({"child 2": row})
            code = 0
        finally:
            os._exit(code)
    assert os.read(first, 1)
    cache.close()
    with closing(VectorCache(path)) as other:
        assert len(other) == 2
    os.write(let, b"x")
    awaited(child, "a child that goes on storing")
    with closing(VectorCache(path)) as other:
        assert other.get(["before", "child 1", "child 2"]).keys() == {"before", "child 1", "child 2"}
    for end in (first, tell, go_on, let):
        os.close(end)


def test_children_of_a_process_whose_threads_use_the_cache_all_the_time_use_it_too(tmp_path):
    row = np.ones(3, np.float32)
    cache = VectorCache(tmp_path / "cache.sqlite")
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            cache.put({"of the parent": row})
            cache.get(["of the parent"])

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            forked(lambda number=number: cache.put({f"of child {number}": row}))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(cache.get([f"of child {number}" for number in range(10)])) == 10


def test_a_cache_that_was_closed_stays_closed_in_a_child(tmp_path):
    cache = VectorCache(tmp_path / "cache.sqlite")
    cache.close()

    def use():
        with pytest.raises(CacheError, match="closed database"):
            cache.get(["key"])

    forked(use)
