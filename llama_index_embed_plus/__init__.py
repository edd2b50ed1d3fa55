"""LlamaIndex embeddings over trainable pooled encoders, and the tools that train, export and prove them.

What most programs need is here; the rest is in the namespaces, each with its own `__all__`: `training`, `evaluate`,
`export`, `serving`, `integrations`, `encoders`, `models`, `demo`, `errors`. Names are loaded when they are first used:
importing the package costs nothing and pulls in no torch.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
