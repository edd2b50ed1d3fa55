"""How vectors are compressed for the search, as one frozen value for all of Qdrant's quantisations.

A search looks at the compressed vectors, takes `oversampling` times as many candidates as it needs, and scores these
again with the full vectors. Rescoring alone cannot change which candidates there are, so oversampling is what brings
the recall back.

Guarantees: validated when made; `from_config(value.config)` gives the value back, except for what only a search uses.
Does not know: clients. Sources: Qdrant's documentation of its scalar, binary, product and TurboQuant quantisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from qdrant_client import models

from qdrant_tools.errors import InputError
from qdrant_tools.validation import brief, checked_number

QuantizationKind = Literal["int8", "binary", "product", "turbo"]
QuantizationConfig = (
    models.ScalarQuantization | models.BinaryQuantization | models.ProductQuantization | models.TurboQuantization
)

_BINARY = {
    1.0: models.BinaryQuantizationEncoding.ONE_BIT,
    1.5: models.BinaryQuantizationEncoding.ONE_AND_HALF_BITS,
    2.0: models.BinaryQuantizationEncoding.TWO_BITS,
}
_TURBO = {
    1.0: models.TurboQuantBitSize.BITS1,
    1.5: models.TurboQuantBitSize.BITS1_5,
    2.0: models.TurboQuantBitSize.BITS2,
    4.0: models.TurboQuantBitSize.BITS4,
    8.0: models.TurboQuantBitSize.BITS8,
}
# a ratio is of 32-bit numbers: X4 leaves 8 bits of each
_PRODUCT = {
    8.0: models.CompressionRatio.X4,
    4.0: models.CompressionRatio.X8,
    2.0: models.CompressionRatio.X16,
    1.0: models.CompressionRatio.X32,
    0.5: models.CompressionRatio.X64,
}
BITS: dict[str, dict[float, Any]] = {"int8": {8.0: None}, "binary": _BINARY, "product": _PRODUCT, "turbo": _TURBO}
"""Kind -> bits a number may be stored in."""
MOST_OVERSAMPLING = 10_000
"""A collection's metadata may come from others, and each candidate takes memory of whoever searches."""
DEFAULT_BITS: dict[str, float] = {"int8": 8.0, "binary": 1.0, "product": 2.0, "turbo": 4.0}


@dataclass(frozen=True)
class Quantization:
    """One way to compress. `bits` are those of one number of a vector (of 32); None is the kind's usual choice."""

    kind: QuantizationKind
    bits: float | None = None
    quantile: float | None = None
    """int8 only: share of the numbers that the scale covers; None is all of them."""
    always_ram: bool = True
    """Keep the compressed vectors in memory, also where the full ones are on the disk."""
    rescore: bool = True
    """Score the candidates of a search again with the full vectors."""
    oversampling: float = 2.0
    """How many times as many candidates as asked for are scored again; at least 1."""

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in BITS:
            raise InputError(f"quantization kind is {brief(self.kind)}, expected one of {sorted(BITS)}")
        for name in ("bits", "quantile", "oversampling"):
            if getattr(self, name) is not None or name == "oversampling":
                checked_number(name, getattr(self, name), most=MOST_OVERSAMPLING)
        for name in ("always_ram", "rescore"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {brief(getattr(self, name))}, expected True or False")
        if self.bits is None:
            # one spelling of the same: settings are compared for equality
            object.__setattr__(self, "bits", DEFAULT_BITS[self.kind])
        if self.bits not in BITS[self.kind]:
            raise InputError(f"{self.kind} quantization in {self.bits} bits, expected one of {sorted(BITS[self.kind])}")
        if self.quantile is not None and (self.kind != "int8" or not 0.5 <= self.quantile <= 1):
            raise InputError(f"quantile is {self.quantile} for {self.kind}, expected 0.5 to 1, and only for int8")
        if self.oversampling < 1:
            raise InputError(f"oversampling is {self.oversampling}, expected at least 1")

    @property
    def label(self) -> str:
        """A short name: `int8`, `turbo-4`."""
        return self.kind if self.kind == "int8" else f"{self.kind}-{self.bits:g}"

    @property
    def config(self) -> QuantizationConfig:
        """What to ask a Qdrant client for."""
        member: Any = BITS[self.kind][self.bits or DEFAULT_BITS[self.kind]]
        ram = self.always_ram
        if self.kind == "int8":
            int8 = models.ScalarType.INT8
            scalar = models.ScalarQuantizationConfig(type=int8, quantile=self.quantile, always_ram=ram)
            return models.ScalarQuantization(scalar=scalar)
        if self.kind == "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(encoding=member, always_ram=ram))
        if self.kind == "product":
            product = models.ProductQuantizationConfig(compression=member, always_ram=ram)
            return models.ProductQuantization(product=product)
        return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(bits=member, always_ram=ram))

    @property
    def search(self) -> models.QuantizationSearchParams:
        return models.QuantizationSearchParams(rescore=self.rescore, oversampling=self.oversampling)

    @property
    def stored(self) -> Quantization:
        """The part that the collection is built with: two that agree on it differ only in how they search."""
        return replace(self, rescore=Quantization.rescore, oversampling=Quantization.oversampling)

    def as_row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_config(cls, config: Any) -> Quantization | None:
        """Read what an engine reports; None for no quantisation, or one that this value cannot say."""
        if isinstance(config, models.ScalarQuantization):
            scalar = config.scalar
            return cls("int8", quantile=scalar.quantile, always_ram=bool(scalar.always_ram))
        if isinstance(config, models.BinaryQuantization):
            # an engine that reports no encoding uses its default, here and for turbo below
            encoding = config.binary.encoding or models.BinaryQuantizationEncoding.ONE_BIT
            return cls("binary", _key(_BINARY, encoding), always_ram=bool(config.binary.always_ram))
        if isinstance(config, models.ProductQuantization):
            product = config.product
            return cls("product", _key(_PRODUCT, product.compression), always_ram=bool(product.always_ram))
        if isinstance(config, models.TurboQuantization):
            bits = config.turbo.bits or models.TurboQuantBitSize.BITS4
            return cls("turbo", _key(_TURBO, bits), always_ram=bool(config.turbo.always_ram))
        return None


def _key(table: Mapping[float, Any], value: Any) -> float:
    return next(bits for bits, member in table.items() if member == value)
