"""What a training run reports while it runs -> one line for people: steps, loss, held-out metric, time left.

`train` takes any `Progress`, a callable for the number of finished steps. One that also has `loss` and `measured`
(`TrainingProgress`) gets losses and metrics too. `Meter` is such a one.

Guarantees: a plain `Progress` works everywhere; nothing is printed. Does not know: terminals.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from qdrant_tools.records import Progress

_LOSSES_AVERAGED = 20
_STEPS_TIMED = 50


@runtime_checkable
class TrainingProgress(Protocol):
    """A `Progress` that also takes losses and held-out metrics."""

    def __call__(self, steps: int, /) -> None: ...

    def loss(self, value: float) -> None: ...

    def measured(self, name: str, value: float) -> None: ...


def report_loss(progress: Progress | None, value: float) -> None:
    """Pass on the loss of the last step, if `progress` takes losses."""
    if isinstance(progress, TrainingProgress):
        progress.loss(value)


def report_metric(progress: Progress | None, name: str, value: float) -> None:
    """Pass on a metric on held-out data, if `progress` takes metrics."""
    if isinstance(progress, TrainingProgress):
        progress.measured(name, value)


@runtime_checkable
class PhasedProgress(Protocol):
    """A `Progress` that is told what is done beside steps."""

    def __call__(self, steps: int, /) -> None: ...

    def begin(self, phase: str) -> None: ...


def report_phase(progress: Progress | None, phase: str) -> None:
    """Say what begins after the last step, if `progress` wants to know."""
    if isinstance(progress, PhasedProgress):
        progress.begin(phase)


class Meter:
    """Collects what a run reports. `total` is the number of planned steps; 0 or less: not known.

    `show` is called after each change, with this meter. Time left is judged by the last steps, so that steps that were
    done before an interruption, which arrive all at once, do not make it look fast.
    """

    def __init__(
        self, total: int, *, show: Callable[[Meter], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.steps = total, 0
        self.metrics: dict[str, float] = {}
        self.phase = ""
        """What is done now beside steps; "" while steps are taken."""
        self._losses: deque[float] = deque(maxlen=_LOSSES_AVERAGED)
        self._times: deque[tuple[int, float]] = deque([(0, clock())], maxlen=_STEPS_TIMED)
        self._show, self._clock = show, clock

    def __call__(self, steps: int, /) -> None:
        if steps > 1:  # a resumed run starts where it stopped
            self._times.clear()
        self.steps, self.phase = self.steps + steps, ""
        self._times.append((self.steps, self._clock()))
        self._changed()

    def loss(self, value: float) -> None:
        self._losses.append(value)
        self._changed()

    def measured(self, name: str, value: float) -> None:
        self.metrics[name] = value
        self._changed()

    def begin(self, phase: str) -> None:
        self.phase = phase
        self._changed()

    @property
    def mean_loss(self) -> float | None:
        """Mean loss of the last steps; a single one says little. None before the first."""
        return sum(self._losses) / len(self._losses) if self._losses else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last planned step, judged by the steps just done; None if that cannot be told."""
        (first, began), (last, now) = self._times[0], self._times[-1]
        if self.phase or not 0 < self.steps < self.total or last <= first:
            return None
        return (self.total - self.steps) * (now - began) / (last - first)

    def line(self) -> str:
        """All of it in one line, such as `step 120/400  loss 0.312  ndcg@10 0.842  1:23 left`."""
        # the plan is an estimate, and a run may take a few steps more
        parts = [f"step {self.steps}" + (f"/{max(self.total, self.steps)}" if self.total > 0 else "")]
        if self.mean_loss is not None:
            parts.append(f"loss {self.mean_loss:.3f}")
        parts += [f"{name} {value:.3f}" for name, value in self.metrics.items()]
        if (left := self.seconds_left) is not None:
            parts.append(f"{clock_time(left)} left")
        if self.phase:
            parts.append(self.phase)
        return "  ".join(parts)

    def _changed(self) -> None:
        if self._show is not None:
            self._show(self)


def clock_time(seconds: float) -> str:
    """Write a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
