"""The names of the losses -> what each computes, where it was published, which rows and which options it takes.

`LOSSES` is the table of docs/losses.md as values, `LossOptions` holds the options of one loss. In the formulas, i runs
over the rows of a batch; q, p, n are the vectors of query, positive and negative; cos is the cosine; t is
`temperature`, m is `margin`.

Guarantees: an option that no loss can honour is UsageError when it is made; one that this loss cannot honour is
UsageError when the loss is built. Does not know: torch, models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from llama_index_embed_plus.training.limits import check_number, check_whole
from qdrant_tools.errors import UsageError, brief

Shape = Literal["ranking", "triplets", "labelled pairs", "scored pairs", "distillation", "labelled texts", "texts"]
"""What the rows of a data set are:

ranking: `anchor`, `positive`, and `negative_1` .. `negative_N` or none. triplets: `anchor`, `positive`, `negative`.
labelled pairs: `sentence_1`, `sentence_2`, `label` 0 or 1. scored pairs: the same, with a similarity as `label`.
distillation: `anchor`, `positive`, `negative_1` .. `negative_N`, `label`: the teacher's margins, a list of N.
labelled texts: `text`, `label`, a class as a whole number. texts: raw texts, of which each loss makes its own columns.
"""


@dataclass(frozen=True)
class LossSpec:
    """What one loss computes and needs.

    takes: the fields of `LossOptions` that it can honour. weighted: rows may carry weights, in the column `label`.
    in_batch: the rows of a batch are each other's negatives. matryoshka: whether `dims` may be given.
    rate: at which the whole encoder learns unless another is asked for.
    """

    name: str
    formula: str
    source: str
    shape: Shape
    needs: str
    takes: frozenset[str]
    weighted: bool = False
    in_batch: bool = False
    cached: bool = False
    matryoshka: bool = True
    rate: float = 5e-5


_SOFTMAX = ("temperature", "scale", "symmetric", "gather_across_devices")
_GUIDED = ("temperature", "scale", "margin", "margin_kind", "guide", "gather_across_devices")
_DIMS = ("dims", "dim_weights")
_GRADCACHE = "GradCache: Gao et al. 2021, arXiv 2101.06983"
_MNRL_FORMULA = (
    "mean_i -log( exp(cos(q_i,p_i)/t) / sum_j exp(cos(q_i,d_j)/t) ), d: every positive and negative in the batch"
)
_GUIDED_FORMULA = (
    "as multiple_negatives, also over cos(q_i,q_j) and cos(p_i,p_j), without each candidate that the guide holds "
    "closer than cos_guide(q_i,p_i) - m"
)
_TRIPLET_FORMULA = "d(a,p) = 1 - cos(a,p), or the Euclidean distance"


def _table(*specs: LossSpec) -> Mapping[str, LossSpec]:
    return {spec.name: spec for spec in specs}


def _takes(*names: str, dims: bool = True) -> frozenset[str]:
    return frozenset((*names, *(_DIMS if dims else ())))


LOSSES: Mapping[str, LossSpec] = _table(
    LossSpec(
        "multiple_negatives",
        _MNRL_FORMULA,
        "Henderson et al. 2017, arXiv 1705.00652",
        "ranking",
        "pairs; hard negatives help",
        _takes(*_SOFTMAX),
        weighted=True,
        in_batch=True,
    ),
    LossSpec(
        "cached_multiple_negatives",
        "that of multiple_negatives, computed a few texts at a time with the gradient of the whole batch",
        _GRADCACHE,
        "ranking",
        "pairs; hard negatives help; a large batch",
        _takes(*_SOFTMAX, "tokens_at_once"),
        weighted=True,
        in_batch=True,
        cached=True,
    ),
    LossSpec(
        "infonce",
        _MNRL_FORMULA,
        "van den Oord et al. 2018, arXiv 1807.03748",
        "ranking",
        "pairs; multiple_negatives under its other name",
        _takes(*_SOFTMAX),
        weighted=True,
        in_batch=True,
    ),
    LossSpec(
        "ntxent",
        "mean over i and both sides of -log( exp(cos(q_i,p_i)/t) / sum_k exp(cos(q_i,z_k)/t) ), z: every text in the "
        "batch but q_i itself",
        "Chen et al. 2020, arXiv 2002.05709",
        "ranking",
        "pairs of interchangeable texts (paraphrases, two views)",
        _takes("temperature", "scale", "gather_across_devices"),
        weighted=True,
        in_batch=True,
    ),
    LossSpec(
        "guided",
        _GUIDED_FORMULA,
        "Solatorio 2024, arXiv 2402.16829",
        "ranking",
        "a guide: a model that already knows the field; at most one negative per row",
        _takes(*_GUIDED),
        weighted=True,
        in_batch=True,
    ),
    LossSpec(
        "cached_guided",
        "that of guided, computed a few texts at a time with the gradient of the whole batch",
        f"Solatorio 2024, arXiv 2402.16829; {_GRADCACHE}",
        "ranking",
        "a guide; any number of negatives; a large batch",
        _takes(*_GUIDED, "tokens_at_once"),
        weighted=True,
        in_batch=True,
        cached=True,
    ),
    LossSpec(
        "triplet",
        f"mean_i max(0, d(q_i,p_i) - d(q_i,n_i) + m), {_TRIPLET_FORMULA}",
        "Schroff et al. 2015, arXiv 1503.03832",
        "triplets",
        "a negative in every row",
        _takes("margin", "distance"),
        weighted=True,
    ),
    LossSpec(
        "batch_hard_triplet",
        "mean_i max(0, max_p d(x_i,x_p) - min_n d(x_i,x_n) + m), p of the same class, n of another, "
        f"{_TRIPLET_FORMULA}",
        "Hermans et al. 2017, arXiv 1703.07737",
        "labelled texts",
        "classes with several texts each",
        _takes("margin", "distance"),
    ),
    LossSpec(
        "batch_hard_soft_margin_triplet",
        f"mean_i log(1 + exp(max_p d(x_i,x_p) - min_n d(x_i,x_n))), {_TRIPLET_FORMULA}",
        "Hermans et al. 2017, arXiv 1703.07737",
        "labelled texts",
        "classes with several texts each",
        _takes("distance"),
    ),
    LossSpec(
        "batch_semi_hard_triplet",
        "mean over (i,p) of max(0, d(x_i,x_p) - d(x_i,x_n) + m), n: the nearest of another class that is farther than "
        f"p, else the farthest, {_TRIPLET_FORMULA}",
        "Schroff et al. 2015, arXiv 1503.03832",
        "labelled texts",
        "classes with several texts each",
        _takes("margin", "distance"),
    ),
    LossSpec(
        "batch_all_triplet",
        f"mean over the (i,p,n) of a batch with a loss above 0 of d(x_i,x_p) - d(x_i,x_n) + m, {_TRIPLET_FORMULA}",
        "Hermans et al. 2017, arXiv 1703.07737",
        "labelled texts",
        "classes with several texts each",
        _takes("margin", "distance"),
    ),
    LossSpec(
        "contrastive",
        "mean_i 1/2 (y_i d_i^2 + (1 - y_i) max(0, m - d_i)^2), d_i = 1 - cos(a_i,b_i), or the Euclidean distance",
        "Hadsell et al. 2006, doi 10.1109/CVPR.2006.100",
        "labelled pairs",
        "pairs labelled 1 (alike) or 0",
        _takes("margin", "distance"),
    ),
    LossSpec(
        "cosine_similarity",
        "mean_i (cos(a_i,b_i) - y_i)^2",
        "Reimers and Gurevych 2019, arXiv 1908.10084",
        "scored pairs",
        "similarities from -1 to 1",
        _takes(),
    ),
    LossSpec(
        "cosent",
        "log(1 + sum over y_i > y_j of exp((cos(a_j,b_j) - cos(a_i,b_i))/t))",
        "Huang et al. 2024, doi 10.1109/TASLP.2024.3402087",
        "scored pairs",
        "scores of any scale: only their order counts",
        _takes("temperature", "scale"),
    ),
    LossSpec(
        "margin_mse",
        "mean over i and negatives of (s (q_i.p_i - q_i.n_i) - (T(q_i,p_i) - T(q_i,n_i)))^2, T: the teacher's score, "
        "s: scale",
        "Hofstätter et al. 2020, arXiv 2010.02666",
        "distillation",
        "scores of a cross-encoder, in the file or from `teacher`",
        _takes("scale", "teacher"),
    ),
    LossSpec(
        "simcse",
        "multiple_negatives with each text as its own positive, apart by dropout alone",
        "Gao et al. 2021, arXiv 2104.08821",
        "texts",
        "raw texts, a model with dropout",
        _takes("temperature", "scale", "gather_across_devices"),
        in_batch=True,
        rate=1e-5,
    ),
    LossSpec(
        "contrastive_tension",
        "sum_i of the binary cross-entropy of sigmoid(f(a_i).g(b_i)) and y_i = [a_i = b_i]; f, g: two copies of the "
        "model, without the unit length at its end",
        "Carlsson et al. 2021, openreview Ov_sMNau-PF",
        "texts",
        "raw texts; memory for two models",
        _takes(dims=False),
        matryoshka=False,
    ),
    LossSpec(
        "contrastive_tension_in_batch",
        "mean of both directions of -log( exp(cos(f_i,g_i) s) / sum_j exp(cos(f_i,g_j) s) ), s starts as scale and is "
        "learned; f, g: two copies of the model",
        "Carlsson et al. 2021, openreview Ov_sMNau-PF; with the in-batch negatives of SimCSE",
        "texts",
        "raw texts; memory for two models",
        _takes("temperature", "scale", dims=False),
        in_batch=True,
        matryoshka=False,
    ),
    LossSpec(
        "tsdae",
        "-mean over tokens of log P(token | tokens before it, vector of the damaged text)",
        "Wang et al. 2021, arXiv 2104.06979",
        "texts",
        "raw texts; an architecture that transformers also has as a decoder (BERT, RoBERTa, ...)",
        _takes(dims=False),
        matryoshka=False,
    ),
)
"""Name -> spec, in the order of the documentation."""


_MOST_DIMS = 100

Distance = Literal["cosine", "euclidean"]
MarginKind = Literal["absolute", "relative"]


@dataclass(frozen=True)
class LossOptions:
    """The options of a loss; None is the loss's own default. Which loss takes what: `LOSSES[name].takes`.

    temperature, scale: one is the inverse of the other; give either. Temperature 0.05 (scale 20), guided
        0.01, margin_mse 1; `train` sets the scale by the margins where unit vectors cannot have them.
    margin: triplets 0.3, contrastive 0.5, guided 0 (nothing above the positive); of the distance, or of the similarity.
    margin_kind: of guided, whether `margin` is a difference or a share of the positive's similarity.
    distance: of triplets and contrastive; vectors of unit length have Euclidean distances up to 2.
    symmetric: also rank queries for each positive, half and half.
    dims: Matryoshka dimensions (Kusupati et al. 2022, arXiv 2205.13147): the loss is the sum, weighted by `dim_weights`
    (1 each), of the losses of the first `dim` components, brought to unit length.
    guide: a sentence-transformers model or its folder, which judges who is a false negative.
    teacher: a cross-encoder's folder that gives the raw scores of pairs where the data holds none.
    tokens_at_once: how many tokens a cached loss embeds at a time; bounds the memory, not the batch.
    gather_across_devices: the batches of all devices are negatives of each.
    """

    temperature: float | None = None
    scale: float | None = None
    margin: float | None = None
    margin_kind: MarginKind | None = None
    distance: Distance | None = None
    symmetric: bool | None = None
    dims: tuple[int, ...] | None = None
    dim_weights: tuple[float, ...] | None = None
    guide: Any = None
    teacher: str | Path | None = None
    tokens_at_once: int | None = None
    gather_across_devices: bool | None = None

    def __post_init__(self) -> None:
        for name in ("dims", "dim_weights"):
            if isinstance(getattr(self, name), list):  # what a TOML or JSON file gives
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("temperature", "scale", "tokens_at_once"):
            _above_zero(name, getattr(self, name))
        if self.temperature is not None and self.scale is not None:
            raise UsageError(f"temperature {self.temperature} and scale {self.scale} are both given: give one")
        if self.tokens_at_once is not None:
            check_whole("tokens_at_once", self.tokens_at_once, most=1_000_000_000)
        if self.margin is not None:
            check_number("margin", self.margin, above_zero=False)
        for name in ("symmetric", "gather_across_devices"):
            if getattr(self, name) not in (None, False, True):
                raise UsageError(f"{name} is {brief(getattr(self, name))}, expected true or false")
        if self.teacher is not None and not isinstance(self.teacher, (str, Path)):
            raise UsageError(f"teacher is {brief(self.teacher)}, expected a folder or the name of a cross-encoder")
        if isinstance(self.guide, (bool, int, float, list, dict)):
            raise UsageError(f"guide is {brief(self.guide)}, expected a model, or its folder or name")
        for name, kind in (("margin_kind", MarginKind), ("distance", Distance)):
            value = getattr(self, name)
            if value is not None and value not in get_args(kind):
                raise UsageError(f"{name} is {brief(value)}, expected one of {', '.join(get_args(kind))}")
        self._check_dims()

    def _check_dims(self) -> None:
        for name in ("dims", "dim_weights"):
            values = getattr(self, name)
            if values is not None and (not isinstance(values, tuple) or len(values) > _MOST_DIMS):
                raise UsageError(f"{name} is {brief(values)}, expected a list of at most {_MOST_DIMS} numbers")
        for dim in self.dims or ():
            if not isinstance(dim, int) or isinstance(dim, bool):
                raise UsageError(f"dims is {brief(self.dims)}, expected different whole numbers from 1 on")
        # the default of `min` refuses an empty tuple too
        if self.dims is not None and (min(self.dims, default=0) < 1 or len(set(self.dims)) < len(self.dims)):
            raise UsageError(f"dims is {brief(self.dims)}, expected different whole numbers from 1 on")
        if self.dim_weights is not None and len(self.dim_weights) != len(self.dims or ()):
            raise UsageError(f"dim_weights has {len(self.dim_weights)} numbers for {len(self.dims or ())} dims")
        for weight in self.dim_weights or ():
            _above_zero("a number of dim_weights", weight)

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any], **run: Any) -> LossOptions:
        """Return `options` as options of the loss `name`, with those of `run` that this loss takes.

        `options` is what a person wrote: a field that the loss does not take is UsageError. `run` describes the run
        (`tokens_at_once`, `gather_across_devices`) and is left out where it means nothing.
        """
        unknown = sorted(set(options) - {field.name for field in fields(cls)})
        if unknown:
            raise UsageError(f"loss option {brief(unknown[0])} is unknown, expected one of {', '.join(_names(cls))}")
        taken = loss_spec(name).takes
        # `options` last: what a person wrote wins
        made = cls(**{**{key: value for key, value in run.items() if key in taken}, **options})
        made.check(name)
        return made

    def check(self, name: str) -> None:
        """Raise UsageError for an option that the loss `name` cannot honour."""
        spec = loss_spec(name)
        for field in _names(type(self)):
            # False asks for nothing, so every loss can honour it
            if getattr(self, field) not in (None, False) and field not in spec.takes:
                allowed = ", ".join(sorted(spec.takes)) or "none"
                raise UsageError(f"the loss {name!r} takes no option {field!r}, only: {allowed}")

    def scale_or(self, default: float) -> float:
        """The factor of similarities: `scale`, or the inverse of `temperature`, or `default`."""
        if self.temperature is not None:
            return 1.0 / self.temperature
        return default if self.scale is None else self.scale


def loss_spec(name: str) -> LossSpec:
    """Return what is known about the loss `name`. Raises UsageError if there is none."""
    if name not in LOSSES:
        raise UsageError(f"loss is {brief(name)}, expected one of {', '.join(LOSSES)}")
    return LOSSES[name]


def _names(options: type[LossOptions]) -> list[str]:
    return [field.name for field in fields(options)]


def _above_zero(name: str, value: float | None) -> None:
    if value is not None:
        check_number(name, value)
