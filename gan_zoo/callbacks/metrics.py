"""A cheap set of metrics during a run, and the best checkpoint by one of them."""

import logging
import math
import statistics
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import pytorch_lightning as pl
import torch
from torch.utils.data import Subset

from gan_zoo.data import InMemoryDataModule
from gan_zoo.files import cache_dir
from gan_zoo.metrics import silent
from gan_zoo.metrics.measures import MEASURES, available, floor_of
from gan_zoo.metrics.reference import ImageSet, Reference, image_sets, in_domain, reference_for
from gan_zoo.models.protocols import Sampled
from gan_zoo.ranges import PositiveShare, Range, Seed, Steps, UnfitArgument, checked
from gan_zoo.training.checkpoints import checkpoint_folder
from gan_zoo.training.reporting import report_figures

log = logging.getLogger(__name__)

# What a resumed run continues with.
_STATE = (
    "best", "best_step", "measured", "floors", "reached", "seconds", "_interval", "_measured_at",
    "_needed",
)  # fmt: skip
# So many measurements, each slow or fast by chance, decide together how far apart they are.
_MEDIAN_OF = 5
# Frechet distances, of the package's evaluator, whose first time a run keeps.
LEVELS = (5, 2, 1)
# What no measure in training may need of the images.
_COSTLY = {"pixels", "inception"}
# Fewer images are too few for precision and recall with k=5, and for any meaning.
_LEAST_HELD_OUT = 10


