"""The demonstration: the whole loop on real text that is on every machine."""

from __future__ import annotations
