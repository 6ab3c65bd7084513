"""What a run tells the search that it is a trial of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytorch_lightning as pl

from gan_zoo.callbacks.metrics import Metrics

# (iteration, monitored figure) -> whether the trial is hopeless.
Report = Callable[[int, float], bool]


class Pruning(pl.Callback):
    """Ends a run that a search thinks hopeless, after a measurement.

    Outside of a search it does nothing. It stands after Metrics among a trainer's callbacks.
    """

    _report: ClassVar[Report | None] = None

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    @classmethod
    @contextmanager
    def reporting(cls, report: Report) -> Iterator[None]:
        """Has the run that is trained within report its measurements."""
        cls._report = report
        try:
            yield
        finally:
            cls._report = None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        report = type(self)._report
        if report is None:
            return
        for metrics in (c for c in trainer.callbacks if isinstance(c, Metrics)):  # type: ignore[attr-defined]
            if metrics.measured and metrics.measured is not self._told:
                self._told = metrics.measured
                figure = metrics.measured[f"metrics/{metrics.monitor}"]
                if report(trainer.global_step, figure):
                    trainer.should_stop = True
