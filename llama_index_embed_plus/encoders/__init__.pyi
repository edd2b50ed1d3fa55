from .adapter import AdaptedEncoder, QueryAdapter
from .cross_encoder import cross_encoder_judge
from .late import LateEncoder, with_late_chunking
from .open import BackendName, Identity, ModelDescription, describe, identify, open_encoder
from .text_encoder import Runtime, TextEncoder

__all__ = [
    "AdaptedEncoder",
    "BackendName",
    "LateEncoder",
    "ModelDescription",
    "Identity",
    "QueryAdapter",
    "Runtime",
    "TextEncoder",
    "cross_encoder_judge",
    "describe",
    "identify",
    "open_encoder",
    "with_late_chunking",
]
