"""Losses by name: what each computes, what it may be told, and the module that the trainer calls.

The losses are sentence-transformers'. Ours are NT-Xent, and the weights per row of the ranking losses, which carry the
certainty of a click model into training.
"""

from __future__ import annotations

from llama_index_embed_plus.train.losses.build import build_loss
from llama_index_embed_plus.train.losses.facts import LOSSES, LossFacts, Shape
from llama_index_embed_plus.train.losses.options import LossOptions, facts_of

__all__ = ["LOSSES", "LossFacts", "LossOptions", "Shape", "build_loss", "facts_of"]
