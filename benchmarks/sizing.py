"""What does a million passages take? So many points of random vectors -> memory and disk, by how vectors are kept.

    python benchmarks/sizing.py [--points 20000] [--dimension 384] [--server URL --server-pid PID --storage FOLDER]

Each setting has a process of its own (a server: its own collection, one at a time): it fills a collection with passages
of 700 characters, builds the graph, closes, opens it again and searches 300 times. "Own" memory is what the system
cannot take back (anonymous), "mapped" what it may drop and read again from the disk; "bare" is the same process with an
empty collection. Random vectors have no clusters: sizes are those of real ones, recall is not measured here. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from mining_memory import Random

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage
from qdrant_tools.search.bm25 import Bm25

SETTINGS = {
    "float32": CollectionSettings(),
    "float32, on disk": CollectionSettings(on_disk=True),
    "float16": CollectionSettings(datatype="float16"),
    "on disk + int8 in memory": CollectionSettings(on_disk=True, quantization=Quantization("int8")),
    "on disk + binary in memory": CollectionSettings(on_disk=True, quantization=Quantization("binary")),
    "float32 + lexical": CollectionSettings(lexical=Bm25()),
}
WORDS = [f"word{i}" for i in range(2000)]
NAME = "sizing"


def passage(i: int) -> Passage:
    text = f"passage {i} " + " ".join(WORDS[(i * 37 + k * k) % len(WORDS)] for k in range(90))
    return Passage(str(i), text[:700])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--server", help="URL of a server that nobody else uses")
    parser.add_argument("--server-pid", type=int)
    parser.add_argument("--storage", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments)))
        return
    rows = {name: in_a_process(arguments, name, arguments.points) for name in SETTINGS}
    rows["bare"] = in_a_process(arguments, "float32", 0)
    print(json.dumps({"arguments": vars(arguments) | {"storage": None}, "machine": platform.platform(), "rows": rows}))


def in_a_process(arguments: argparse.Namespace, name: str, points: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        command = [sys.executable, __file__, "--one", name, "--points", str(points), "--folder", folder]
        command += ["--dimension", str(arguments.dimension)]
        if arguments.server:
            command += ["--server", arguments.server, "--server-pid", str(arguments.server_pid)]
            command += ["--storage", str(arguments.storage)]
        phases = []
        for _ in ("fill", "search"):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            phases.append(json.loads(done.stdout.splitlines()[-1]))
    row = phases[0] | phases[1]
    print(name, points, row, flush=True)
    return row


def one(arguments: argparse.Namespace) -> dict[str, Any]:
    """The first call fills, the second one searches."""
    place = arguments.server or str(arguments.folder / "data")
    encoder = Random(arguments.dimension)
    with closing(connect(place)) as client:
        manager = CollectionManager(client)
        if not client.collection_exists(NAME):
            started = time.perf_counter()
            collection = manager.ensure(NAME, encoder, settings=SETTINGS[arguments.one])
            if arguments.points:
                index_passages(collection, (passage(i) for i in range(arguments.points)), encoder, batch_size=1024)
                build_index(collection)
            return {"seconds": round(time.perf_counter() - started, 1)}
        collection = manager.open(NAME, encoder)
        times = []
        for i in range(300 if arguments.points else 0):
            started = time.perf_counter()
            collection.search(f"passage {i * 7}", k=10)
            times.append(time.perf_counter() - started)
        pid = arguments.server_pid if arguments.server else os.getpid()
        report = memory(pid) | {"disk_mb": disk(arguments.storage if arguments.server else arguments.folder)}
        report["p50_ms"] = round(1000 * sorted(times)[len(times) // 2], 2) if times else None
        if arguments.server:
            client.delete_collection(NAME)
        return report


def memory(pid: int) -> dict[str, float]:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "own_mb": round(int(lines["RssAnon"].split()[0]) / 1024, 1),
        "mapped_mb": round((int(lines["RssFile"].split()[0]) + int(lines["RssShmem"].split()[0])) / 1024, 1),
    }


def disk(folder: Path) -> float:
    """Megabytes that are really taken: files with holes take less than their length."""
    return round(sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file()) / 2**20, 1)


if __name__ == "__main__":
    main()
