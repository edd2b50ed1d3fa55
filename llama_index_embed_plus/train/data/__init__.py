"""Training data: files and records in, the columns that a loss reads out."""

from __future__ import annotations

from llama_index_embed_plus.train.data.columns import ColumnSettings, Teacher, column_role, datasets_for, distil
from llama_index_embed_plus.train.data.reading import read_training_data
from llama_index_embed_plus.train.data.records import Distilled, Kind, LabelledText, ScoredPair, TrainingData

__all__ = [
    "ColumnSettings",
    "Distilled",
    "Kind",
    "LabelledText",
    "ScoredPair",
    "Teacher",
    "TrainingData",
    "column_role",
    "datasets_for",
    "distil",
    "read_training_data",
]
