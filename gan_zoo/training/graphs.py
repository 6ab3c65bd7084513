"""Whole iterations as CUDA graphs: a GPU that small networks leave waiting is launched once.

What an iteration does on the GPU is recorded the fourth time that an iteration of its kind comes,
and replayed from then on. Random numbers, data and learning rates are those of the plain path; so
are losses and weights, but for rounding, as a recorded optimizer has its rate in float32.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from gan_zoo.training.averaging import MovingAverage

# Iterations of a kind before it is recorded: torch asks for some on the recording's stream.
_WARM_UP = 3
# Others read their rate or their state on the CPU.
_RECORDABLE = (Adam, AdamW, RMSprop)


class Recorder(Protocol):
    """Records what a function does on a device."""

    def warm_up(self, function: Callable[[], None]) -> None:
        """Runs it as it will be recorded."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Calls it, which records its work without doing it; the result does that work."""


class CudaRecorder:
    """Records CUDA graphs, which share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None

    def warm_up(self, function: Callable[[], None]) -> None:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as one that pins memory, may go on meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            function()
        self._pool = graph.pool()
        return graph.replay


class Recorded(Protocol):
    """What of a model an iteration changes beside tensors."""

    latest: dict[str, dict[str, Tensor]]
    counts: dict[str, int]


class _Kind:
    """Iterations that do the same: how many have come, and their recording."""

    def __init__(self) -> None:
        self.came = 0
        self.replay: Callable[[], None] | None = None
        self.batch: Any = None
        self.latest: dict[str, dict[str, Tensor]] = {}
        self.counted: dict[str, int] = {}
        self.inputs: list[tuple[Any, ...] | None] = []


class IterationGraphs:
    """Plays a model's iterations, recorded by their kind.

    No gradient may be kept from one iteration to the next, and no number be read from the device.

    Args:
        model: whose ``latest`` and ``counts`` are kept up.
        averages: their inputs are kept up.
        optimizers: what the iterations step.
        recorder: of the model's device.
    """

    def __init__(
        self,
        model: Recorded,
        averages: Sequence[MovingAverage],
        optimizers: Sequence[Optimizer],
        recorder: Recorder,
    ) -> None:
        self._model, self._averages, self._recorder = model, averages, recorder
        self._optimizers = optimizers
        self._kinds: dict[Hashable, _Kind] = {}
        self._rates: list[tuple[dict[str, Any], Tensor]] = []

    def play(self, batch: Any, key: Hashable, iteration: Callable[[Any], None]) -> None:
        """One iteration.

        Args:
            batch: a NamedTuple of tensors, each time of the same shapes.
            key: iterations with the same key do the same.
            iteration: does it on a batch.
        """
        kind = self._kinds.setdefault((key, tuple(field.shape for field in batch)), _Kind())
        kind.came += 1
        if kind.came <= _WARM_UP:
            self._recorder.warm_up(lambda: iteration(batch))
            return
        if kind.replay is None:
            self._record(kind, batch, iteration)
            return
        for kept, field in zip(kind.batch, batch, strict=True):
            kept.copy_(field)
        self._play(kind)
        for name, count in kind.counted.items():
            self._model.counts[name] += count

    def _record(self, kind: _Kind, batch: Any, iteration: Callable[[Any], None]) -> None:
        model = self._model
        kind.batch = type(batch)(*(field.clone() for field in batch))
        counts, latest = dict(model.counts), dict(model.latest)
        with self._recordable_optimizers():
            kind.replay = self._recorder.record(lambda: iteration(kind.batch))
        kind.counted = {name: n - counts.get(name, 0) for name, n in model.counts.items()}
        kind.latest = {
            phase: terms for phase, terms in model.latest.items() if terms is not latest.get(phase)
        }
        kind.inputs = [average.inputs for average in self._averages]
        self._play(kind)

    def _play(self, kind: _Kind) -> None:
        for group, rate in self._rates:
            rate.fill_(group["lr"])
        assert kind.replay is not None
        kind.replay()
        # Copies: what is kept to be checked later must not change with the next iteration.
        for phase, terms in kind.latest.items():
            loss = f"loss_{phase}"
            self._model.latest[phase] = terms | {loss: terms[loss].clone()}
        for average, inputs in zip(self._averages, kind.inputs, strict=True):
            average.inputs = inputs

    @contextmanager
    def _recordable_optimizers(self) -> Iterator[None]:
        """Has the optimizers read their rates from the device meanwhile."""
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        for optimizer in self._optimizers:
            for weight, state in optimizer.state.items():
                if isinstance(state.get("step"), Tensor):
                    state["step"] = state["step"].to(weight.device)
        if not self._rates:
            self._rates = [
                (group, torch.zeros((), device=group["params"][0].device)) for group in groups
            ]
        before = [(group["lr"], group["capturable"]) for group in groups]
        for group, rate in self._rates:
            group.update(lr=rate, capturable=True)
        try:
            yield
        finally:
            for group, (rate, capturable) in zip(groups, before, strict=True):
                group.update(lr=rate, capturable=capturable)


def recordable(optimizers: Sequence[Optimizer], schedulers: Sequence[Any] = ()) -> bool:
    """Whether all of these optimizers can be recorded, with these schedules of their rates.

    A recording keeps Adam's betas and RMSprop's momentum, which some schedules change too.
    """
    rates_alone = not any(getattr(schedule, "cycle_momentum", False) for schedule in schedulers)
    return rates_alone and all(isinstance(optimizer, _RECORDABLE) for optimizer in optimizers)
