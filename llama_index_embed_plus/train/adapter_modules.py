"""The maps of `adapter.maps` as torch modules, to be fitted.

Guarantees: each starts as the map it was made of; `forward` gives what the numpy map gives, to 1e-6; `fitted()` is a
map with the weights of the moment. The orthogonal one is parametrised by Cayley's transform, R = (1 - S)⁻¹ (1 + S) with
S = P - Pᵀ (Cayley 1846; as in Helfrich et al. 2018, arXiv 1707.09520): every P gives a rotation, so any optimiser may
move it. It reaches all rotations but those that turn something by exactly 180 degrees.
Does not know: losses, data.
"""

from __future__ import annotations

import numpy as np
import torch

from llama_index_embed_plus.adapter.maps import MAPS, FullMap, LowRankMap, MlpMap, OrthogonalMap, QueryMap


class AdapterModule(torch.nn.Module):
    """A map that can be fitted: (n, dimension) -> (n, dimension), not normalised."""

    def __init__(self, start: QueryMap) -> None:
        super().__init__()
        for name, array in start.arrays().items():
            self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(array.copy())))

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def fitted(self) -> QueryMap:
        """Return the map with the weights of the moment, in numpy."""
        raise NotImplementedError

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: value.detach().numpy().copy() for name, value in self.named_parameters()}


class FullModule(AdapterModule):
    weight: torch.Tensor

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries + queries @ self.weight

    def fitted(self) -> QueryMap:
        return FullMap.of(self._arrays())


class LowRankModule(AdapterModule):
    down: torch.Tensor
    up: torch.Tensor

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries + (queries @ self.down) @ self.up

    def fitted(self) -> QueryMap:
        return LowRankMap.of(self._arrays())


class MlpModule(AdapterModule):
    down: torch.Tensor
    up: torch.Tensor
    bias: torch.Tensor

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries + torch.tanh(queries @ self.down + self.bias) @ self.up

    def fitted(self) -> QueryMap:
        return MlpMap.of(self._arrays())


class OrthogonalModule(AdapterModule):
    """Fits P, 0 at the start: of the starting map only the dimension counts, which is the identity's."""

    def __init__(self, start: QueryMap) -> None:
        torch.nn.Module.__init__(self)
        self.free = torch.nn.Parameter(torch.zeros(start.dimension, start.dimension))

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries @ _cayley(self.free)

    def fitted(self) -> QueryMap:
        # In float64: rounding to float32 at the end is then the only error, far below what a map may be off.
        return OrthogonalMap(_cayley(self.free.detach().double()).float().numpy())


def _cayley(free: torch.Tensor) -> torch.Tensor:
    skew = free - free.T
    one = torch.eye(len(free), dtype=free.dtype)
    rotation: torch.Tensor = torch.linalg.solve(one - skew, one + skew)
    return rotation


_MODULES: dict[str, type[AdapterModule]] = dict(
    zip(MAPS, (FullModule, LowRankModule, OrthogonalModule, MlpModule), strict=True)
)


def module_of(start: QueryMap) -> AdapterModule:
    """Make the module that starts as an unfitted map of any kind."""
    return _MODULES[start.kind](start)
