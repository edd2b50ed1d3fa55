"""What tests read from the output of `embed-plus`; the fixture `run` of `conftest` runs it."""

from __future__ import annotations


def error_line(stderr: str) -> str:
    """The one line on stderr that says what is wrong; lines on finished steps may stand before it."""
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("done ")]
    assert len(lines) == 1, f"expected one line, got: {stderr}"
    assert lines[0].startswith("error: ")
    return lines[0]
