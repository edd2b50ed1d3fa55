"""What does not survive `os.fork` -> made anew in the child: locks, threads, connections, open databases.

A forked child has one thread. A lock that another thread held stays locked in it for ever, a pool of threads has none,
and a socket belongs to two processes. Whoever keeps one of these says here how it is made anew, and the child does so
before it runs anything else. A database must not even be open when a process is forked: it is released before, and
opened again by whoever needs it. What must not be cut in two, such as opening a model, runs in `undivided`: a fork by
another thread waits for it. It must not itself wait for other threads, such as those that the caller of a block has.

Guarantees: nothing of this costs a process that never forks more than a lock; `subprocess` and processes that are
started with 'spawn' or 'forkserver' are no forks in this sense, and wait for nothing. Does not know: what is made anew.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["abandon", "end_without_destructors", "renew_in_children", "undivided"]

Owner = TypeVar("Owner")

logger = logging.getLogger(__name__)

LONGEST_WAIT = 30.0
"""Seconds that a fork waits for what is undivided. After that it warns and goes on, as it would without this module."""

_owners: dict[int, tuple[weakref.ref[Any], Callable[[Any], None], Callable[[Any], None] | None]] = {}


def renew_in_children(
    owner: Owner, renew: Callable[[Owner], None], release: Callable[[Owner], None] | None = None
) -> None:
    """While the owner lives, call `renew(owner)` in every forked child, and `release(owner)` before the fork.

    The earliest owner comes first. Neither may raise, or wait for a lock.
    """

    def forget(_: object) -> None:
        _owners.pop(key, None)

    # by the identity of the reference: an owner may not be hashable
    reference = weakref.ref(owner, forget)
    key = id(reference)
    _owners[key] = reference, renew, release


def abandon(*things: object) -> None:
    """Never destroy these, not even when the process ends: they are the parent's, and closing them could harm it."""
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def end_without_destructors() -> None:
    """In a forked child: leave out what the libraries of C++ do at the end of a process, after Python's own end.

    onnxruntime would wait there for the threads of the parent, for ever. Only where the C library is glibc.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):
        # the last one registered runs first, and is given the exit status
        library.on_exit(library._exit, None)


class _Gate:
    """Lets blocks run beside each other, and a fork alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside: dict[int, int] = {}
        self._forks = 0

    @contextmanager
    def block(self) -> Iterator[None]:
        own = threading.get_ident()
        with self._changed:
            # who is inside already must be able to go on, or the fork would wait for ever
            while self._forks and own not in self._inside:
                self._changed.wait()
            self._inside[own] = self._inside.get(own, 0) + 1
        try:
            yield
        finally:
            self._leave(own)

    def _leave(self, own: int) -> None:
        with self._changed:
            left = self._inside.get(own, 1) - 1
            if left:
                self._inside[own] = left
            else:
                self._inside.pop(own, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until no other thread is inside, and let none in."""
        own = threading.get_ident()
        with self._changed:
            self._forks += 1
            if self._changed.wait_for(lambda: not self._inside.keys() - {own}, LONGEST_WAIT):
                return
        logger.warning("a fork has waited %.0f s for another thread, and goes on: its child may hang", LONGEST_WAIT)

    def open(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def reset(self) -> None:
        """In the child, whose only thread may be inside."""
        own = threading.get_ident()
        self._changed = threading.Condition(threading.Lock())
        self._inside = {own: self._inside[own]} if own in self._inside else {}
        self._forks = 0


_gate = _Gate()
undivided = _gate.block
"""`with undivided():` a block that no fork by another thread cuts in two."""


def _before() -> None:
    _gate.close()
    for reference, _, release in list(_owners.values()):
        owner = reference()
        if owner is not None and release is not None:
            release(owner)


def _in_child() -> None:
    _gate.reset()
    for reference, renew, _ in list(_owners.values()):
        owner = reference()
        if owner is not None:
            renew(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_gate.open, after_in_child=_in_child)
