"""What a loss may be told, as one frozen value.

Guarantees: a value that no loss can honour is UsageError when it is made; one that this loss cannot honour, when it is
built. Does not know: torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from llama_index_embed_plus.errors import UsageError
from llama_index_embed_plus.train.losses.facts import LOSSES, LossFacts

Distance = Literal["cosine", "euclidean"]
MarginKind = Literal["absolute", "relative"]


@dataclass(frozen=True)
class LossOptions:
    """What a loss may be told; None is the loss's own default. Which loss takes what: `LOSSES[name].takes`.

    temperature, scale: one is the inverse of the other; give either. Temperature 0.05 (scale 20), guided 0.01.
    margin: triplets 0.3, contrastive 0.5, guided 0 (nothing above the positive); of the distance, or of the similarity.
    margin_kind: of guided, whether `margin` is a difference or a share of the positive's similarity.
    distance: of triplets and contrastive; vectors of unit length have Euclidean distances up to 2.
    symmetric: also rank queries for each positive, half and half.
    dims: Matryoshka dimensions (Kusupati et al. 2022, arXiv 2205.13147): the loss is the sum, weighted by `dim_weights`
    (1 each), of the losses of the first `dim` components, brought to unit length.
    guide: a sentence-transformers model or its folder, which judges who is a false negative.
    teacher: a cross-encoder's folder that scores pairs where the data holds no scores.
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
        if self.margin is not None and not (math.isfinite(self.margin) and self.margin >= 0):
            raise UsageError(f"margin is {self.margin}, expected 0 or more")
        for name, kind in (("margin_kind", MarginKind), ("distance", Distance)):
            value = getattr(self, name)
            if value is not None and value not in get_args(kind):
                raise UsageError(f"{name} is {value!r}, expected one of {', '.join(get_args(kind))}")
        self._check_dims()

    def _check_dims(self) -> None:
        if self.dims is not None and (min(self.dims, default=0) < 1 or len(set(self.dims)) < len(self.dims)):
            raise UsageError(f"dims is {self.dims}, expected different whole numbers from 1 on")
        if self.dim_weights is not None and len(self.dim_weights) != len(self.dims or ()):
            raise UsageError(f"dim_weights has {len(self.dim_weights)} numbers for {len(self.dims or ())} dims")
        for weight in self.dim_weights or ():
            _above_zero("a number of dim_weights", weight)

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any], **run: Any) -> LossOptions:
        """Return `given` as options of the loss `name`, with those of `run` that this loss takes.

        `given` is what a person wrote: a field that the loss does not take is UsageError. `run` is what the run is like
        (`tokens_at_once`, `gather_across_devices`): left out where it means nothing.
        """
        unknown = sorted(set(given) - {field.name for field in fields(cls)})
        if unknown:
            raise UsageError(f"loss option {unknown[0]!r} is unknown, expected one of {', '.join(_names(cls))}")
        taken = facts_of(name).takes
        options = cls(**{**{key: value for key, value in run.items() if key in taken}, **given})
        options.check(name)
        return options

    def check(self, name: str) -> None:
        """Raise UsageError for an option that the loss `name` cannot honour."""
        facts = facts_of(name)
        for field in _names(type(self)):
            if getattr(self, field) not in (None, False) and field not in facts.takes:
                known = ", ".join(sorted(facts.takes)) or "none"
                raise UsageError(f"the loss {name!r} takes no option {field!r}, only: {known}")

    def scale_or(self, default: float) -> float:
        """The factor of similarities: `scale`, or the inverse of `temperature`, or `default`."""
        if self.temperature is not None:
            return 1.0 / self.temperature
        return default if self.scale is None else self.scale


def facts_of(name: str) -> LossFacts:
    """Return what is known about the loss `name`. Raises UsageError if there is none."""
    if name not in LOSSES:
        raise UsageError(f"loss is {name!r}, expected one of {', '.join(LOSSES)}")
    return LOSSES[name]


def _names(options: type[LossOptions]) -> list[str]:
    return [field.name for field in fields(options)]


def _above_zero(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} is {value}, expected a number above 0")
