"""Click logs of search engines and of sites -> logged searches: `read_clicks`."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
