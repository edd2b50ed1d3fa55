"""What a trainer needs beside the weights to go on -> files of numbers, and back.

::

    optimizer.safetensors      the moments of AdamW, `INDEX.NAME`, by the number of the parameter
    optimizer.json             learning rates, where the schedule is, the scale of float16
    random-PROCESS.safetensors the generators of Python, numpy and torch
    losses.safetensors         the loss of every step so far

Guarantees: nothing is pickled, so that a folder that somebody else made can hold numbers only; what is read has the
shapes that this trainer's own state has, and anything else is `ValueError`. What follows from the settings alone, such
as the options of the optimizer, is not taken from a file. Does not know: weights, folders of checkpoints.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerState

from llama_index_embed_plus.models.weights import tensors_of
from qdrant_tools.files.json_files import read_json

OPTIMIZER, OPTIMIZER_NUMBERS, LOSSES = "optimizer.safetensors", "optimizer.json", "losses.safetensors"
TRAINER_STATE = "trainer_state.json"
_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
_SCHEDULE = ("last_epoch", "_step_count")
_LARGEST = 2**63
"""No counter of a run reaches it, and torch holds no larger whole number."""
_MOST_STATE = 1 << 20
# words of a Mersenne twister, as `random.getstate` and `numpy.random.get_state` give them
_PYTHON_WORDS, _NUMPY_WORDS = 625, 624


def save_optimizer(place: Path, optimizer: Any, schedule: Any, scaler: Any) -> None:
    """Write the moments of `optimizer`, and where the schedule and the scaler of float16 are."""
    state = optimizer.state_dict()
    moments = {f"{i}.{name}": value for i, values in state["state"].items() for name, value in values.items()}
    # copies: tensors that share memory are refused
    save_file({name: tensor.detach().cpu().clone() for name, tensor in moments.items()}, place / OPTIMIZER)
    where = schedule.state_dict()
    numbers: dict[str, Any] = {
        "rates": [float(group["lr"]) for group in state["param_groups"]],
        "schedule": {name: where[name] for name in _SCHEDULE},
        "last_rates": [float(rate) for rate in where["_last_lr"]],
    }
    if scaler is not None and (scale := scaler.state_dict()):
        numbers["scale"], numbers["growth_tracker"] = float(scale["scale"]), int(scale["_growth_tracker"])
    (place / OPTIMIZER_NUMBERS).write_text(json.dumps(numbers) + "\n", "utf-8")


def load_optimizer(place: Path, optimizer: Any, schedule: Any) -> None:
    """Give `optimizer` and `schedule` back what `save_optimizer` wrote. Raises ValueError, KeyError or TypeError."""
    numbers = _numbers(place)
    own = optimizer.state_dict()
    groups = own["param_groups"]
    rates = finite(numbers["rates"], count=len(groups))
    shapes = {
        number: tensor.shape
        for group, held in zip(groups, optimizer.param_groups)
        for number, tensor in zip(group["params"], held["params"])
    }
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in numbers_of(place / OPTIMIZER).items():
        number, _, moment = name.partition(".")
        known = number.isdecimal() and len(number) < 10 and int(number) in shapes and moment in _MOMENTS
        if not known or tensor.shape != (torch.Size() if moment == "step" else shapes[int(number)]):
            raise ValueError(f"{name[:60]!r} is no moment of this optimizer")
        moments.setdefault(int(number), {})[moment] = tensor
    if any(set(each) != _MOMENTS for each in moments.values()):
        raise ValueError("moments are missing")
    where = numbers["schedule"]
    if set(where) != set(_SCHEDULE):
        raise ValueError("it does not say where the schedule is")
    state = {**own, "state": moments, "param_groups": [{**group, "lr": rate} for group, rate in zip(groups, rates)]}
    optimizer.load_state_dict(state)
    last = finite(numbers["last_rates"], count=len(groups))
    schedule.load_state_dict(
        {**schedule.state_dict(), **{name: whole(where[name]) for name in _SCHEDULE}, "_last_lr": last}
    )


def load_scaler(place: Path, scaler: Any) -> None:
    """Give the scaler of float16 its scale back. Raises as `load_optimizer`."""
    numbers = _numbers(place)
    own = scaler.state_dict()
    if own:
        (scale,) = finite([numbers["scale"]], count=1)
        scaler.load_state_dict({**own, "scale": scale, "_growth_tracker": whole(numbers["growth_tracker"])})


def save_random(file: Path) -> None:
    """Write the states of the random generators of this process."""
    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor(np.asarray(keys).astype(np.int64)),
        "numpy_gauss": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
        "torch": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.random.get_rng_state()
    save_file(tensors, file)


def load_random(file: Path) -> None:
    """Set the random generators. Raises ValueError, KeyError, TypeError or RuntimeError, and sets none by half."""
    saved = numbers_of(file)
    words, keys = saved["python"].tolist(), saved["numpy"].tolist()
    position, has_gauss, cached = saved["numpy_gauss"].tolist()
    gauss = saved["python_gauss"].tolist()
    if len(words) != _PYTHON_WORDS or len(keys) != _NUMPY_WORDS or len(gauss) > 1:
        raise ValueError("the state of a random generator has another size")
    if not all(0 <= word < 2**32 for word in (*words, *keys)) or not 0 <= position <= _NUMPY_WORDS:
        raise ValueError("the state of a random generator has words of another size")
    torch.random.set_rng_state(saved["torch"])
    random.setstate((3, tuple(words), gauss[0] if gauss else None))
    np.random.set_state(("MT19937", np.array(keys, np.uint32), int(position), int(bool(has_gauss)), cached))
    if torch.cuda.is_available() and "cuda" in saved:
        torch.cuda.random.set_rng_state(saved["cuda"])


def save_losses(place: Path, losses: Sequence[float]) -> None:
    """Write the losses of the steps so far."""
    save_file({"losses": torch.tensor(losses, dtype=torch.float64)}, place / LOSSES)


def load_losses(place: Path, *, steps: int) -> list[float]:
    """The losses of `steps` steps. Raises ValueError or KeyError."""
    return finite(numbers_of(place / LOSSES)["losses"].tolist(), count=steps)


def check_counters(place: Path, *, step: int) -> None:
    """Require `trainer_state.json` to hold what the library writes there: plain numbers, of a run at `step`."""
    saved = read_json(place / TRAINER_STATE, most=_MOST_STATE)
    if not isinstance(saved, dict) or saved.get("global_step") != step or isinstance(saved["global_step"], bool):
        raise ValueError(f"{TRAINER_STATE} is not that of step {step}")
    usual = TrainerState()
    known = {field.name for field in fields(TrainerState)}
    for name, value in saved.items():
        default = getattr(usual, name, None)
        if name not in known or not _is_alike(value, default):
            raise ValueError(f"{TRAINER_STATE} says {name[:60]!r} in a way that no run does")


def numbers_of(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises ValueError for one that is not finite."""
    tensors_of(file)  # its header is checked before the library reserves memory for it
    tensors: dict[str, torch.Tensor] = load_file(file)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name[:60]!r} of {file.name} is not finite")
    return tensors


