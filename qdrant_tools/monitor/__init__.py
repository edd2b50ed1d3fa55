"""A retrieval log and its collection -> is retrieval still as it was, and would another encoder do better?

`signals` compares a reference and the present, `counterfactual` estimates another encoder from logged clicks, `canary`
asks queries whose answers are known, `report` puts all of it on one page.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
