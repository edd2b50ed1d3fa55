"""A forked child speaks to the server on connections of its own: on a shared one it would get its parent's answers."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from programs import PATIENCE, forked
from qdrant_client import QdrantClient

from qdrant_tools.client import forks
from qdrant_tools.client.connect import aconnect, connect
from qdrant_tools.client.forks import renew_in_children, undivided
from qdrant_tools.client.gateway import Gateway

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


class Server(BaseHTTPRequestHandler):
    """Keeps connections open, and remembers the port of each request's other end."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.ports.append(self.client_address[1])
        content = json.dumps({"result": {"collections": [], "exists": True}, "status": "ok", "time": 0}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    # not 127.0.0.1, for which qdrant-client keeps no connection
    server = ThreadingHTTPServer(("127.0.0.2", 0), Server)
    server.daemon_threads, server.ports = True, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask_twice(ask):
    ask()
    ask()


@pytest.mark.parametrize("made", ["by connect", "by others"])
def test_a_child_has_a_connection_of_its_own_and_its_parent_keeps_the_first(server, made):
    url = f"http://127.0.0.2:{server.server_port}"
    client = connect(url) if made == "by connect" else QdrantClient(url, check_compatibility=False)
    gateway = Gateway(client, "docs")
    server.ports.clear()
    gateway.exists()
    gateway.exists()
    forked(lambda: ask_twice(gateway.exists))
    gateway.exists()
    first, second, third, fourth, last = server.ports
    assert first == second == last != third == fourth
    client.close()


def test_a_child_of_an_asynchronous_client_has_a_connection_of_its_own(server):
    client = aconnect(f"http://127.0.0.2:{server.server_port}")

    def ask():
        async def both():
            await client.collection_exists("docs")
            await client.collection_exists("docs")
            await client.close()

        asyncio.run(both())

    server.ports.clear()

    async def in_both():
        await client.collection_exists("docs")
        await client.collection_exists("docs")
        await asyncio.to_thread(forked, ask)
        await client.collection_exists("docs")
        await client.close()

    asyncio.run(in_both())
    first, second, third, fourth, last = server.ports
    assert first == second == last != third == fourth


def test_a_fork_waits_for_what_is_undivided_and_for_nothing_of_its_own():
    inside, done = threading.Event(), threading.Event()
    ended = []

    def work():
        with undivided():
            inside.set()
            done.wait(PATIENCE)
            ended.append("the block")

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(PATIENCE)
    threading.Timer(0.2, done.set).start()
    forked(lambda: ended == ["the block"] or os._exit(3))
    thread.join()
    with undivided(), undivided():
        forked(lambda: undivided().__enter__())  # the forking thread is inside itself
    forked(lambda: undivided().__enter__())


def nothing():
    """What a process of its own does."""


@pytest.mark.parametrize("method", ["subprocess", "spawn", "forkserver"])
def test_processes_that_are_no_forks_wait_for_nothing(method):
    inside, started = threading.Event(), threading.Event()
    waited = []

    def work():
        with undivided():
            inside.set()
            waited.append(started.wait(PATIENCE))

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(PATIENCE)
    if method == "subprocess":
        subprocess.run([sys.executable, "-c", ""], check=True)
    else:
        process = multiprocessing.get_context(method).Process(target=nothing)
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == 0
    started.set()
    thread.join()
    assert waited == [True]


def test_a_fork_that_has_waited_too_long_says_so_and_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.05)
    inside, is_forked = threading.Event(), threading.Event()

    def work():
        with undivided():
            inside.set()
            is_forked.wait(PATIENCE)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(PATIENCE)
    forked(nothing)
    is_forked.set()
    thread.join()
    assert "a fork has waited" in caplog.text


class Owner:
    def __init__(self):
        self.renewed = self.released = 0
        renew_in_children(self, Owner.renew, Owner.release)

    def release(self):
        self.released += 1

    __hash__ = None

    def renew(self):
        self.renewed += 1


def test_owners_are_renewed_in_children_alone_and_forgotten_with_their_last_reference():
    owners = [Owner()]
    known = len(forks._owners)
    forked(lambda: (owners[0].released, owners[0].renewed) == (1, 1) or os._exit(3))
    assert (owners[0].released, owners[0].renewed) == (1, 0)
    owners.clear()
    assert len(forks._owners) == known - 1
