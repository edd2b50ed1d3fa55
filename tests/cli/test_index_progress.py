"""What `embed-plus index` says while it works: how much, how fast, and how long yet."""

from __future__ import annotations

from llama_index_embed_plus.cli.documents.job import _progress


def test_the_time_that_is_left_follows_from_the_share_that_was_read():
    assert _progress(1280, 60.0, 0.25) == "1,280 passages, 21/s, 25% of the files, 3:00 left"
    assert _progress(10, 1.0, 0.0) == _progress(10, 1.0, 1.0) == "10 passages, 10/s"
