"""Collections that know which encoder filled them: made, opened, adopted, described, copied, kept as snapshots."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
