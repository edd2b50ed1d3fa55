from .adapter.run import AdapterReport, fit_adapter
from .data.augmentation import CropWords, DeleteWords, QueryAugmentation
from .data.columns import ColumnSettings, datasets_for
from .data.reading import read_training_data
from .data.records import TrainingData
from .data.splits import (
    Asked,
    SplitSettings,
    check_leak,
    find_leaks,
    fold_queries,
    split_queries,
    without_leaked_queries,
    without_leaks,
)
from .data.unsupervised import NoiseSettings
from .improvement.report import ImproveReport
from .improvement.run import improve
from .improvement.settings import ImproveSettings
from .losses.build import build_loss
from .losses.catalogue import LOSSES, LossOptions
from .merge import choose_coefficient, interpolate, interpolated, scale_adapter
from .proof.crossfit import CrossFitted, cross_fit
from .proof.forgetting import SimilaritySet
from .proof.model_card import record_proof
from .proof.plots import training_plot
from .proof.proof import Proof, ProofSettings, prove
from .proof.report import TrainReport, read_report
from .recipe import Recipe, StagePlan, read_recipe
from .run import Evidence, planned_steps, train
from .settings import AdapterSettings, LoraSettings, Projection, TrainSettings
from .stages import run_recipe
from .synthesis.generate import GenerationSettings
from .synthesis.records import SynthesisReport, SynthesisResult, SynthesisSettings
from .synthesis.run import synthesize, write_synthesis

__all__ = [
    "AdapterReport",
    "AdapterSettings",
    "Asked",
    "ColumnSettings",
    "CropWords",
    "CrossFitted",
    "DeleteWords",
    "Evidence",
    "GenerationSettings",
    "ImproveReport",
    "ImproveSettings",
    "LOSSES",
    "LoraSettings",
    "LossOptions",
    "NoiseSettings",
    "Projection",
    "Proof",
    "ProofSettings",
    "QueryAugmentation",
    "Recipe",
    "SimilaritySet",
    "SplitSettings",
    "StagePlan",
    "SynthesisReport",
    "SynthesisResult",
    "SynthesisSettings",
    "TrainReport",
    "TrainSettings",
    "TrainingData",
    "build_loss",
    "check_leak",
    "choose_coefficient",
    "cross_fit",
    "datasets_for",
    "find_leaks",
    "fit_adapter",
    "fold_queries",
    "improve",
    "interpolate",
    "interpolated",
    "planned_steps",
    "prove",
    "read_recipe",
    "read_report",
    "read_training_data",
    "record_proof",
    "run_recipe",
    "scale_adapter",
    "split_queries",
    "synthesize",
    "train",
    "training_plot",
    "without_leaked_queries",
    "without_leaks",
    "write_synthesis",
]
