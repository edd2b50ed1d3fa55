"""Labels and a collection -> training examples with hard negatives, and what those are worth.

`mine` returns them, `mine_to_jsonl` writes them to a file and can be resumed. `calibrate` picks the limit between
answers and negatives, and `audit` says how many negatives are answers after all.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