class Metrics(pl.Callback):
    """Measures the model's images every ``every_n_steps`` iterations, and after the last one.

        trainer = pl.Trainer(callbacks=[Metrics(monitor="precision")])
        trainer.fit(model, data)

    Images are measured against the validation images, so that the test images are left for the
    final evaluation; where nothing is held out, against the training images. Figures are logged as
    ``metrics/<figure>``, with two domains as ``metrics/<figure>_a`` and ``_b`` and their mean under
    the name alone; beside them the floors, measured on as many training images, as
    ``metrics_floor/<figure>``. The seed's noise is the same each time. ``best.ckpt`` is the
    checkpoint with the best monitored figure, which the table of runs shows as ``best/<figure>``.

    When the Frechet distance (with two domains their mean) is first 5, 2 and 1 or less,
    ``reached/fid_5_seconds`` and ``reached/fid_5_images`` (and so on) are logged: the time that
    training took up to there, without measuring, and the images that it had seen. It is known to
    the nearest measurement, and 2,000 images have a larger distance than 10,000.

    Data without classes is not measured.

    Args:
        metrics: names in gan_zoo.metrics.measures.MEASURES that need no pixels or Inception; those
            that need labels are left out for models that are not asked for classes.
        monitor: the figure that the best checkpoint is chosen by.
        num_samples: number of images, over all processes.
        max_share: the largest share of the training time that measuring may take, without what is
            computed once and cached. If the last measurements took more (the lower median of five,
            at first of two), the interval grows until they take less, and a log line says so. None
            for no bound: the steps are then the same on any machine. The jobs of a multirun have
            none, whatever is asked for, so that they are all measured at the same steps.

    Attributes:
        measured: tag -> value of the latest measurement.
        floors: tag -> floor, from the first measurement on.
        reached: tag -> seconds or images, of the distances that were reached.
        seconds: how long training has taken up to the latest measurement, without measuring.
        higher_is_better: whether it is, of the monitored figure.
        best, best_step: the best monitored figure and its iteration; None and 0 before the first.
    """

    @checked
    def __init__(
        self,
        metrics: Sequence[str] = ("fid", "score", "prdc", "modes", "accuracy"),
        monitor: str = "fid",
        num_samples: Annotated[int, Range(10, 10**7)] = 2000,
        every_n_steps: Steps = 1000,
        max_share: PositiveShare | None = 0.05,
        seed: Seed = 0,
    ) -> None:
        for name in metrics:
            if name not in MEASURES or MEASURES[name].needs & _COSTLY:
                cheap = [n for n, measure in MEASURES.items() if not measure.needs & _COSTLY]
                raise UnfitArgument(
                    "metrics",
                    f"has '{name}'; in training there are: {', '.join(cheap)}. "
                    "scripts/evaluate.py has the others.",
                )
        better = {key: high for name in metrics for key, high in MEASURES[name].figures.items()}
        figure = monitor[:-2] if monitor[-2:] in ("_a", "_b") else monitor
        if figure not in better:
            raise UnfitArgument(
                "monitor", f"is {monitor}; with these metrics it can be {', '.join(better)}."
            )
        # A measure whose figures are neither is not among those of training.
        self.higher_is_better = bool(better[figure])
        self.metrics = list(metrics)
        self.monitor = monitor
        self.num_samples = num_samples
        self.every_n_steps = every_n_steps
        self.max_share = max_share
        self.seed = seed
        self.measured: dict[str, float] = {}
        self.floors: dict[str, float] = {}
        self.reached: dict[str, float] = {}
        self.seconds = 0.0
        self.best: float | None = None
        self.best_step = 0
        self._interval = every_n_steps
        self._measured_at = 0
        # When training last began or went on after a measurement.
        self._begun: float | None = None
        # The interval in iterations that each of the last measurements would have needed.
        self._needed: list[float] = []
        self._references: dict[str, Reference] = {}

    def figures(self, model: Any, data: InMemoryDataModule) -> list[str]:
        """The figures that a run of this model on this data, which is set up, is measured by."""
        names = self.measures(data, model) if self.takes_place(data) else []
        return [key for name in names for key in MEASURES[name].figures]

    def takes_place(self, data: InMemoryDataModule) -> bool:
        """Whether runs on this data, which is set up, are measured."""
        return data.has_classes

    # Not later, where Lightning keeps SIGTERM for the end of the next iteration.
    def on_fit_start(self, trainer: pl.Trainer, pl_module: Sampled) -> None:  # type: ignore[override]
        if self.takes_place(trainer.datamodule):  # type: ignore[attr-defined]
            with torch.random.fork_rng(devices=[]):
                self._prepare(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Sampled) -> None:  # type: ignore[override]
        self._begun, self._begun_at = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Sampled, *_: Any) -> None:  # type: ignore[override]
        step = trainer.global_step
        due = step % self.every_n_steps == 0 and step - self._measured_at >= self._interval
        if due and self._references:
            self._measured_at = step
            self._measure(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Sampled) -> None:  # type: ignore[override]
        # _measured_at stays: a run that is resumed with more iterations keeps the interval.
        if self._references and self._measured_at < trainer.global_step:
            self._measure(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in _STATE}
        # Training goes on from here, not from the latest measurement.
        if self._begun is not None:
            state["seconds"] += time.monotonic() - self._begun
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # An earlier version saved fewer.
        for name in state_dict.keys() & set(_STATE):
            setattr(self, name, state_dict[name])

    def measures(self, data: InMemoryDataModule, model: Sampled) -> list[str]:
        """Which of ``metrics`` a model's images allow; ValueError where ``monitor`` is of none."""
        has = available(model.real_images(data.source("val").__getitems__([0])), judged=True)
        names = [name for name in self.metrics if MEASURES[name].needs <= has]
        figures = [key for name in names for key in MEASURES[name].figures]
        if self.monitor not in [in_domain(key, d) for d in ("", *data.domains) for key in figures]:
            raise ValueError(
                f"callbacks.metrics.monitor is {self.monitor}, which is not measured of a "
                f"{type(model).__name__} on {data.title}; {next(iter(figures), 'fid')} would do."
            )
        return names

    def references(self, data: InMemoryDataModule) -> dict[str, Reference]:
        """Domain -> what its images are measured against; its evaluator is trained and cached."""
        part: Literal["val", "train"] = "val" if _held_out(data) else "train"
        return {d: reference_for(data, d, part, cache_dir()) for d in data.domains}

    def _prepare(self, trainer: pl.Trainer, model: Sampled) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._names = self.measures(data, model)
        # Validation images, unless there are too few.
        self._source = data.source("val" if _held_out(data) else "test")
        if not _held_out(data) and trainer.is_global_zero:
            log.info(
                f"Fewer than {_LEAST_HELD_OUT} images are held out (dataset.val_size): metrics "
                "compare with the training images; best.ckpt may be one that has memorised them."
            )
        # The other processes find what rank 0 has trained and cached.
        if not trainer.is_global_zero:
            trainer.strategy.barrier()
        self._references = self.references(data)
        if trainer.is_global_zero:
            trainer.strategy.barrier()

    def _measure(self, trainer: pl.Trainer, model: Sampled) -> None:
        trained_until = time.monotonic()
        # Once; before the clock, so that the first measurement's time is that of any other.
        for reference in self._references.values():
            reference.real.judged  # noqa: B018
        begun = time.monotonic()
        rank, world = trainer.global_rank, trainer.world_size
        model.share_buffers()
        # Random numbers drawn here must not change the training.
        with torch.random.fork_rng(devices=[]):
            random = torch.Generator().manual_seed(self.seed + rank)
            source = Subset(self._source, range(rank, len(self._source), world))
            count = self.num_samples // world
            drawn = model.generated_images(count, source, random)
            images = image_sets(drawn, self._references, count)
            found = self._found(images)
        trained = trained_until - cast(float, self._begun)
        steps = trainer.global_step - self._begun_at
        self.seconds += trained
        # A checkpoint that is written here adds nothing.
        self._begun = None
        self.measured = {f"metrics/{name}": value for name, value in found.items()}
        report_figures(trainer.loggers, self.measured, trainer.global_step)
        self._note_levels(trainer, model.counts["images_seen"], found)
        self._keep_best(trainer, found)
        self._bound(trainer, time.monotonic() - begun, trained / steps)
        if trainer.is_global_zero:
            self.floors = self.floors or {
                f"metrics_floor/{in_domain(key, domain)}": figure.value
                for domain, reference in self._references.items()
                for name in self._names
                for key, figure in floor_of(name, reference, len(images[domain]), self.seed).items()
            }
            # Each time, so that charts have a line.
            report_figures(trainer.loggers, self.floors, trainer.global_step)
        self._begun, self._begun_at = time.monotonic(), trainer.global_step

    def _found(self, images: dict[str, ImageSet]) -> dict[str, float]:
        """The figures of each domain, and with two domains their mean."""
        found: dict[str, list[float]] = {}
        for domain, generated in images.items():
            for name in self._names:
                reference = self._references[domain]
                figures = MEASURES[name].function(generated, reference, self.seed, silent)
                for key, figure in figures.items():
                    for tag in dict.fromkeys((key, in_domain(key, domain))):
                        found.setdefault(tag, []).append(float(figure.value))
        return {tag: sum(values) / len(values) for tag, values in found.items()}

    def _note_levels(self, trainer: pl.Trainer, images_seen: int, found: dict[str, float]) -> None:
        new = {
            f"reached/fid_{level}_{what}": value
            for level in LEVELS
            if found.get("fid", math.inf) <= level
            for what, value in (("seconds", round(self.seconds, 3)), ("images", images_seen))
        }
        new = {tag: value for tag, value in new.items() if tag not in self.reached}
        if new:
            self.reached |= new
            report_figures(trainer.loggers, new, trainer.global_step)

    def _keep_best(self, trainer: pl.Trainer, found: dict[str, float]) -> None:
        value = found[self.monitor]
        sign = -1 if self.higher_is_better else 1
        if math.isfinite(value) and (self.best is None or sign * value < sign * self.best):
            self.best, self.best_step = value, trainer.global_step
            report_figures(trainer.loggers, {f"best/{self.monitor}": value}, trainer.global_step)
            # It is sampled from and measured, never resumed: without the optimizers' state.
            best = checkpoint_folder(trainer) / "best.ckpt"
            trainer.save_checkpoint(best, weights_only=True)

    def _bound(self, trainer: pl.Trainer, cost: float, step_time: float) -> None:
        """Makes the interval as long as measurements need that take a certain share of it."""
        if self.max_share is None:
            return
        needed = trainer.strategy.broadcast(cost / (self.max_share * max(step_time, 1e-9)))
        self._needed = [*self._needed[1 - _MEDIAN_OF :], needed]
        if len(self._needed) == 1:
            return
        units = math.ceil(statistics.median_low(self._needed) / self.every_n_steps)
        interval = max(1, units) * self.every_n_steps
        if interval != self._interval:
            self._interval = interval
            if trainer.is_global_zero:
                log.info(
                    f"Images are measured every {interval:,} steps now: at most "
                    f"{100 * self.max_share:g} % of the time (callbacks.metrics.max_share)."
                )


def _held_out(data: InMemoryDataModule) -> bool:
    """Whether enough images are held out to measure against."""
    return bool(data.val) and all(
        len(data.labelled(domain, "val")) >= _LEAST_HELD_OUT for domain in data.domains
    )
