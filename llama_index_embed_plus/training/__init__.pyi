from .adapter import AdapterReport, fit_adapter
from .adapter_data import AdapterSettings
from .data.augmentation import CropWords, DeleteWords, QueryAugmentation
from .data.columns import ColumnSettings, datasets_for
from .data.reading import read_training_data
from .data.records import TrainingData
from .data.splits import SplitSettings, check_leak, find_leaks, split_queries
from .data.unsupervised import NoiseSettings
from .losses.build import build_loss
from .losses.catalogue import LOSSES, LossOptions
from .merge import choose_coefficient, interpolate, scale_adapter
from .proof.proof import Proof, ProofSettings, prove
from .proof.report import TrainReport, read_report
from .recipe import Recipe, StagePlan, read_recipe
from .run import Evidence, planned_steps, train
from .settings import LoraSettings, Projection, TrainSettings
from .stages import run_recipe

__all__ = [
    "AdapterReport",
    "AdapterSettings",
    "ColumnSettings",
    "CropWords",
    "DeleteWords",
    "Evidence",
    "LOSSES",
    "LoraSettings",
    "LossOptions",
    "NoiseSettings",
    "Projection",
    "Proof",
    "ProofSettings",
    "QueryAugmentation",
    "Recipe",
    "SplitSettings",
    "StagePlan",
    "TrainReport",
    "TrainSettings",
    "TrainingData",
    "build_loss",
    "check_leak",
    "choose_coefficient",
    "datasets_for",
    "find_leaks",
    "fit_adapter",
    "interpolate",
    "planned_steps",
    "prove",
    "read_recipe",
    "read_report",
    "read_training_data",
    "run_recipe",
    "scale_adapter",
    "split_queries",
    "train",
]
