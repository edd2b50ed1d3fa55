"""What users did -> labels: by rules that know how clicks mislead, and how little a thumb on an answer says.

`click_rules.py` has the rules for clicks, ratings and visits, `answer_rules.py` those for answers of applications that
retrieve and then write, and `answer_labels.py` weighs what these say. No rule for answers takes silence or a thumb down
for a vote against a passage.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
