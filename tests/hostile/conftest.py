"""Folders with something of the user's beside them that must not change, and a command that is to be refused."""

from __future__ import annotations

import pytest
from bounds import Outside, Refusals


@pytest.fixture
def outside(tmp_path):
    """A folder with the user's files; the test fails if anything in it was written, deleted, linked or renamed."""
    outside = Outside.made(tmp_path / "outside")
    yield outside
    outside.require_unchanged()


@pytest.fixture
def refused(tmp_path):
    """Run `embed-plus ARGS` in a process of its own and require one line that refuses; returns that line."""
    return Refusals(tmp_path)