def finite(values: Any, *, count: int) -> list[float]:
    """`values` as a list of `count` finite numbers. Raises ValueError."""
    if not isinstance(values, list) or len(values) != count or not all(map(_is_number, values)):
        raise ValueError(f"expected {count} finite numbers")
    return [float(value) for value in values]


def whole(value: Any) -> int:
    """`value` as a whole number from 0 on. Raises ValueError."""
    if not isinstance(value, int) or not _is_number(value) or value < 0:
        raise ValueError("expected a whole number from 0 on")
    return value


def _numbers(place: Path) -> Mapping[str, Any]:
    saved = read_json(place / OPTIMIZER_NUMBERS, most=_MOST_STATE)
    if not isinstance(saved, dict):
        raise ValueError(f"{OPTIMIZER_NUMBERS} holds no object")
    return saved


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else -_LARGEST < value < _LARGEST


def _is_alike(value: Any, default: Any) -> bool:
    """Whether a counter is of the kind that a run has there. What runs here never set may be absent only."""
    if isinstance(default, bool) or default is None:
        return value is None or isinstance(value, bool) or (default is None and _is_number(value))
    if isinstance(default, (int, float)):
        return _is_number(value) and value >= 0
    return isinstance(value, type(default)) and (not value or isinstance(value, dict))
