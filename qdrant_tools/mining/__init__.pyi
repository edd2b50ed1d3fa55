from .file import mine_to_jsonl, read_examples
from .miner import Miner, MiningResult, Tally, mine, positives_by_query
from .quality import Audit, audit, calibrate, rate_of, write_sheet
from .rules import Judge, MiningSettings

__all__ = [
    "Audit",
    "Judge",
    "Miner",
    "MiningResult",
    "MiningSettings",
    "Tally",
    "audit",
    "calibrate",
    "mine",
    "mine_to_jsonl",
    "positives_by_query",
    "rate_of",
    "read_examples",
    "write_sheet",
]
