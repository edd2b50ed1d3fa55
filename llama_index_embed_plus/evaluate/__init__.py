"""Measuring: is one system better than another on queries that neither was trained on?"""

from __future__ import annotations
