"""The maps of query adapters with parameters that an optimiser moves: queries -> outputs, and gradients by hand.

Of outputs X = map(Q), rows of (n, dimension), and G = dL/dX, the gradients of a loss L are

    full         X = Q + Q W                  dW = Qᵀ G
    low_rank     X = Q + (Q A) B              dA = Qᵀ (G Bᵀ),  dB = (Q A)ᵀ G
    mlp          X = Q + H B, H = tanh(Q A + b)
                                              dB = Hᵀ G,  T = (G Bᵀ) (1 - H²),  dA = Qᵀ T,  db = sum of T's rows
    orthogonal   X = Q R(P)                   dS = (1 - S)⁻ᵀ (Qᵀ G) (1 + R)ᵀ,  dP = dS - dSᵀ

The orthogonal one is parametrised by Cayley's transform, R = (1 - S)⁻¹ (1 + S) with S = P - Pᵀ (Cayley 1846; as in
Helfrich et al. 2018, arXiv 1707.09520): every P gives a rotation, so any optimiser may move it. It reaches all
rotations but those that turn something by exactly 180 degrees.

Guarantees: at the start a map gives what the map it was made of gives; `fitted` is a copy that later steps leave alone.
Numbers keep the type of the queries. Does not know: losses, stored vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.search.adapters import FullMap, LowRankMap, MlpMap, OrthogonalMap, QueryMap

Array = NDArray[Any]
Gradients = Mapping[str, Array]


class FittingMap(ABC):
    """A map that can be fitted. `parameters`: name -> array, changed in place by the optimiser."""

    made: ClassVar[type[QueryMap]]

    def __init__(self, start: QueryMap) -> None:
        # copies, or fitting would change the arrays of the starting map
        self.parameters: dict[str, Array] = {name: array.copy() for name, array in start.arrays().items()}

    @abstractmethod
    def __call__(self, queries: Array) -> Array:
        """Map (n, dimension) to (n, dimension), not normalised."""

    @abstractmethod
    def gradients(self, queries: Array, output: Array) -> Gradients:
        """Return the gradient of every parameter, for the gradient (n, dimension) of what `queries` were mapped to."""

    def fitted(self) -> QueryMap:
        """Return the map with the parameters of the moment."""
        return self.made.of({name: array.copy() for name, array in self.parameters.items()})


class FittingFull(FittingMap):
    made = FullMap

    def __call__(self, queries: Array) -> Array:
        return np.asarray(queries + queries @ self.parameters["weight"])

    def gradients(self, queries: Array, output: Array) -> Gradients:
        return {"weight": queries.T @ output}


class FittingLowRank(FittingMap):
    made = LowRankMap

    def __call__(self, queries: Array) -> Array:
        return np.asarray(queries + (queries @ self.parameters["down"]) @ self.parameters["up"])

    def gradients(self, queries: Array, output: Array) -> Gradients:
        down, up = self.parameters["down"], self.parameters["up"]
        return {"down": queries.T @ (output @ up.T), "up": (queries @ down).T @ output}


class FittingMlp(FittingMap):
    made = MlpMap

    def _hidden(self, queries: Array) -> Array:
        return np.asarray(np.tanh(queries @ self.parameters["down"] + self.parameters["bias"]))

    def __call__(self, queries: Array) -> Array:
        return np.asarray(queries + self._hidden(queries) @ self.parameters["up"])

    def gradients(self, queries: Array, output: Array) -> Gradients:
        hidden = self._hidden(queries)
        inner = (output @ self.parameters["up"].T) * (1 - hidden * hidden)
        return {"down": queries.T @ inner, "up": hidden.T @ output, "bias": inner.sum(axis=0)}


class FittingOrthogonal(FittingMap):
    """Fits P, 0 at the start: of the starting map only the dimension counts, which is the identity's."""

    made = OrthogonalMap

    def __init__(self, start: QueryMap) -> None:
        self.parameters = {"free": np.zeros((start.dimension, start.dimension), np.float32)}

    def __call__(self, queries: Array) -> Array:
        return np.asarray(queries @ _cayley(self.parameters["free"])[1])

    def gradients(self, queries: Array, output: Array) -> Gradients:
        skew, rotation = _cayley(self.parameters["free"])
        one = np.eye(len(skew), dtype=skew.dtype)
        # (1 - S)ᵀ = 1 + S of a skew-symmetric S
        moved = np.linalg.solve(one + skew, (queries.T @ output) @ (one + rotation).T)
        return {"free": moved - moved.T}

    def fitted(self) -> QueryMap:
        # In float64: rounding to float32 at the end is then the only error, far below what a map may be off.
        return OrthogonalMap(_cayley(self.parameters["free"].astype(np.float64))[1].astype(np.float32))


def _cayley(free: Array) -> tuple[Array, Array]:
    """Return S and R of P."""
    skew = free - free.T
    one = np.eye(len(free), dtype=free.dtype)
    # 1 - S of a skew-symmetric S is never singular
    return skew, np.asarray(np.linalg.solve(one - skew, one + skew))


_FITTING: Mapping[str, type[FittingMap]] = {
    fitting.made.kind: fitting for fitting in (FittingFull, FittingLowRank, FittingOrthogonal, FittingMlp)
}


def fitting_map(start: QueryMap) -> FittingMap:
    """Make the map that is to be fitted from an unfitted one of any kind."""
    return _FITTING[start.kind](start)


@dataclass
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), with torch's defaults."""

    parameters: dict[str, Array]
    rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    steps: int = 0
    first: dict[str, Array] = field(init=False)
    second: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        self.first = {name: np.zeros_like(array) for name, array in self.parameters.items()}
        self.second = {name: np.zeros_like(array) for name, array in self.parameters.items()}

    def step(self, gradients: Gradients) -> None:
        """Move every parameter, in place."""
        self.steps += 1
        one, two = self.betas
        corrected, root = self.rate / (1 - one**self.steps), (1 - two**self.steps) ** 0.5
        for name, array in self.parameters.items():
            gradient, mean, square = gradients[name], self.first[name], self.second[name]
            mean += (1 - one) * (gradient - mean)
            square += (1 - two) * (gradient * gradient - square)
            array *= 1 - self.rate * self.weight_decay
            array -= corrected * mean / (np.sqrt(square) / root + self.epsilon)
