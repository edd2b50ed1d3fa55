"""Logged behaviour -> labels, by rules that know how clicks mislead.

`rules` look at one search at a time; `click_model` looks at all of them, to learn how likely each rank is looked at.
"""

from __future__ import annotations

from qdrant_tools.debias.click_model import ClickModel, fit_click_model, inverse_propensity
from qdrant_tools.debias.rules import (
    aggregate,
    click_over_no_click_next,
    click_over_skip_above,
    clicked_as_positive,
    clicks,
    last_click_over_skip_above,
    long_dwell_as_positive,
    query_key,
    rated,
    shown,
    unclicked_as_negative,
)

__all__ = [
    "ClickModel",
    "aggregate",
    "click_over_no_click_next",
    "click_over_skip_above",
    "clicked_as_positive",
    "clicks",
    "fit_click_model",
    "inverse_propensity",
    "last_click_over_skip_above",
    "long_dwell_as_positive",
    "query_key",
    "rated",
    "shown",
    "unclicked_as_negative",
]
