"""Warns of what goes wrong in a run, while it runs."""

import logging
import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor

from gan_zoo.metrics.reference import in_domain
from gan_zoo.models.protocols import Sampled, Watched
from gan_zoo.ranges import Natural, Range, Share, Steps, checked
from gan_zoo.training.reporting import report_text

log = logging.getLogger(__name__)

# For how many logging steps a term has to be out of its range, so that one bad batch is ignored.
_PATIENCE = 10
# How many logged gradient norms the median is taken of.
_MEDIAN_OF = 20
# A term that a model controls is pinned if it is this close to a bound.
_PINNED = 0.01
_GRID = 64
# What a resumed run continues with.
_STATE = ("warned", "_strikes", "_norms")


# Kinds of trouble, each of which is warned of once, with what goes wrong and may help.
Troubles = Iterator[tuple[str, str]]


class Examined(Sampled, Watched, Protocol):
    """A model whose images and logged terms can both be examined."""


class Health(pl.Callback):
    """Watches the logged terms and the images of fixed noise, and warns once of each trouble.

        pl.Trainer(callbacks=[Health(action="stop")], log_every_n_steps=50).fit(model, data)

    - The discriminator is saturated: it separates all real from all generated images, and the
      generator learns nothing from it.
    - Diversity collapses: generated images, of one class where the model is asked for classes, are
      much closer to each other than real ones are.
    - A phase's gradient norm is far from the median of its last 20 logged values.
    - A term that the model controls is pinned at a bound (BEGAN's k), or off its target (WGAN-GP's
      gradient norm).

    A warning goes to the console and, as text under ``health/``, to the loggers. A loss that is not
    finite stops the run in any case: the model checks that itself.

    Args:
        action: "stop" ends the run at the first trouble, by an ArithmeticError.
        every_n_steps: iterations between two examinations of the images.
        saturation: the discriminator is saturated from this certainty on (see Watched).
        least_diversity: diversity has collapsed if the mean distance of two images is below this
            share of that of two real ones, at two examinations in a row.
        gradient_factor: the largest ratio of a gradient norm to the median, or its inverse.
        warm_up_steps: iterations during which only gradient norms are examined.
    """

    @checked
    def __init__(
        self,
        action: Literal["warn", "stop"] = "warn",
        every_n_steps: Steps = 500,
        saturation: Share = 0.99,
        least_diversity: Share = 0.4,
        gradient_factor: Annotated[float, Range(1)] = 30.0,
        warm_up_steps: Natural = 500,
    ) -> None:
        self.action = action
        self.every_n_steps = every_n_steps
        self.saturation = saturation
        self.least_diversity = least_diversity
        self.gradient_factor = gradient_factor
        self.warm_up_steps = warm_up_steps
        self.warned: dict[str, int] = {}
        self._strikes: dict[str, int] = {}
        self._norms: dict[str, list[float]] = {}
        self._real_distance: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self, name, state_dict[name])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Examined, *_: Any) -> None:  # type: ignore[override]
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        logged = bool(every) and step % every == 0
        drawn = step % self.every_n_steps == 0 and step >= self.warm_up_steps
        troubles: list[tuple[str, str]] = []
        if logged:
            terms = {name.removeprefix("train/"): value for name, value in pl_module.logged.items()}
            troubles += self.examine(pl_module, terms, step)
        if drawn:
            troubles += self.examine_images(trainer, pl_module)
        if (logged or drawn) and trainer.world_size > 1:
            # Each process has terms of its own, and all have to stop or none.
            troubles = trainer.strategy.broadcast(troubles)
        for kind, text in troubles:
            if kind in self.warned:
                continue
            self.warned[kind] = step
            if trainer.is_global_zero:
                log.warning("Iteration %s: %s", f"{step:,}", text)
                report_text(trainer.loggers, f"health/{kind}", text, step)
            if self.action == "stop":
                raise ArithmeticError(f"health=strict stops the run in iteration {step}. {text}")

    def examine(self, model: Watched, terms: Mapping[str, float], step: int) -> Troubles:
        """The troubles that show in the terms of a logging step, each once it has lasted."""
        for name, value in terms.items():
            if name.startswith("grad_norm_"):
                yield from self._gradient(name, value)
        if step < self.warm_up_steps:
            return
        certainty = model.certainty(terms)
        if certainty is not None:
            yield from self._lasting(
                "saturated",
                certainty >= self.saturation,
                f"The discriminator is saturated: for {_PATIENCE} logging steps it has been "
                f"{100 * certainty:.0f} % sure of real and generated images, and the generator "
                "learns little from it. A lower model.optimizer_d.lr, a higher "
                "model.optimizer_g.lr, a penalty (model.penalty=r1) or a smaller discriminator may "
                "help.",
            )
        for name, (bounds, hint) in model.steered.items():
            value = terms.get(name, math.nan)
            yield from self._lasting(
                f"pinned_{name}",
                any(abs(value - bound) <= _PINNED for bound in bounds),
                f"{name} has been pinned at {value:.3g} for {_PATIENCE} logging steps and controls "
                f"nothing there. {hint}",
            )
        for name, (low, high) in model.targets.items():
            value = terms.get(name, math.nan)
            yield from self._lasting(
                f"target_{name}",
                value < low or value > high,
                f"{name} is {value:.3g} and has been outside {low:.2g} to {high:.2g} for "
                f"{_PATIENCE} logging steps: the penalty is too weak for the critic. A higher "
                "model.lambda_gp or a lower model.optimizer_d.lr may help.",
            )

    def examine_images(self, trainer: pl.Trainer, model: Sampled) -> Troubles:
        """Whether images of fixed noise are much more similar to each other than real ones."""
        source = trainer.datamodule.source("val")  # type: ignore[attr-defined]
        with torch.random.fork_rng(devices=[]):
            random = torch.Generator().manual_seed(0)
            drawn = next(model.generated_images(_GRID, source, random, ema=False))
            if not self._real_distance:
                rows = torch.randperm(len(source), generator=random)[: 4 * _GRID]
                self._real_distance = {
                    domain: mean_distance(images.image, images.label)
                    for domain, images in model.real_images(source.__getitems__(rows)).items()
                }
        for domain, generated in drawn.items():
            real = self._real_distance[domain]
            share = mean_distance(generated.image, generated.label) / real if real else 1.0
            where = f" in domain {domain}" if domain else ""
            of = " of one class" if generated.label is not None else ""
            yield from self._lasting(
                in_domain("collapse", domain),
                share < self.least_diversity,
                f"Diversity is collapsing{where}: two generated images{of} differ by "
                f"{100 * share:.0f} % of what two real ones do. A lower model.optimizer_g.lr, "
                "another loss or larger batches may help.",
                patience=2,
            )

    def _gradient(self, name: str, norm: float) -> Troubles:
        norms = self._norms.get(name, [])
        if len(norms) == _MEDIAN_OF:
            middle = statistics.median(norms)
            ratio = norm / middle if middle > 0 else float("inf" if norm else 1)
            off = not 1 / self.gradient_factor <= ratio <= self.gradient_factor
            phase = name.removeprefix("grad_norm_")
            hint = "It hardly learns any more; the other player's rate may be too high."
            if ratio > 1:
                hint = "model.gradient_clip_val or a lower rate may help."
            yield from self._lasting(
                name,
                off,
                f"The gradient norm of phase {phase} is {norm:.3g}; the median of the {_MEDIAN_OF} "
                f"logged values before is {middle:.3g}. {hint}",
                patience=3,
            )
            if off:
                # Outliers do not enter the median.
                return
        self._norms[name] = [*norms[1 - _MEDIAN_OF :], norm]

    def _lasting(self, kind: str, seen: bool, text: str, patience: int = _PATIENCE) -> Troubles:
        self._strikes[kind] = self._strikes.get(kind, 0) + 1 if seen else 0
        if self._strikes[kind] == patience:
            yield kind, text


def mean_distance(images: Tensor, labels: Tensor | None = None) -> float:
    """Mean Euclidean distance of two images (N, ...), of one class where labels (N,) are given.

    NaN without any such two images.
    """
    flat = images.flatten(1).float()
    distances = torch.cdist(flat, flat)
    pairs = ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    if labels is not None:
        labels = labels.to(flat.device)
        pairs &= labels[:, None] == labels[None]
    return distances[pairs].mean().item()
