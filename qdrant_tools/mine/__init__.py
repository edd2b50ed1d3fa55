"""Labels and a collection -> training examples with hard negatives, and what those are worth.

`mine` gives them at once, `file` writes them as it goes and can be resumed, `calibrate` picks how careful to be, and
`audit` says how many of the negatives are answers after all.
"""

from __future__ import annotations

from qdrant_tools.mine.miner import Miner, MiningResult, mine, positives_by_query
from qdrant_tools.mine.settings import Judge, MiningSettings
from qdrant_tools.mine.tally import Tally

__all__ = ["Judge", "Miner", "MiningResult", "MiningSettings", "Tally", "mine", "positives_by_query"]
