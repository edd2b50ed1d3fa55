"""Rules that take the personal text out of queries: for `RetrievalLog(redact=...)` and `RetrievalLog.redact`.

Guarantees: a redacted query can be told from a text, and mining passes over it. Does not know: files.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from qdrant_tools.errors import InputError

MARK = "redacted:"


def dropped(query: str) -> str:
    """Nothing remains of the query."""
    return MARK


def hashed(secret: str) -> Callable[[str], str]:
    """Equal queries stay equal (so they can be counted, and a click model fitted), and cannot be read.

    The hash is keyed: without the secret, a guessed query cannot be checked against the log either.
    """
    if len(secret) < 16:
        raise InputError(f"the secret has {len(secret)} characters, expected at least 16 that nobody can guess")
    key = secret.encode("utf-8")

    def rule(query: str) -> str:
        if is_redacted(query):
            return query
        return MARK + hmac.new(key, query.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    return rule


def is_redacted(query: str) -> bool:
    return query.startswith(MARK)
