"""A new encoder takes over what an alias serves, without a moment in which nothing serves.

`Promotion` plans, builds, verifies and switches; `rollback` goes back, `cleanup` drops what does not serve any more.
`measure_bridge` says what the new encoder's queries would find among the old vectors meanwhile.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
