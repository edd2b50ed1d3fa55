"""Two weight files and a coefficient -> the weight file between them. The door of `merge` to torch and safetensors.

Guarantees: names, types and metadata are the tuned model's; at 0 and 1 every value is one model's, bit for bit; whole
numbers stay as they are. Does not know: models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from llama_index_embed_plus.errors import DamagedModelError, TrainingError
from qdrant_tools.errors import UsageError


def write_between(base: Mapping[str, Path], tuned: Path, coefficient: float, out: Path) -> None:
    """Write one weight file: the tuned model's names, types and metadata, values between both.

    base: name of a tensor -> the file of the base that holds it.

    Raises:
        UsageError: the base lacks a tensor, or has it in another shape.
        DamagedModelError: a value between the two is not finite.
        TrainingError: a file cannot be read or written as safetensors.
    """
    try:
        _write_between(base, tuned, coefficient, out)
    except SafetensorError as error:
        raise TrainingError(f"{out} cannot be written ({error}): make room, or give another folder") from error


def _write_between(base: Mapping[str, Path], tuned: Path, coefficient: float, out: Path) -> None:
    with safe_open(tuned, framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        # whole numbers, such as position ids, stay as they are
        if not tensor.is_floating_point():
            continue
        if name not in base:
            raise UsageError(f"the base has no tensor {name!r}, which {tuned} has: they are not of one architecture")
        with safe_open(base[name], framework="pt") as opened:
            before = opened.get_tensor(name)
        if before.shape != tensor.shape:
            shapes = f"{tuple(before.shape)} and {tuple(tensor.shape)}"
            raise UsageError(f"tensor {name!r} has the shapes {shapes}: only equal architectures can be averaged")
        tensors[name] = _between(before, tensor, coefficient)
        if not bool(torch.isfinite(tensors[name]).all()):
            raise DamagedModelError(f"tensor {name!r} of {tuned} is not finite between the two: train again")
    save_file(tensors, out, metadata=metadata)


def _between(base: torch.Tensor, tuned: torch.Tensor, coefficient: float) -> torch.Tensor:
    if coefficient in (0, 1):
        return tuned if coefficient else base.to(tuned.dtype)  # the formula would lose the sign of a zero
    return ((1 - coefficient) * base.double() + coefficient * tuned.double()).to(tuned.dtype)
