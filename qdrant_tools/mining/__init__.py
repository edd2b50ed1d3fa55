"""Labels and a collection -> training examples with hard negatives, and what those are worth.

`mine` gives them at once, `mine_to_jsonl` writes them as it goes and can be resumed, `calibrate` picks how careful to
be, and `audit` says how many of the negatives are answers after all.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
