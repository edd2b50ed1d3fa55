"""The encoder behind its cache and queue: opened once, asked once per text, never in the event loop's way."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from models import TEXTS, save_model

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import CacheError, TextError
from llama_index_embed_plus.serving.cache import VectorCache
from llama_index_embed_plus.serving.service import EncoderService


class Watched:
    """A real encoder that remembers what it was asked, and waits for the gate if it is closed."""

    def __init__(self, encoder) -> None:
        self.encoder, self.asked, self.at_once, self.gate = encoder, [], [0], threading.Event()
        self.dimension, self.space, self.build = encoder.dimension, encoder.space, encoder.build
        self.adapter = encoder.adapter
        self.gate.set()

    def encode_queries(self, texts, *, progress=None):
        return self._watch(self.encoder.encode_queries, texts, progress)

    def encode_passages(self, texts, *, progress=None):
        return self._watch(self.encoder.encode_passages, texts, progress)

    def _watch(self, encode, texts, progress):
        self.asked.append(list(texts))
        self.at_once.append(self.at_once[-1] + 1)
        assert self.gate.wait(300), "nobody opened the gate"
        try:
            return encode(texts, progress=progress)
        finally:
            self.at_once.append(self.at_once[-1] - 1)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_model(folder, prompts={"query": "query : ", "document": "passage : "})
    return open_encoder(folder, device="cpu")


@pytest.fixture
def encoder(real):
    return Watched(real)


@pytest.fixture
def open_cache(tmp_path):
    return lambda: VectorCache(tmp_path / "cache.sqlite")


def test_the_encoder_is_opened_by_the_first_text_and_only_once(encoder):
    opened = []
    service = EncoderService(lambda: opened.append(1) or encoder)
    assert opened == []
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda text: service.encode("query", [text]), TEXTS * 8))
    assert opened == [1]


def test_equal_texts_are_cached_once_and_vectors_come_back_in_order(encoder, open_cache):
    service = EncoderService(lambda: encoder, open_cache=open_cache)
    rows = service.encode("passage", ["a dog", "fast", "a dog", "a cat"])
    assert encoder.asked == [["a dog", "fast", "a cat"]]
    expected = encoder.encoder.encode_passages(["a dog", "fast", "a dog", "a cat"])
    np.testing.assert_array_equal(rows, expected)


async def test_no_text_gives_no_vector_and_opens_nothing():
    service = EncoderService(lambda: pytest.fail("opened"))
    assert service.encode("passage", []) == await service.aencode("passage", []) == []


async def test_a_bad_text_is_refused_before_any_other_is_computed_or_cached(encoder, open_cache):
    service = EncoderService(lambda: encoder, open_cache=open_cache)
    with pytest.raises(TextError, match="text 5 is ' '"):
        service.encode("passage", [*TEXTS[:5], " "])
    with pytest.raises(TextError, match="text 1 is None"):
        await service.aencode("query", ["a dog", None])
    assert encoder.asked == [] and len(open_cache()) == 0


def test_progress_counts_every_text_once_whatever_is_cached_or_repeated(encoder, open_cache):
    service = EncoderService(lambda: encoder, open_cache=open_cache)
    service.encode("passage", TEXTS[:2])
    steps: list[int] = []
    service.encode("passage", TEXTS + TEXTS[:3], steps.append)
    assert sum(steps) == len(TEXTS) + 3


def test_a_cached_text_is_not_computed_again_in_any_process(encoder, open_cache):
    first = EncoderService(lambda: encoder, open_cache=open_cache).encode("passage", TEXTS)
    second = EncoderService(lambda: encoder, open_cache=open_cache)
    assert second.encode("passage", [*TEXTS, "new"])[:-1] == first
    assert second.encode("passage", TEXTS[:1]) == first[:1]
    assert encoder.asked == [TEXTS, ["new"]]


def test_a_query_never_gets_the_cached_vector_of_the_same_passage(encoder, open_cache):
    service = EncoderService(lambda: encoder, open_cache=open_cache)
    passage, query = service.encode("passage", ["a dog"]), service.encode("query", ["a dog"])
    np.testing.assert_array_equal(query, encoder.encoder.encode_queries(["a dog"]))
    assert not np.allclose(passage, query)


def test_a_cached_vector_of_another_length_is_an_error(encoder, open_cache):
    cache = open_cache()
    service = EncoderService(lambda: encoder, open_cache=lambda: cache)
    cache.put({service.keyspace("query").key("a dog"): np.ones(3, np.float32)})
    with pytest.raises(CacheError, match="holds vectors of 3, expected 32"):
        service.encode("query", ["a dog"])


async def test_the_event_loop_goes_on_while_texts_are_embedded(encoder):
    encoder.gate.clear()
    service = EncoderService(lambda: encoder)
    bulk = asyncio.ensure_future(service.aencode("passage", TEXTS))
    single = asyncio.ensure_future(service.aencode("query", ["a dog"]))
    while len(encoder.asked) < 2:
        await asyncio.sleep(0.001)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not bulk.done() and not single.done()
    encoder.gate.set()
    assert np.shape(await bulk) == (len(TEXTS), 32) and np.shape(await single) == (1, 32)


async def test_bulk_calls_are_computed_a_few_at_a_time(encoder):
    service = EncoderService(lambda: encoder, workers=3)
    rows = await asyncio.gather(*(service.aencode("passage", [f"cat {i}", "dog"]) for i in range(50)))
    assert len(rows) == 50 and max(encoder.at_once) <= 3


async def test_a_bad_text_fails_alone_among_concurrent_callers(encoder):
    service = EncoderService(lambda: encoder)
    answers = await asyncio.gather(
        *(service.aencode("query", [text]) for text in ["a dog", "  ", "a cat"]), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [list, TextError, list]


def test_threads_get_the_vectors_that_the_encoder_gives_alone(encoder):
    service = EncoderService(lambda: encoder)
    texts = [f"{word} {i % 50}" for i, word in enumerate(["cat", "dog", "tree", "stone"] * 50)]
    with ThreadPoolExecutor(200) as pool:
        rows = np.stack(list(pool.map(lambda text: service.encode("passage", [text])[0], texts)))
    alone = np.concatenate([encoder.encoder.encode_passages([text]) for text in texts])
    assert np.abs(rows - alone).max() < 1e-6
