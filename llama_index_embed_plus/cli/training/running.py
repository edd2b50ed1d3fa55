"""One run of training -> a line that says how far it is; Ctrl-C -> a line that says how to go on.

Does not know: options.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index_embed_plus.cli.console import changing_line, interrupted, is_terminal, note
from llama_index_embed_plus.cli.training.options import Method
from qdrant_tools.collections.collection import Collection
from qdrant_tools.records import HeldOut

if TYPE_CHECKING:  # needs the extra `train`: loaded by the commands, so that their help does not wait for it
    from llama_index_embed_plus.training.data.records import TrainingData
    from llama_index_embed_plus.training.proof.report import TrainReport
    from llama_index_embed_plus.training.settings import TrainSettings
    from llama_index_embed_plus.training.trainer.progress import Meter


def run_training(
    base: str,
    data: TrainingData | None,
    out: Path,
    settings: TrainSettings,
    held_out: HeldOut | None,
    collection: Collection | None,
) -> TrainReport:
    """Train with one line that says how far it is; Ctrl-C ends with a line that says how to go on."""
    from llama_index_embed_plus.training.run import planned_steps, train

    method = settings.method
    # an adapter counts fits
    fits = (settings.cross_fit + 1) * settings.adapter.fits
    steps = fits if method == "adapter" or data is None else planned_steps(data, settings)
    try:
        with metered(f"train {method}", steps) as meter:
            return train(
                base, data, out, settings, held_out=held_out, collection=collection, keep_held_out=True, progress=meter
            )
    except KeyboardInterrupt:
        interrupted(_interrupted(method, out))


@contextmanager
def metered(name: str, total: int) -> Iterator[Meter]:
    """One line that changes while training runs; in a log file, ten lines or so."""
    from llama_index_embed_plus.training.trainer.progress import Meter

    last_step = 0
    with changing_line(name) as change:

        def show(meter: Meter) -> None:
            nonlocal last_step
            change(meter.line())
            if not is_terminal() and meter.phase:
                note(f"{name}  {meter.line()}")
            elif not is_terminal() and meter.steps - last_step >= max(1, total // 10):
                last_step = meter.steps
                note(f"{name}  {meter.line()}")

        yield Meter(total, show=show)


def _interrupted(method: Method, out: Path) -> str:
    """What was kept, and how to go on."""
    from llama_index_embed_plus.training.trainer.checkpoint import Checkpoints, step_of

    if method == "adapter":
        return f"{out} was not written; run the same command again, an adapter takes seconds"
    # the folder where `train` keeps them; to look for the last one, the run's identity is not needed
    last = Checkpoints(out.parent / f".{out.name}-training", {}).latest()
    if last is None:
        return "before the first checkpoint; run the same command again to begin anew"
    return f"{step_of(last)} steps are kept in {last}; run the same command again to go on from there"
