"""A retrieval log and its collection -> is retrieval still as it was, and would another encoder do better?

`monitor` compares a recent window of the log with a reference window and returns one report. `run_canaries` asks
queries whose answers are known. `estimate_candidate` estimates another encoder from logged clicks.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
