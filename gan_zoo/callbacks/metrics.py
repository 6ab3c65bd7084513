"""A cheap set of metrics through a run, and the best checkpoint by one of them."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
import torch
from torch.utils.data import Subset

from gan_zoo.data import InMemoryDataModule
from gan_zoo.metrics import silent
from gan_zoo.metrics.measures import (
    MEASURES,
    ImageSet,
    Reference,
    image_sets,
    in_domain,
    reference_for,
)
from gan_zoo.models.base import AdversarialModule
from gan_zoo.options import refuse_unless_whole
from gan_zoo.ranges import Range, refuse_unfit

log = logging.getLogger(__name__)

# The figures of metrics that give others than one of their own name.
_FIGURES = {
    "prdc": ("precision", "recall", "density", "coverage"),
    "modes": ("modes", "modes_kl"),
}
# What is better when it is higher; of all others the lower is.
_HIGHER = ("score", "precision", "recall", "density", "coverage", "modes", "accuracy")


class Metrics(pl.Callback):
    """Measures the model's images every so many iterations, and after the last one.

    Figures go to the loggers as ``metrics/<figure>``, of two domains as ``metrics/<figure>_a`` and
    ``_b`` with their mean under the name alone; their floors, of as many real images, once as
    ``metrics_floor/<figure>``. The noise is the same each time. ``best.ckpt`` is the checkpoint at
    the best of the figure that ``monitor`` names, which the table of runs shows as
    ``best/<figure>``.

    Runs of fewer iterations than ``every_n_steps`` are not measured, nor is data without classes.

    Args:
        dirpath: folder of the checkpoints.
        cache_dir: where evaluators and floors are kept.
        metrics: names in gan_zoo.metrics.measures.MEASURES that look at features alone; what a
            model is never asked for is left out.
        monitor: the figure that tells which checkpoint is best.
        num_samples: how many images, of all processes together.
        every_n_steps: iterations between them.
        max_share: most of the training time that measuring may take, beside what is made once
            and kept: where it would take more, the interval is made longer, and that is said; None
            for no bound, and so for the same steps whatever the machine does.
        seed: of the noise.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(
        self,
        dirpath: str | Path,
        cache_dir: str | Path = "~/.cache/gan_zoo",
        metrics: Sequence[str] = ("fid", "score", "prdc", "modes", "accuracy"),
        monitor: str = "fid",
        num_samples: int = 2000,
        every_n_steps: int = 1000,
        max_share: float | None = 0.05,
        seed: int = 0,
    ) -> None:
        for name in metrics:
            if name not in MEASURES or "pixels" in MEASURES[name].needs:
                cheap = [n for n, measure in MEASURES.items() if "pixels" not in measure.needs]
                raise ValueError(
                    f"callbacks.metrics.metrics has '{name}'; in training there are: "
                    f"{', '.join(cheap)}. scripts/evaluate.py has the others."
                )
        figures = [figure for name in metrics for figure in _FIGURES.get(name, (name,))]
        if re.sub("_[ab]$", "", monitor) not in figures:
            raise ValueError(
                f"callbacks.metrics.monitor is {monitor}; of these metrics it has to be one of: "
                f"{', '.join(figures)}."
            )
        refuse_unless_whole("callbacks.metrics.num_samples", num_samples, 10, 10**7)
        refuse_unless_whole("callbacks.metrics.every_n_steps", every_n_steps, 1)
        refuse_unless_whole("callbacks.metrics.seed", seed, 0)
        share = Annotated[float, Range(0, 1, above=True)]
        refuse_unfit("callbacks.metrics.max_share", max_share, share | None)
        self.dirpath = Path(dirpath)
        self.cache_dir = Path(cache_dir).expanduser()
        self.metrics = list(metrics)
        self.monitor = monitor
        self.num_samples = num_samples
        self.every_n_steps = every_n_steps
        self.max_share = max_share
        self.seed = seed
        self.figures: dict[str, float] = {}
        self.best: float | None = None
        self.best_step = 0
        self._interval = every_n_steps
        self._measured_at = 0
        self._references: dict[str, Reference] = {}

    def promised(self, trainer: pl.Trainer, data: InMemoryDataModule) -> list[str]:
        """What the table of runs will show of a run on this data."""
        return [f"best/{self.monitor}"] if self._takes_place(trainer, data) else []

    def on_train_start(self, trainer: pl.Trainer, pl_module: AdversarialModule) -> None:  # type: ignore[override]
        if self._takes_place(trainer, trainer.datamodule):  # type: ignore[attr-defined]
            self._refuse_what_is_never_measured(trainer, pl_module)
            with torch.random.fork_rng(devices=[]):
                self._prepare(trainer)
        self._begun, self._begun_at = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: AdversarialModule,  # type: ignore[override]
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        due = step % self.every_n_steps == 0 and step - self._measured_at >= self._interval
        if due and self._references:
            self._measured_at = step
            self._measure(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: AdversarialModule) -> None:  # type: ignore[override]
        # Not a part of the rhythm, which a longer run keeps to.
        if self.figures and self._references and self._measured_at < trainer.global_step:
            self._measure(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_step": self.best_step,
            "figures": dict(self.figures),
            "interval": self._interval,
            "measured_at": self._measured_at,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.best_step = state_dict["best_step"]
        self.figures = dict(state_dict["figures"])
        self._interval = state_dict["interval"]
        self._measured_at = state_dict["measured_at"]

    def _takes_place(self, trainer: pl.Trainer, data: InMemoryDataModule) -> bool:
        long_enough = trainer.max_steps < 0 or trainer.max_steps >= self.every_n_steps
        return long_enough and data.has_classes

    def _refuse_what_is_never_measured(self, trainer: pl.Trainer, model: AdversarialModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        figure, _, domain = self.monitor.partition("_")
        if domain in ("a", "b") and domain not in data.domains:
            raise ValueError(
                f"callbacks.metrics.monitor is {self.monitor}, and {data.title} has one domain: "
                f"{figure} would do."
            )
        real = model.real_images(data.source().__getitems__([0]))
        if figure == "accuracy" and any(images.label is None for images in real.values()):
            raise ValueError(
                f"callbacks.metrics.monitor is {self.monitor}, and a {type(model).__name__} is not "
                "asked for classes that it could get right: fid, say, would do."
            )

    def _prepare(self, trainer: pl.Trainer) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]

        def make() -> None:
            for domain in data.domains:
                self._references[domain] = reference_for(data, domain, self.cache_dir)

        # The others find what the first process has trained and kept.
        if trainer.is_global_zero:
            make()
        trainer.strategy.barrier()
        if not self._references:
            make()
        # Not a part of the first measurement's time.
        for reference in self._references.values():
            reference.test.judged  # noqa: B018

    def _measure(self, trainer: pl.Trainer, model: AdversarialModule) -> None:
        begun, first = time.monotonic(), not self.figures
        model.share_buffers()
        # What is drawn here must not change what is trained.
        with torch.random.fork_rng(devices=[]):
            images = self._images(trainer, model)
            found = self._found(images)
        trained, steps = begun - self._begun, trainer.global_step - self._begun_at
        self.figures = {f"metrics/{name}": value for name, value in found.items()}
        for logger in trainer.loggers:
            logger.log_metrics(self.figures, trainer.global_step)
        self._keep_best(trainer, found)
        self._bound(trainer, time.monotonic() - begun, trained / steps)
        if first and trainer.is_global_zero:
            self._log_floors(trainer, images)
        self._begun, self._begun_at = time.monotonic(), trainer.global_step

    def _images(self, trainer: pl.Trainer, model: AdversarialModule) -> dict[str, ImageSet]:
        """What all processes' images are seen as, by domain."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        rank, world = trainer.global_rank, trainer.world_size
        random = torch.Generator().manual_seed(self.seed + rank)
        source = data.source()
        source = Subset(source, range(rank, len(source), world))
        count = self.num_samples // world
        return image_sets(model.generated_images(count, source, random), self._references, count)

    def _found(self, images: dict[str, ImageSet]) -> dict[str, float]:
        """The figures of each domain, and of two their mean."""
        found: dict[str, dict[str, float]] = {}
        for domain, name in self._measured(images):
            reference = self._references[domain]
            figures = MEASURES[name].function(images[domain], reference, self.seed, silent)
            for key, figure in figures.items():
                found.setdefault(key, {})[domain] = float(figure.value)
        values = {}
        for key, by_domain in found.items():
            values[key] = sum(by_domain.values()) / len(by_domain)
            if len(by_domain) > 1:
                values |= {in_domain(key, domain): value for domain, value in by_domain.items()}
        return values

    def _log_floors(self, trainer: pl.Trainer, images: dict[str, ImageSet]) -> None:
        floors: dict[str, float] = {}
        for domain, name in self._measured(images):
            floor = self._references[domain].floor(name, len(images[domain]), self.seed)
            floors |= {
                f"metrics_floor/{in_domain(key, domain)}": f.value for key, f in floor.items()
            }
        for logger in trainer.loggers:
            logger.log_metrics(floors, trainer.global_step)

    def _measured(self, images: dict[str, ImageSet]) -> list[tuple[str, str]]:
        """The metrics of each domain: those by labels only of a model that is asked for classes."""
        return [
            (domain, name)
            for domain, generated in images.items()
            for name in self.metrics
            if generated.labelled or "labels" not in MEASURES[name].needs
        ]

    def _keep_best(self, trainer: pl.Trainer, found: dict[str, float]) -> None:
        value = found[self.monitor]
        sign = -1 if self.monitor in _HIGHER else 1
        if math.isfinite(value) and (self.best is None or sign * value < sign * self.best):
            self.best, self.best_step = value, trainer.global_step
            for logger in trainer.loggers:
                logger.log_metrics({f"best/{self.monitor}": value}, trainer.global_step)
            trainer.save_checkpoint(self.dirpath / "best.ckpt")

    def _bound(self, trainer: pl.Trainer, cost: float, step_time: float) -> None:
        """Makes the interval longer if a measurement would take too large a share of it."""
        if self.max_share is None:
            return
        needed = cost / (self.max_share * max(step_time, 1e-9)) / self.every_n_steps
        interval = trainer.strategy.broadcast(math.ceil(needed)) * self.every_n_steps
        if interval > self._interval:
            self._interval = interval
            if trainer.is_global_zero:
                log.info(
                    "Measuring takes %.1f s, and is done every %s iterations now, so as to take at "
                    "most %g %% of the time (callbacks.metrics.max_share).",
                    cost,
                    f"{interval:,}",
                    100 * self.max_share,
                )
