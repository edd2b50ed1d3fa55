"""Concurrent single texts share batches; each caller gets its own row or its own error."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from moments import until

from llama_index_embed_plus.serving.service import MAX_BATCH, Coalescer


class Lengths:
    """The vector of a text is its length. Remembers its batches; waits, if asked to, before it answers."""

    def __init__(self, *, closed: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        if not closed:
            self.gate.set()

    def __call__(self, texts):
        self.batches.append(texts)
        self.threads.add(threading.get_ident())
        assert self.gate.wait(300), "nobody opened the gate"
        if "poison" in texts:
            raise ValueError("poison")
        return np.array([[len(text)] for text in texts], np.float32)


def texts(count: int) -> list[str]:
    return ["x" * i for i in range(1, count + 1)]


def test_a_lone_caller_is_answered_in_its_own_thread():
    encode = Lengths()
    assert Coalescer(encode).encode("four") == [4.0]
    assert encode.threads == {threading.get_ident()}


def test_callers_who_come_during_a_computation_share_the_next_batch():
    encode = Lengths(closed=True)
    coalescer = Coalescer(encode)
    with ThreadPoolExecutor(64) as pool:
        first = pool.submit(coalescer.encode, "first")
        until(lambda: encode.batches)
        others = [pool.submit(coalescer.encode, text) for text in texts(63)]
        until(lambda: len(coalescer._waiting) == 63)
        encode.gate.set()
        assert first.result() == [5.0]
        assert [row.result()[0] for row in others] == list(range(1, 64))
    assert [len(batch) for batch in encode.batches] == [1, 63]


async def test_coroutines_of_one_loop_share_batches_and_never_block_it():
    encode = Lengths(closed=True)
    coalescer = Coalescer(encode)
    asking = asyncio.gather(*(coalescer.aencode(text) for text in texts(64)))
    while not encode.batches:
        await asyncio.sleep(0.001)
    encode.gate.set()  # reached only because the loop still runs while the batch is being computed
    assert [row[0] for row in await asking] == list(range(1, 65))
    assert len(encode.batches) <= 2


def test_two_hundred_threads_each_get_their_own_row():
    encode = Lengths()
    coalescer = Coalescer(encode)
    with ThreadPoolExecutor(200) as pool:
        rows = list(pool.map(coalescer.encode, texts(200) * 10))
    assert [row[0] for row in rows] == list(range(1, 201)) * 10


async def test_an_error_reaches_only_the_caller_whose_text_caused_it():
    coalescer = Coalescer(Lengths())
    answers = await asyncio.gather(
        *(coalescer.aencode(text) for text in ["a", "poison", "ccc", "poison", "e"]), return_exceptions=True
    )
    assert [a if isinstance(a, ValueError) else a[0] for a in answers if not isinstance(a, ValueError)] == [1, 3, 1]
    assert [str(a) for a in answers if isinstance(a, ValueError)] == ["poison", "poison"]
    with pytest.raises(ValueError, match="poison"):
        coalescer.encode("poison")
    assert coalescer.encode("fine") == [4.0]


async def test_a_caller_who_gives_up_takes_nobody_along():
    encode = Lengths(closed=True)
    coalescer = Coalescer(encode)
    first = asyncio.ensure_future(coalescer.aencode("first"))
    while not encode.batches:
        await asyncio.sleep(0.001)
    second, third = (asyncio.ensure_future(coalescer.aencode(text)) for text in ("second", "third"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    encode.gate.set()
    assert (await first, await third) == ([5.0], [5.0])
    assert second.cancelled()
    assert encode.batches == [["first"], ["third"]]


async def test_a_crowd_is_served_in_batches_of_bounded_size():
    encode = Lengths()
    coalescer = Coalescer(encode)
    await asyncio.gather(*(coalescer.aencode("x") for _ in range(3 * MAX_BATCH)))
    assert max(map(len, encode.batches)) <= MAX_BATCH
    assert sum(map(len, encode.batches)) == 3 * MAX_BATCH
