"""The `embed-plus` command: the only place that prints.

Guarantees: an error of the project is one line on stderr and exit code 1 (2 for wrong usage), never a traceback;
results go to stdout, progress and notes to stderr, so that output can be piped.
"""

from __future__ import annotations

from llama_index_embed_plus.cli.app import main

__all__ = ["main"]
