"""Changed bytes of every kind of file of rows: each reader gives a result or one short error of ours.

The kinds and their good files are those of `hostile/readers.py`. A file is flipped, cut, repeated, mixed with another
one, or gets a piece in it that readers stumble over.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

from damage.children import TESTS, start
from damage.counts import Counts

CHILD_SECONDS = 300
LONGEST_READING = 5.0
"""Seconds for a file of kilobytes, which takes milliseconds."""
ROOM = 16_000_000
PIECES = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xf0\x9f", b"\r", b"\n", b"\n\n", b'"', b'\\"', b"\\ud800", b"\t", b",", b";"),
    *(
        b"[" * 300,
        b"]",
        b"{",
        b'{"a":' * 70,
        b"}",
        b":",
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-1",
        b"0.5",
    ),
    *(b"9" * 5000, b"9" * 400, b"1_0", "\u0661".encode(), b"x" * 20_000, b'"id"', b'"text": []', b'{"id": 1, "id": 2}'),
    *(b"{key:>800000000}", b'"metadata": 7', b'"weight": "1"', b'"score": true', b'"hits": {}', b'"relevance": [NaN]'),
)


def run(folder: Path, rng: random.Random, files: int) -> Counts:
    """Change files in a child process, whose memory is limited."""
    counts = Counts(cases=1)
    seed = rng.randrange(1 << 30)
    process = start("read_foreign", folder, seed, files, limited=True)
    output, errors = process.communicate(timeout=CHILD_SECONDS)
    if process.returncode:
        counts.failed("died" if process.returncode < 0 else "foreign", f"seed {seed}: {errors[-500:]}")
        return counts
    result = json.loads(output.splitlines()[-1])
    counts.operations, counts.refused = files, result["refused"]
    for kind, message in result["failures"]:
        counts.failed(kind, f"seed {seed}: {message}")
    return counts


def child(folder: str, seed: str, files: str) -> None:
    """Runs in a child process; prints how many were refused, and what went wrong."""
    sys.path.append(str(TESTS / "hostile"))
    from readers import KINDS, refusal_of

    rng = random.Random(int(seed))
    refused, failures = 0, []
    goods = [kind.good.encode() for kind in KINDS.values()]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for number in range(int(files)):
            name = rng.choice(list(KINDS))
            kind = KINDS[name]
            path = Path(place) / str(number) / kind.name
            path.parent.mkdir()
            content = changed(kind.good.encode(), rng.choice(goods), rng)
            path.write_bytes(content)
            started = time.monotonic()
            tracemalloc.start()
            try:
                refused += refusal_of(kind, path) is not None
                if tracemalloc.get_traced_memory()[1] > ROOM + 200 * len(content):
                    failures.append(("silent", f"{name}: too much memory for {content[:300]!r}"))
            except Exception as error:
                failures.append(("foreign", f"{name}: {type(error).__name__} {error!s:.200} for {content[:300]!r}"))
            finally:
                tracemalloc.stop()
            if time.monotonic() - started > LONGEST_READING:
                failures.append(("hung", f"{name}: {content[:300]!r}"))
            path.unlink()
    print(json.dumps({"refused": refused, "failures": failures}))


def changed(good: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four changes of a file's bytes."""
    content = bytearray(good)
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(len(content) + 1)
        match rng.randrange(6):
            case 0 if place < len(content):
                content[place] ^= 1 << rng.randrange(8)
            case 1:
                del content[place : place + rng.randrange(1, 20)]
            case 2:
                content += content[place:]
            case 3:
                content[place:place] = other[rng.randrange(len(other)) :]
            case _:
                content[place:place] = rng.choice(PIECES)
    return bytes(content)
