"""A base model, a tuned one and a coefficient -> a model between them, which keeps old skills and most of the new.

Weights are averaged, `(1 - c) base + c tuned`: WiSE-FT (Wortsman et al., "Robust fine-tuning of zero-shot models",
CVPR 2022, arXiv 2109.01903). The residual of a query adapter is scaled by c, which is the same thing: its base is the
identity. `choose_coefficient` picks c on dev queries, under the condition that the general set is not forgotten.

Guarantees: at 0 every weight is the base's and at 1 the tuned model's, bit for bit (in the tuned model's precision);
models of another architecture, tokenizer or use of it are refused; the result appears whole or not at all, without the
verdict and the figures of the model it was made from. Reads safetensors only. Does not know: how the tuned one came
about. The chosen c was seen by the dev queries: prove the result on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from llama_index_embed_plus.encoders.adapter import QueryAdapter
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import MissingExtraError, TrainingError
from llama_index_embed_plus.evaluate.retrieval.comparison import Change
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models import hub as checkpoints
from llama_index_embed_plus.models.config import architecture_of, name_of
from llama_index_embed_plus.models.spec import EncoderSpec, read_spec, space_of, tokenizer_hash
from llama_index_embed_plus.models.weights import tensors_of, weight_files
from llama_index_embed_plus.training.proof.forgetting import Forgetting, General
from llama_index_embed_plus.training.proof.model_card import CARD
from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
from llama_index_embed_plus.training.proof.report import Lineage, TrainReport, read_report, write_report_file
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, HeldOut, Vectors, encode_compared
from qdrant_tools.search.adapters import FullMap, LowRankMap, MlpMap, OrthogonalMap, QueryMap

COEFFICIENTS = (0.2, 0.4, 0.6, 0.8, 1.0)
_MUST_AGREE = (
    *("model_type", "dimension", "pooling", "include_prompt", "normalize", "query_prompt", "passage_prompt"),
    *("lowercase", "append_eos", "truncate_dim"),
)


def interpolate(base: str | Path, tuned: str | Path, coefficient: float, out: Path) -> TrainReport:
    """Write to `out` the model at `coefficient` between `base` (0) and `tuned` (1), as an artifact.

    Returns its report, which says where it comes from and that it was not measured yet. Builds for ONNX are left out:
    export the result again.

    Raises:
        UsageError: a coefficient outside of 0 to 1, or two models that cannot be averaged.
        DamagedModelError: weights that are missing or not finite.
        TrainingError: the result cannot be written; nothing is left of it.
        MissingExtraError: the extra `train` is not installed.
    """
    _check_coefficient(coefficient)
    try:
        from llama_index_embed_plus.training.averaging import write_between
    except ModuleNotFoundError as error:
        raise MissingExtraError("averaging weights", extra="train") from error
    first, second = (_opened(model) for model in (base, tuned))
    specs = read_spec(first), read_spec(second)
    _check_same_kind(first, second, *specs)
    # a list, so that two models that do not fit are refused before anything is written
    pairs = list(_weight_files(first, second, *specs))
    try:
        with artifact.draft_folder(out) as draft:
            artifact.copy_model(second, draft)
            (draft / CARD).unlink(missing_ok=True)  # its figures are another model's
            for of_base, file in pairs:
                write_between(of_base, file, coefficient, draft / file.relative_to(second))
            report = _report(Path(base).name, first, draft, read_report(second), coefficient)
            write_report_file(draft, report)
            artifact.write_manifest(draft, spec=specs[1], name=specs[1].name, source=artifact.origin_of(second))
    except OSError as error:
        raise TrainingError(f"{out} cannot be written ({error}): make room, or give another folder") from error
    return report


def scale_adapter(adapter: QueryAdapter, coefficient: float) -> QueryAdapter:
    """Return the adapter whose residual is `coefficient` times as large: 0 is the identity, 1 the adapter itself.

    Between, an orthogonal adapter becomes a full one, `q + c (q R - q)`: part of a rotation's residual is no rotation.
    """
    _check_coefficient(coefficient)
    if coefficient == 1:
        return adapter
    by, map = np.float32(coefficient), adapter.map
    scaled: QueryMap
    if isinstance(map, FullMap):
        scaled = replace(map, weight=map.weight * by)
    elif isinstance(map, LowRankMap | MlpMap):
        scaled = replace(map, up=map.up * by)
    elif isinstance(map, OrthogonalMap):
        scaled = FullMap((map.rotation - np.eye(map.dimension, dtype=np.float32)) * by)
    else:
        raise UsageError(f"a {adapter.kind} adapter cannot be scaled")
    return QueryAdapter(scaled, adapter.space)


@dataclass(frozen=True)
class CoefficientTrial:
    """One coefficient on the dev queries. `allowed`: forgetting is excluded as `ProofSettings` asks for."""

    coefficient: float
    change: Change
    forgetting: Forgetting | None
    allowed: bool


@dataclass(frozen=True)
class Choice:
    """The chosen coefficient and all that were tried, in the order of the coefficients."""

    coefficient: float
    trials: tuple[CoefficientTrial, ...]


def choose_coefficient(
    base: Encoder,
    candidate: Callable[[float], Encoder],
    dev: HeldOut,
    settings: ProofSettings | None = None,
    *,
    general: General | None = None,
    collection: Collection | None = None,
    coefficients: Sequence[float] = COEFFICIENTS,
) -> Choice:
    """Pick the coefficient with the best mean nDCG@k on `dev` among those that do not forget.

    `candidate` gives the encoder of a coefficient: `interpolated` for weights, or
    `lambda c: AdaptedEncoder(base, scale_adapter(adapter, c))` for a query adapter. A coefficient is allowed if the
    interval of its change on the general set excludes a loss of `forgetting_margin` (`proof` says what that set is by
    default). If none that is allowed beats the base, 0 is chosen. Equally good ones: the smallest.
    """
    settings = settings or ProofSettings()
    once = _CachedEncoder(base)
    trials = []
    for coefficient in sorted(coefficients):
        proof = prove(once, candidate(coefficient), dev, settings, general=general, collection=collection)
        kept = proof.forgetting is None or proof.forgetting.change.excludes_loss_of(settings.forgetting_margin)
        trials.append(CoefficientTrial(coefficient, proof.changes[0], proof.forgetting, kept))
    allowed = [trial for trial in trials if trial.allowed and trial.change.difference > 0]
    # `max` takes the first of equals, which is the smallest coefficient
    best = max(allowed, key=lambda trial: trial.change.after, default=None)
    return Choice(best.coefficient if best else 0.0, tuple(trials))


def interpolated(base: str | Path, tuned: str | Path, scratch: Path) -> Callable[[float], Encoder]:
    """Return what `choose_coefficient` asks for: each candidate is written to `scratch` in the place of the last."""

    def candidate(coefficient: float) -> Encoder:
        interpolate(base, tuned, coefficient, scratch / "candidate")
        return open_encoder(scratch / "candidate", backend="torch")

    return candidate


class _CachedEncoder:
    """An encoder that embeds the same list of texts once: every trial asks the base for the same ones."""

    def __init__(self, base: Encoder) -> None:
        self.base, self.dimension, self.space = base, base.dimension, base.space
        self._known: dict[tuple[str, tuple[str, ...]], Vectors] = {}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._kept("query", texts, self.base.encode_queries)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._kept("passage", texts, self.base.encode_passages)

    def encode_compared(self, texts: Sequence[str], task: str = "similarity") -> Vectors:
        return self._kept(task, texts, partial(encode_compared, self.base, task=task))

    def _kept(self, role: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Vectors]) -> Vectors:
        key = (role, tuple(texts))
        if key not in self._known:
            self._known[key] = encode(texts)
        return self._known[key]


def _check_coefficient(coefficient: float) -> None:
    if not 0 <= coefficient <= 1:
        raise UsageError(f"coefficient is {coefficient}, expected 0 (nothing of the new one) to 1 (all of it)")


def _opened(model: str | Path) -> Path:
    folder = checkpoints.resolve(model, graphs=False)
    if artifact.is_artifact(folder):
        artifact.verify(folder)
    if (folder / artifact.ADAPTER).is_dir():
        raise UsageError(f"{str(model)!r} carries a query adapter: scale that, or give the model without it")
    return folder


def _check_same_kind(base: Path, tuned: Path, first: EncoderSpec, second: EncoderSpec) -> None:
    differing = [name for name in _MUST_AGREE if getattr(first, name) != getattr(second, name)]
    if [replace(step, path="") for step in first.head] != [replace(step, path="") for step in second.head]:
        differing.append("head")
    inner = base / first.transformer_path, tuned / second.transformer_path
    if architecture_of(inner[0]) != architecture_of(inner[1]):
        differing.append("config.json")
    if tokenizer_hash(inner[0]) != tokenizer_hash(inner[1]):
        differing.append("tokenizer")
    if differing:
        raise UsageError(
            f"{base.name!r} and {tuned.name!r} differ in {', '.join(differing)}: only a model and what was trained "
            "from it can be averaged"
        )


def _weight_files(
    base: Path, tuned: Path, first: EncoderSpec, second: EncoderSpec
) -> Iterator[tuple[dict[str, Path], Path]]:
    """(name of a tensor -> the base's file, a weight file of the tuned model): transformer, then layers on top."""
    places = [(first.transformer_path, second.transformer_path)]
    places += [(a.path, b.path) for a, b in zip(first.head, second.head) if b.path]
    files_of_base = set()
    for of_base, of_tuned in places:
        files = weight_files(tuned / of_tuned)
        # by tensor: the base may be split into other files than the tuned model
        names = {name: file for file in weight_files(base / of_base) for name in tensors_of(file)}
        if not files or not names:
            lacking = tuned / of_tuned if not files else base / of_base
            raise UsageError(f"{lacking} holds no weights as safetensors: only those are averaged")
        files_of_base.update(files)
        yield from ((names, file) for file in files)
    others = [path for path in tuned.rglob("*.safetensors") if path not in files_of_base]
    if others:
        raise UsageError(f"{others[0]} is no part of the model that is known here: merge a LoRA before averaging")


def _report(base: str, folder: Path, draft: Path, tuned: TrainReport | None, coefficient: float) -> TrainReport:
    """What is known of the result: where it comes from. Its figures are still to be measured."""
    spec = read_spec(draft)
    lineage = Lineage(
        base=base,
        base_space=space_of(folder, read_spec(folder)),
        base_build="torch-fp32",
        space=space_of(draft, replace(spec, name=name_of(draft / spec.transformer_path)[0])),
        parents=tuned.lineage.as_parents() if tuned else (),
    )
    return TrainReport(
        method="interpolation",
        settings={"coefficient": coefficient, "tuned": dict(tuned.settings) if tuned else {}},
        data=tuned.data if tuned else {},
        losses=(),
        seconds=0.0,
        seed=tuned.seed if tuned else 0,
        lineage=lineage,
        versions=artifact.versions(),
        notes=(f"weights: {1 - coefficient:g} of the base and {coefficient:g} of the tuned model",),
    )
