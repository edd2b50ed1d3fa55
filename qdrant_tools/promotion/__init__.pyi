from .bridge import Bridge, BridgedEncoder, BridgeReport, draw_sample, fit_bridge, measure_bridge
from .plan import PromotionPlan
from .promotion import BuildReport, Promotion
from .switch import cleanup, rollback
from .sync import SyncReport
from .verify import Gates, Verification, verify_copy

__all__ = [
    "Bridge",
    "BridgeReport",
    "BridgedEncoder",
    "BuildReport",
    "Gates",
    "Promotion",
    "PromotionPlan",
    "SyncReport",
    "Verification",
    "cleanup",
    "draw_sample",
    "fit_bridge",
    "measure_bridge",
    "rollback",
    "verify_copy",
]
