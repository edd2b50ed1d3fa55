"""How to train, as frozen values that are checked when they are made and written beside what they made.

Guarantees: a value that cannot be honoured whatever the data and the device is UsageError here, before anything is
loaded. Does not know: models, data, devices.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from llama_index_embed_plus.models.pooling import ACTIVATIONS, POOLING_MODES
from llama_index_embed_plus.training.data.splits import SAME
from llama_index_embed_plus.training.limits import LARGEST_SEED, check_number, check_whole, is_number
from llama_index_embed_plus.training.losses.catalogue import loss_spec
from llama_index_embed_plus.training.proof.proof import ProofSettings
from qdrant_tools.errors import UsageError

Method = Literal["full", "lora", "adapter"]
Precision = Literal["float32", "bfloat16", "float16"]
Schedule = Literal["linear", "cosine", "constant", "constant_with_warmup"]
AdapterLossName = Literal["list", "each"]
AdapterCandidate = Literal["whitened", "pseudo", "list", "each"]
ADAPTER_LOSSES: tuple[AdapterLossName, ...] = ("list", "each")
CANDIDATES: tuple[AdapterCandidate, ...] = ("whitened", "pseudo", *ADAPTER_LOSSES)
MOST_ROWS = 1_000_000_000
MOST_WIDE = 65_536
_MOST_NAMES = 1000
_MOST_FOLDS = 20
_MOST_STEPS = 10_000


@dataclass(frozen=True)
class AdapterSettings:
    """How to fit a query adapter, see `training.adapter.fit`.

    candidates: which maps are tried beside the identity, each on top of the one before: `whitened` by the stored
        vectors, fitted on pseudo-queries of their texts (`pseudo`), fitted on the examples by either loss (`list`,
        `each`).
    temperature: divides cosines in the losses; learning_rate: of a step.
    steps: after how many the maps are candidates; pseudo_steps: of the one on pseudo-queries.
    pseudo_queries: how many are made. spared: so many passages that no example names, at most a third of all, are not
        used for them, so that a proof that is made later finds its known items there; one that is made with the fit
        says which it asks for.
    whitening, whitening_floor: its strength, and what is added to the variances, in their mean.
    negatives: the most candidate passages of one fit, positives and negatives; positives always are.
    max_stored_vectors: how many are held in memory, to search and to draw from; of a larger collection what examples
        name, what the index finds for the queries, and others at random.
    same_passage_similarity: a stored vector with at least this cosine to a known positive is not taken as a negative.
    seed: of what is drawn; in a run of `train`, 0 is the seed of the run.
    folds: each query is judged by a map that was fitted without its part of the queries.
    answers_apart: whether queries that share an answer give each other away, so that no fit sees the answers of the
        queries that it is judged by; False where every passage answers many questions.
    """

    candidates: tuple[AdapterCandidate, ...] = CANDIDATES
    temperature: float = 0.05
    learning_rate: float = 0.3
    steps: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    whitening: float = 0.19
    whitening_floor: float = 0.3
    pseudo_queries: int = 1400
    pseudo_steps: int = 16
    spared: int = 700
    negatives: int = 2500
    max_stored_vectors: int = 100_000
    same_passage_similarity: float = 0.95
    folds: int = 5
    answers_apart: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if set(self.candidates) - set(CANDIDATES):
            raise UsageError(f"candidates are {self.candidates!r}, expected some of {', '.join(CANDIDATES)}")
        for name in ("pseudo_queries", "negatives", "max_stored_vectors"):
            check_whole(name, getattr(self, name), most=MOST_ROWS)
        check_whole("spared", self.spared, least=0, most=MOST_ROWS)
        check_whole("pseudo_steps", self.pseudo_steps, most=_MOST_STEPS)
        for each in self.steps:
            check_whole("each of steps", each, most=_MOST_STEPS)
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise UsageError(f"steps are {self.steps!r}, expected ascending numbers")
        check_whole("seed", self.seed, least=0, most=LARGEST_SEED)
        for name in ("temperature", "learning_rate", "whitening_floor"):
            check_number(name, getattr(self, name))
        check_number("whitening", self.whitening, above_zero=False)
        if not is_number(self.same_passage_similarity):
            raise UsageError(f"same_passage_similarity is {self.same_passage_similarity!r}, expected a cosine")
        check_whole("folds", self.folds, least=2, most=_MOST_FOLDS)

    @property
    def losses(self) -> tuple[AdapterLossName, ...]:
        """Those of the candidates that are fitted on examples."""
        return tuple(name for name in ADAPTER_LOSSES if name in self.candidates)

    @property
    def fits(self) -> int:
        """How many fits on examples there are, at most; as often progress is reported."""
        return self.folds * len(self.losses)

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "candidates": list(self.candidates), "steps": list(self.steps)}


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): `W + alpha / rank * B A`, B and A trained, W kept.

    alpha: None: twice the rank. targets: names of the layers that get one; (): every linear layer of the transformer.
    merge: True adds the product to W on saving, so that the artifact is a plain checkpoint; False keeps B and A apart
    in a small folder that names its base. Such a folder needs torch and peft to serve, not ONNX.
    """

    rank: int = 64
    alpha: int | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    merge: bool = True

    def __post_init__(self) -> None:
        check_whole("rank of lora", self.rank, most=MOST_WIDE)
        if self.alpha is not None:
            check_whole("alpha of lora", self.alpha)
        if len(self.targets) > _MOST_NAMES:
            raise UsageError(f"lora targets are {len(self.targets)} names, expected at most {_MOST_NAMES}")
        if not (is_number(self.dropout) and 0 <= self.dropout < 1):
            raise UsageError(f"lora dropout is {self.dropout!r}, expected a share from 0 up to, not including, 1")


