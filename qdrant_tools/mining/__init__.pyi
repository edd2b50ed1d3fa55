from .calibration import Calibration, calibrate
from .false_negatives import Audit, audit, false_negative_rate, write_sheet
from .file import mine_to_jsonl, read_examples, read_stats
from .miner import Miner, MiningResult, MiningStats, mine, positives_by_query
from .rules import Judge, MiningSettings

__all__ = [
    "Audit",
    "Calibration",
    "Judge",
    "Miner",
    "MiningResult",
    "MiningSettings",
    "MiningStats",
    "audit",
    "calibrate",
    "mine",
    "mine_to_jsonl",
    "positives_by_query",
    "false_negative_rate",
    "read_examples",
    "read_stats",
    "write_sheet",
]
