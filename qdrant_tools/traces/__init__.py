"""Traces of RAG applications, as tracing tools export them -> logged searches.

`read_traces` reads the files, `TraceSettings` says how, and a `TraceReport` says what became of them.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
