"""The child processes of the harness: run as `python -m damage.children TASK ...`, and started from here.

`write` applies operations and prints the number of each one when its call has returned. `read` takes folders from its
input, opens each, and prints what it holds as one line of JSON. `fill` fills a small disk (`disk.py`), `call` makes
hostile calls (`calls.py`), `read_foreign` reads changed files of rows (`foreign.py`).
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
READ_SECONDS = 90
READ_BYTES = 6 << 30  # memory of a reading child: undamaged files need a tenth of it


def start(task: str, *arguments: object, limited: bool = False) -> subprocess.Popen[str]:
    """Start a child of the harness with its output piped."""
    path = os.pathsep.join([*filter(None, sys.path), str(TESTS.parent), str(TESTS)])
    return subprocess.Popen(
        [sys.executable, "-m", "damage.children", task, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        preexec_fn=_limit if limited else None,
    )


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (READ_BYTES, READ_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@dataclass(frozen=True)
class Reading:
    """What a reading child answered: the state of the folder, or how the child ended."""

    state: dict[str, Any] | None
    error: str = ""
    kind: str = ""
    """'' if it was read; else 'refused' (an error of the project), 'foreign', 'died' or 'hung'."""


class Reader:
    """A child process that opens folders and reads all of them, one after another; started again when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def read(self, folder: Path) -> Reading:
        """Open a folder in the child and read all of it."""
        process = self._process = self._process or start("read", limited=True)
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], READ_SECONDS)[0]:
            self.close()
            return Reading(None, f"no answer in {READ_SECONDS} s", "hung")
        if answer := process.stdout.readline():
            return Reading(**json.loads(answer))
        process.wait()
        ended = f"{_name_of(process.returncode)} {process.stderr.read()[-600:]}"
        self.close()
        return Reading(None, ended, "died" if process.returncode < 0 else "foreign")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _name_of(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def read(folder: Path) -> Reading:
    """Open a folder in a child process of its own and read all of it."""
    with Reader() as reader:
        return reader.read(folder)


def _read_everything(folder: str) -> dict[str, Any]:
    from damage.state import aliases_of, collection_state
    from qdrant_tools import connect
    from qdrant_tools.errors import PlusError

    state: dict[str, Any] = {"collections": {}, "refused": {}, "aliases": {}}
    try:
        client = connect(folder, create=False)
    except PlusError as error:
        return {"state": None, "error": f"{type(error).__name__}: {error}", "kind": "refused"}
    try:
        for collection in client.get_collections().collections:
            name = collection.name
            try:
                state["collections"][name] = collection_state(client, name)
                search(client, name)
            except PlusError as error:
                state["collections"].pop(name, None)
                state["refused"][name] = f"{type(error).__name__}: {error}"
        state["aliases"] = aliases_of(client)
    finally:
        client.close()
    return {"state": state}


def _read_on_request() -> None:
    for line in sys.stdin:
        try:
            answer = _read_everything(line.rstrip("\n"))
        except BaseException as error:  # only errors of the project may leave the client
            answer = {"state": None, "error": "".join(traceback.format_exception(error))[-1500:], "kind": "foreign"}
        print(json.dumps(answer), flush=True)


def search(client: Any, name: str) -> None:
    """Search by index and exactly, with and without a filter: damage in an index shows here."""
    from qdrant_client import models

    size = client.get_collection(name).config.params.vectors.size
    for exact in (True, False):
        for condition in (None, models.Filter(must=[models.FieldCondition(key="i", range=models.Range(gte=100))])):
            params = models.SearchParams(exact=exact)
            client.query_points(name, [1.0] * size, query_filter=condition, search_params=params, limit=50)


def _write(folder: str, seed: str, first: str) -> None:
    from damage.operations import apply
    from qdrant_tools import connect

    client = connect(folder, create=False)
    print("open", flush=True)
    for number in range(int(first), 1 << 30):
        apply(client, int(seed), number)
        print(number, flush=True)


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    if task == "read":
        _read_on_request()
    elif task == "write":
        _write(*arguments)
    elif task == "call":
        from damage import calls

        calls.child(*arguments)
    elif task == "read_foreign":
        from damage import foreign

        foreign.child(*arguments)
    else:
        from damage import disk

        disk.child(*arguments)
