"""Measuring: is one system better than another on queries that neither was trained on?

Retrieval metrics with intervals, the tasks of the field by mteb's definitions (`tasks`), and pictures (`plots`).
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