@dataclass(frozen=True)
class Projection:
    """A Dense layer on the pooled vector. With as many outputs as inputs it starts at the identity, else orthogonal."""

    dimension: int
    activation: str = "identity"

    def __post_init__(self) -> None:
        check_whole("dimension of projection", self.dimension, most=MOST_WIDE)
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation is {self.activation!r}, expected one of {', '.join(ACTIVATIONS)}")


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    loss, loss_options: a name of `losses.LOSSES` and options of that loss (fields of `losses.LossOptions`).
    batch_size: rows whose passages are each other's negatives, over all devices together.
    learning_rate: None: 5e-4 for LoRA, for the whole encoder the `rate` of the loss (5e-5; 1e-5 of simcse).
    warmup_share: share of the steps in which the rate rises to its full value.
    accumulation: batches per optimiser step. It adds no in-batch negatives; a larger `batch_size` does.
    tokens_at_once: bounds the memory, not the batch: how many tokens a cached loss embeds at a time.
    max_tokens: cuts training texts only; the checkpoint keeps its own limit for serving.
    negatives: at most so many mined negatives per row.
    pooling, projection: give the trained model another pooling, or a Dense layer on top; None: as the base has it.
    checkpoint_every: optimiser steps between two checkpoints; 0: none, and an interrupted run starts anew.
    report_to: what transformers reports to ("tensorboard", "wandb", ...); nothing by default.
    device: of torch; None: a GPU if there is one.
    adapter: how to fit a query adapter. Beside these, that method uses only what is said here of leaks, synthetic
        examples, `cross_fit`, the proof, and `seed`.
    proof: what the held-out queries have to show before the result may take the base's place.
    passages_apart: refuse training examples whose positive answers a held-out query; False where one passage answers
        many questions.
    leak_similarity: a training query with at least this cosine (by the base) to a held-out one is the same question in
        other words, and refused; None: only equal words count. A base that puts all texts close together needs None.
    drop_leaks: leave out and count the examples that give held-out queries away, instead of refusing them all.
    cross_fit: 0, or so many folds: every real query of the examples decides, ranked by an adapter that was fitted
        without its fold. For adapters and few queries; needs no held-out ones.
    synthetic_weight: how much an example counts whose query nobody asked, as soon as there are real ones beside it; 0
        leaves them out. A loss that takes no weights draws that share of them. Where all are synthetic, all count.
    """

    method: Method = "full"
    loss: str = "cached_multiple_negatives"
    loss_options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float | None = None
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    schedule: Schedule = "linear"
    accumulation: int = 1
    max_gradient: float = 1.0
    precision: Precision = "float32"
    gradient_checkpointing: bool = False
    tokens_at_once: int = 4096
    max_tokens: int = 128
    negatives: int = 3
    seed: int = 0
    lora: LoraSettings = field(default_factory=LoraSettings)
    pooling: str | tuple[str, ...] | None = None
    projection: Projection | None = None
    checkpoint_every: int = 200
    report_to: tuple[str, ...] = ()
    device: str | None = None
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    proof: ProofSettings = field(default_factory=ProofSettings)
    passages_apart: bool = True
    leak_similarity: float | None = SAME
    synthetic_weight: float = 0.5
    drop_leaks: bool = False
    cross_fit: int = 0

    def __post_init__(self) -> None:
        loss_spec(self.loss)
        _one_of(method=(self.method, Method), precision=(self.precision, Precision), schedule=(self.schedule, Schedule))
        for name in ("epochs", "batch_size", "accumulation"):
            check_whole(f"{name} of training", getattr(self, name))
        check_whole("tokens_at_once of training", self.tokens_at_once, most=MOST_ROWS)
        check_whole("max_tokens of training", self.max_tokens)
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate)
        if not (is_number(self.warmup_share) and 0 <= self.warmup_share < 1):
            raise UsageError(f"warmup_share is {self.warmup_share!r}, expected a share from 0 up to, not including, 1")
        for name in ("weight_decay", "max_gradient"):
            check_number(name, getattr(self, name), above_zero=False)
        for name in ("negatives", "checkpoint_every"):
            check_whole(name, getattr(self, name), least=0, most=MOST_ROWS)
        check_whole("seed", self.seed, least=0, most=LARGEST_SEED)
        if self.leak_similarity is not None and not is_number(self.leak_similarity):
            raise UsageError(f"leak_similarity is {self.leak_similarity!r}, expected a cosine")
        check_number("synthetic_weight", self.synthetic_weight, above_zero=False)
        if self.cross_fit:
            check_whole("cross_fit", self.cross_fit, least=2, most=_MOST_FOLDS)
            if self.method != "adapter":
                raise UsageError(
                    f"cross_fit fits {self.cross_fit} times, which only the method 'adapter' does in seconds"
                )
        if len(self.pooling_modes or ()) > _MOST_NAMES:
            raise UsageError(f"pooling has {len(self.pooling_modes or ())} modes, expected at most {_MOST_NAMES}")
        unknown = [mode for mode in self.pooling_modes or () if mode not in POOLING_MODES]
        if unknown:
            raise UsageError(f"pooling is {unknown[0]!r}, expected one of {', '.join(POOLING_MODES)}")

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return self.learning_rate or (5e-4 if self.method == "lora" else loss_spec(self.loss).rate)

    @property
    def pooling_modes(self) -> tuple[str, ...] | None:
        """`pooling` as a tuple of modes."""
        return (self.pooling,) if isinstance(self.pooling, str) else self.pooling

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them; what it cannot hold (a guide that is a model) as its text."""
        # as JSON gives it back: an interrupted run compares this with what its file says
        row: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return row


def _one_of(**given: tuple[str, Any]) -> None:
    for name, (value, kind) in given.items():
        if value not in get_args(kind):
            raise UsageError(f"{name} is {value!r}, expected one of {', '.join(get_args(kind))}")
