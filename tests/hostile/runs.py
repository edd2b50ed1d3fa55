"""What a stranger may put into a model folder or an interrupted run: pickles that leave a mark, links, odd state."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Change = Callable[[Path], object]


class Evil:
    """Unpickled, it makes the file `mark`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def pickles(mark: Path) -> dict[str, bytes]:
    """One payload in the formats that torch has read over the years."""
    new, old = mark.with_name("new.bin"), mark.with_name("old.bin")
    torch.save({"weight": Evil(mark)}, new)
    torch.save({"weight": Evil(mark)}, old, _use_new_zipfile_serialization=False)
    made = {"zip": new.read_bytes(), "legacy": old.read_bytes(), "plain": pickle.dumps(Evil(mark))}
    new.unlink()
    old.unlink()
    return made


def text(name: str, content: str) -> Change:
    return lambda place: (place / name).write_text(content)


def gone(name: str) -> Change:
    return lambda place: (place / name).unlink()


def garbage(name: str) -> Change:
    return lambda place: (place / name).write_bytes(b"\x00\x01garbage" * 9)


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    """Change the tensors of a file of numbers."""

    def made(place: Path) -> None:
        held = load_file(place / name)
        change(held)
        save_file(held, place / name)

    return made


def values(name: str, **changes: object) -> Change:
    """Change the values of a JSON file."""

    def made(place: Path) -> None:
        (place / name).write_text(json.dumps({**json.loads((place / name).read_text()), **changes}))

    return made


def first(held: dict[str, torch.Tensor], ending: str) -> str:
    return next(name for name in held if name.endswith(ending))


# changes of a checkpoint after which it is none that a run wrote
STATE: dict[str, Change] = {
    "no weights": gone("weights.safetensors"),
    "no moments": gone("optimizer.safetensors"),
    "no numbers": gone("optimizer.json"),
    "no random states": gone("random-0.safetensors"),
    "no losses": gone("losses.safetensors"),
    "no counters": gone("trainer_state.json"),
    "weights of garbage": garbage("weights.safetensors"),
    "moments of garbage": garbage("optimizer.safetensors"),
    "a header of 99 megabytes": lambda place: (place / "optimizer.safetensors").write_bytes(
        (99 << 20).to_bytes(8, "little") + b"{"
    ),
    "a moment of another shape": tensors(
        "optimizer.safetensors", lambda held: held.update({first(held, ".exp_avg"): torch.zeros(3)})
    ),
    "a moment that is no number": tensors(
        "optimizer.safetensors", lambda held: held[first(held, ".exp_avg")].fill_(torch.nan)
    ),
    "a moment too few": tensors("optimizer.safetensors", lambda held: held.pop(first(held, ".exp_avg_sq"))),
    "a moment of nothing": tensors("optimizer.safetensors", lambda held: held.update({"x.y": torch.zeros(1)})),
    "a parameter beyond all": tensors(
        "optimizer.safetensors", lambda held: held.update({f"{'9' * 400}.step": torch.zeros(())})
    ),
    "weights of another shape": tensors(
        "weights.safetensors", lambda held: held.update({first(held, "weight"): torch.zeros(3)})
    ),
    "weights too few": tensors("weights.safetensors", lambda held: held.pop(first(held, "weight"))),
    "losses too few": tensors("losses.safetensors", lambda held: held.update({"losses": torch.zeros(1)})),
    "losses that are none": tensors("losses.safetensors", lambda held: held["losses"].fill_(torch.inf)),
    "random words too few": tensors("random-0.safetensors", lambda held: held.update({"python": torch.zeros(3)})),
    "random words too large": tensors("random-0.safetensors", lambda held: held["numpy"].fill_(2**40)),
    "a random state too short": tensors(
        "random-0.safetensors", lambda held: held.update({"torch": torch.zeros(9, dtype=torch.uint8)})
    ),
    "rates that are texts": values("optimizer.json", rates=["1"]),
    "rates beyond floats": values("optimizer.json", rates=[10**400]),
    "a schedule that is a list": values("optimizer.json", schedule=[1]),
    "a schedule that is negative": values("optimizer.json", schedule={"last_epoch": -1, "_step_count": 1}),
    "another step": values("trainer_state.json", global_step=3),
    "a step that is true": values("trainer_state.json", global_step=True),
    "an epoch that is a text": values("trainer_state.json", epoch="1"),
    "steps beyond 64 bits": values("trainer_state.json", max_steps=2**70),
    "a history": values("trainer_state.json", log_history=[{"loss": "x"}]),
    "an unknown counter": values("trainer_state.json", evil=1),
    "counters that are deep": text("trainer_state.json", "[" * 100_000),
    "counters without end": lambda place: os.truncate(place / "trainer_state.json", 5 << 30),
    "a mini-batch that is a text": values("embed_plus_run.json", mini_batch="1"),
    "notes that are a number": values("embed_plus_run.json", notes=3),
}


def to_folder(path: Path, target: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(target)


def to_file(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
