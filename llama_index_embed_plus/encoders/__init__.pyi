from .adapter import AdaptedEncoder, QueryAdapter
from .open import BackendName, Description, Identity, describe, identify, open_encoder
from .text_encoder import Runtime, TextEncoder
from .torch_encoder import cross_encoder_judge

__all__ = [
    "AdaptedEncoder",
    "BackendName",
    "Description",
    "Identity",
    "QueryAdapter",
    "Runtime",
    "TextEncoder",
    "cross_encoder_judge",
    "describe",
    "identify",
    "open_encoder",
]
