from .bridge import BridgedEncoder, draw_sample, measure_drift
from .plan import PromotionPlan
from .promotion import Promotion
from .switch import cleanup, rollback
from .verify import Gates, Verification, verify_copy

__all__ = [
    "BridgedEncoder",
    "Gates",
    "Promotion",
    "PromotionPlan",
    "Verification",
    "cleanup",
    "draw_sample",
    "measure_drift",
    "rollback",
    "verify_copy",
]
