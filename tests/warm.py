"""Python in a process of its own that need not import its libraries first: a fork of one that already has.

`run` and `Popen` are those of `subprocess`, for commands that begin with `sys.executable`. One process per session
imports what `embed-plus` needs, and forks a child for every command: the child has its own memory, streams, folder,
environment and signals, can be killed, and ends as Python ends.

What is decided when Python starts or a library is imported cannot be given to a fork: for other options of Python and
other values of the variables SET_AT_START a process is started as `subprocess` does. Tests of what is imported, of
what is missing and of limits of memory use `subprocess` itself.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import types
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

IMPORTED = ("pytest", "llama_index_embed_plus.cli", "qdrant_tools.edge.client")
SET_AT_START = ("PYTHON", "LC_", "LANG", "HF_", "HUGGING", "TRANSFORMERS", "TOKENIZERS", "OMP_", "TORCH")


class Popen(subprocess.Popen):
    """A process of Python, started as a fork where that is the same."""

    def __init__(self, command: list[str], **options: Any) -> None:
        own = {"stdin", "stdout", "stderr", "text", "errors", "encoding", "cwd", "env", "bufsize"}
        self._nursery = None
        if set(options) <= own and _is_plain(command) and hasattr(os, "fork"):
            nursery = _nursery()
            if nursery.fits(options.get("env")):
                self._nursery = nursery
        super().__init__(command, **options)

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest) -> None:
        if self._nursery is None:
            return super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)
        pipes = rest[3:9]  # after startupinfo, creationflags and shell: stdin, stdout, stderr, of child and parent
        given = [own if own != -1 else number for number, own in enumerate((pipes[0], pipes[3], pipes[5]))]
        environment = {name: str(value) for name, value in (os.environ if env is None else env).items()}
        self._status, self.pid = self._nursery.fork(args[1:], os.path.abspath(cwd or "."), environment, given)
        self._child_created = True
        return self._close_pipe_fds(*pipes)

    def _internal_poll(self, *arguments: Any, **options: Any) -> int | None:
        if self._nursery is None:
            return super()._internal_poll(*arguments, **options)
        if self.returncode is None:
            self._try_wait(os.WNOHANG)
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._nursery is None:
            return super()._try_wait(flags)
        if self.returncode is None:
            with suppress(BlockingIOError):
                self._status.setblocking(not flags & os.WNOHANG)
                self.returncode = int(self._status.recv(16) or b"-9")
                self._status.close()
        return (0 if self.returncode is None else self.pid), 0

    def _handle_exitstatus(self, status: int, *arguments: Any, **options: Any) -> None:
        if self._nursery is None:
            super()._handle_exitstatus(status, *arguments, **options)


def run(command: list[str], *, input=None, capture_output=False, timeout=None, check=False, **options: Any):
    """`subprocess.run` of a command that begins with `sys.executable`."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def _is_plain(command: list[str]) -> bool:
    """Whether this is Python with a text or a module to run, and no option that is more than a report."""
    words = list(map(str, command))
    if words[0] != sys.executable:
        return False
    if words[1:3] == ["-X", "faulthandler"]:
        del words[1:3]
    return len(words) > 2 and words[1] in ("-c", "-m")


@dataclass(frozen=True)
class _Nursery:
    """The process that has imported, from outside."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    environment: dict[str, str]
    lock: threading.Lock

    def fits(self, environment: dict[str, str] | None) -> bool:
        return (
            environment is None
            and _set_at_start(os.environ) == self.environment
            or (environment is not None and _set_at_start(environment) == self.environment)
        )

    def fork(self, words, folder, environment, streams) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps([list(map(os.fspath, words)), folder, environment]).encode()
        with theirs, self.lock:
            socket.send_fds(self.control, [len(request).to_bytes(8, "big")], [theirs.fileno(), *streams])
            self.control.sendall(request)
        pid = ours.recv(16)
        assert pid, "the process that imports what tests need has ended: its error stands above"
        return ours, int(pid)


def _set_at_start(environment) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(SET_AT_START)}


@cache
def _nursery() -> _Nursery:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(process.wait)
    atexit.register(ours.close)  # before it: the nursery ends when nobody can ask any more
    return _Nursery(process, ours, _set_at_start(os.environ), threading.Lock())


def _serve(control: socket.socket) -> Any:
    """Fork for every request until the other side has gone (None). Returns in each child, with what it is to run."""
    children: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == woken:
                with suppress(BlockingIOError):
                    os.read(woken, 1000)
                _reap(children)
                continue
            head, streams, *_ = socket.recv_fds(control, 8, 4)
            if not head:
                return None
            size, request = int.from_bytes(head, "big"), b""
            while len(request) < size:
                request += control.recv(size - len(request))
            status = socket.socket(fileno=streams[0])
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                selector.close()
                for end in (woken, wake):
                    os.close(end)
                for own in (control, status, *children.values()):
                    own.close()
                for number, stream in enumerate(streams[1:]):
                    os.dup2(stream, number)
                    os.close(stream)
                return json.loads(request)
            for stream in streams[1:]:
                os.close(stream)
            children[child] = status
            status.send(str(child).encode())


def _reap(children: dict[int, socket.socket]) -> None:
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with children.pop(child) as whoever_waits, suppress(OSError):
            whoever_waits.send(str(os.waitstatus_to_exitcode(status)).encode())


def _import() -> None:
    """Import modules, and those of all commands but `models`: a fork has no thread of onnxruntime, which starts one."""
    for name in IMPORTED:
        importlib.import_module(name)
    commands = importlib.import_module("llama_index_embed_plus.cli.app").COMMANDS
    for module in sorted({module for module, _ in commands.values()} - {"models"}):
        importlib.import_module(f"llama_index_embed_plus.cli.{module}")


def _become(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run what the command line says, as Python's own start does."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # those of the nursery believe that they are its null device, where one can seek
    sys.stdin, sys.stdout, sys.stderr = _streams()
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    if words[0] == "-X":
        faulthandler.enable()
        words = words[2:]
    option, what, *arguments = words
    sys.argv = [option, *arguments]
    if option == "-m":
        sys.path[0] = folder
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    sys.path[0] = ""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(what, "<string>", "exec"), main.__dict__)


def _streams() -> list[io.TextIOWrapper]:
    """stdin, stdout and stderr, buffered as Python's own."""
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    return [
        io.TextIOWrapper(
            open(number, "wb" if number else "rb", 0 if at_once and number else -1, closefd=False),
            encoding=old.encoding,
            errors=old.errors,
            line_buffering=number == 2,
            write_through=at_once and number > 0,
        )
        for number, old in enumerate((sys.stdin, sys.stdout, sys.stderr))
    ]


if __name__ == "__main__":
    _import()
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        _become(*request)
