"""Says what goes wrong in a run while it goes wrong."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from gan_zoo.metrics.measures import in_domain
from gan_zoo.models.base import AdversarialModule
from gan_zoo.options import refuse_unless_whole
from gan_zoo.ranges import Natural, Range, Share, refuse_unfit

log = logging.getLogger(__name__)

# Logging steps that a figure has to stay out of its range for, so that one bad batch says nothing,
# and that its track is the median of.
_PATIENCE = 10
_TRACK = 20
# A parameter that a model steers is pinned within this of a bound.
_PINNED = 0.01
_GRID = 64


class Trouble(NamedTuple):
    """One thing that goes wrong.

    Attributes:
        kind: what; each is warned of once.
        text: in words, with what may help.
    """

    kind: str
    text: str


class Health(pl.Callback):
    """Watches the logged figures and the images of fixed noise, and warns once of each trouble.

    - The discriminator is saturated: it tells all real images from all generated ones, and the
      generator learns nothing from it.
    - Diversity collapses: images of different noise, and of one class where the model is asked for
      classes, lie closer together than real ones by far.
    - A player's gradient norm leaves its track, the median of its last 20 logged values.
    - What a model steers is pinned at a bound (BEGAN's k), or off its target (WGAN-GP's gradient).

    A warning goes to the console and to TensorBoard as text under ``health/``. A loss that is not
    finite stops the run anyway: that is AdversarialModule's.

    Args:
        action: "warn", or "stop" to end the run at the first trouble.
        every_n_steps: iterations between looks at the images.
        saturation: the discriminator is saturated from this part of a perfect one's gap on, between
            its outputs for real and generated images.
        least_diversity: diversity has collapsed where two images' mean distance is below this part
            of that of two real ones, at two looks on end.
        gradient_factor: how far a gradient norm may be from its track, up or down.
        warm_up_steps: iterations before any trouble counts but gradients.

    Raises:
        ValueError: for an option out of its range.
        ArithmeticError: in training, at the first trouble if ``action`` is "stop".
    """

    def __init__(
        self,
        action: str = "warn",
        every_n_steps: int = 500,
        saturation: float = 0.99,
        least_diversity: float = 0.4,
        gradient_factor: float = 30.0,
        warm_up_steps: int = 500,
    ) -> None:
        if action not in ("warn", "stop"):
            raise ValueError(f"callbacks.health.action is {action}; it has to be warn or stop.")
        refuse_unless_whole("callbacks.health.every_n_steps", every_n_steps, 1)
        refuse_unfit("callbacks.health.saturation", saturation, Share)
        refuse_unfit("callbacks.health.least_diversity", least_diversity, Share)
        refuse_unfit(
            "callbacks.health.gradient_factor", gradient_factor, Annotated[float, Range(1)]
        )
        refuse_unfit("callbacks.health.warm_up_steps", warm_up_steps, Natural)
        self.action = action
        self.every_n_steps = every_n_steps
        self.saturation = saturation
        self.least_diversity = least_diversity
        self.gradient_factor = gradient_factor
        self.warm_up_steps = warm_up_steps
        self.warned: dict[str, int] = {}
        self._strikes: dict[str, int] = {}
        self._tracks: dict[str, list[float]] = {}
        self._real_distance: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "warned": dict(self.warned),
            "strikes": dict(self._strikes),
            "tracks": {name: list(track) for name, track in self._tracks.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.warned = dict(state_dict["warned"])
        self._strikes = dict(state_dict["strikes"])
        self._tracks = {name: list(track) for name, track in state_dict["tracks"].items()}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: AdversarialModule,  # type: ignore[override]
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        logged = bool(every) and step % every == 0
        drawn = step % self.every_n_steps == 0 and step >= self.warm_up_steps
        troubles: list[Trouble] = []
        if logged:
            figures = {
                name.removeprefix("train/"): value for name, value in pl_module.logged.items()
            }
            troubles += self.examine(pl_module, figures, step)
        if drawn:
            troubles += self.examine_images(trainer, pl_module)
        if (logged or drawn) and trainer.world_size > 1:
            # The figures are each process's own, and all have to stop or none.
            troubles = trainer.strategy.broadcast(troubles)
        for trouble in troubles:
            self._tell(trainer, trouble)

    def examine(
        self, model: AdversarialModule, figures: Mapping[str, float], step: int
    ) -> Iterator[Trouble]:
        """The troubles that the figures of a logging step tell of, each once it has lasted."""
        for name, norm in figures.items():
            if name.startswith("grad_norm_"):
                yield from self._gradient(name, norm)
        if step < self.warm_up_steps:
            return
        gap = model.certainty(figures)
        if gap is not None and self._lasts("saturated", gap >= self.saturation):
            yield Trouble(
                "saturated",
                f"The discriminator is saturated: for {_PATIENCE} logging steps it has been "
                f"{100 * gap:.0f} % sure of real and generated images, and the generator learns "
                "little from it. A lower model.optimizer_d.lr, a higher model.optimizer_g.lr, a "
                "penalty (model.penalty=r1) or a smaller discriminator may help.",
            )
        for name, (bounds, hint) in model.steered.items():
            value = figures.get(name)
            pinned = value is not None and any(abs(value - b) <= _PINNED for b in bounds)
            if self._lasts(f"pinned_{name}", pinned):
                yield Trouble(
                    f"pinned_{name}",
                    f"{name} is pinned at {value:.3g} and has been for {_PATIENCE} logging steps: "
                    f"it steers nothing there. {hint}",
                )
        for name, (low, high) in model.targets.items():
            value = figures.get(name)
            off = value is not None and not low <= value <= high
            if self._lasts(f"target_{name}", off):
                yield Trouble(
                    f"target_{name}",
                    f"{name} is {value:.3g}, outside {low:.2g} to {high:.2g}, and has been for "
                    f"{_PATIENCE} logging steps: the penalty does not hold the critic. A higher "
                    "model.lambda_gp or a lower model.optimizer_d.lr may help.",
                )

    def examine_images(self, trainer: pl.Trainer, model: AdversarialModule) -> Iterator[Trouble]:
        """Whether images of fixed noise are much more alike than real ones."""
        source = trainer.datamodule.source()  # type: ignore[attr-defined]
        with torch.random.fork_rng(devices=[]):
            random = torch.Generator().manual_seed(0)
            drawn = next(model.generated_images(_GRID, source, random, ema=False, chunk_size=_GRID))
            if not self._real_distance:
                rows = torch.randperm(len(source), generator=random)[: 4 * _GRID]
                self._real_distance = {
                    domain: mean_distance(images.image, images.label)
                    for domain, images in model.real_images(source.__getitems__(rows)).items()
                }
        for domain, generated in drawn.items():
            real = self._real_distance[domain]
            share = mean_distance(generated.image, generated.label) / real if real else 1.0
            kind = in_domain("collapse", domain)
            where = f" in domain {domain}" if domain else ""
            of = " of one class" if generated.label is not None else ""
            if self._lasts(kind, share < self.least_diversity, patience=2):
                yield Trouble(
                    kind,
                    f"Diversity is collapsing{where}: two generated images{of} differ by "
                    f"{100 * share:.0f} % of what two real ones do. A lower "
                    "model.optimizer_g.lr, another loss or larger batches may help.",
                )

    def _gradient(self, name: str, norm: float) -> Iterator[Trouble]:
        track = self._tracks.setdefault(name, [])
        if len(track) == _TRACK:
            middle = statistics.median(track)
            ratio = norm / middle if middle > 0 else float("inf" if norm else 1)
            off = not 1 / self.gradient_factor <= ratio <= self.gradient_factor
            if self._lasts(name, off, patience=3):
                player = name.removeprefix("grad_norm_")
                yield Trouble(
                    name,
                    f"The gradient norm of phase {player} has left its track: {norm:.3g}, where "
                    f"the median of {_TRACK} values before was {middle:.3g}. "
                    + (
                        "model.gradient_clip_val or a lower rate may help."
                        if ratio > 1
                        else "The player hardly learns any more; the other's rate may be too high."
                    ),
                )
            if off:
                # What is off the track is no part of it.
                return
            track.pop(0)
        track.append(norm)

    def _lasts(self, kind: str, trouble: bool, patience: int = _PATIENCE) -> bool:
        self._strikes[kind] = self._strikes.get(kind, 0) + 1 if trouble else 0
        return self._strikes[kind] == patience

    def _tell(self, trainer: pl.Trainer, trouble: Trouble) -> None:
        if trouble.kind in self.warned:
            return
        self.warned[trouble.kind] = trainer.global_step
        if trainer.is_global_zero:
            log.warning("Iteration %s: %s", f"{trainer.global_step:,}", trouble.text)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_text(
                        f"health/{trouble.kind}", trouble.text, trainer.global_step
                    )
        if self.action == "stop":
            raise ArithmeticError(
                f"health=strict stops the run in iteration {trainer.global_step}. {trouble.text}"
            )


def mean_distance(images: Tensor, labels: Tensor | None = None) -> float:
    """Mean Euclidean distance of two images (N, ...), of one class where labels (N,) are given."""
    flat = images.flatten(1).float()
    distances = torch.cdist(flat, flat)
    pairs = ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    if labels is not None:
        labels = labels.to(flat.device)
        pairs &= labels[:, None] == labels[None]
    return distances[pairs].mean().item() if pairs.any() else 0.0
