"""What all models share: the alternating loop, written once, and the noise-to-image game.

``AdversarialModule`` runs the iteration; it knows players, phases and optimizers, not losses.
``NoiseToImage`` adds one generator from noise (and a label) to images, one discriminator, sampling
and grids; ``ImageGAN`` the game that most papers vary, an adversarial loss on logits.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from gan_zoo.data import ImageBatch
from gan_zoo.data.base import BatchSource
from gan_zoo.losses import AdversarialLoss, Penalty, adversarial_loss, gradient_penalty
from gan_zoo.models.protocols import Generated
from gan_zoo.randomness import derived_seed, seed_generators
from gan_zoo.ranges import Count, Decay, NonNegative, Positive, refuse_unfit

OptimizerFactory = Callable[[Iterable[Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]
Loss = tuple[Tensor, dict[str, Tensor]]

_STATISTICS_INTERVAL = 16
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
# A plateau's figure is read from the device, so not in every iteration.
_PLATEAU_INTERVAL = 100
# Where nothing is logged, losses are still checked in checkpoints, as far back as this.
_MOST_UNCHECKED = 1000
_REMEDY = "Lower rates (model.optimizer_d.lr) or model.gradient_clip_val may hold it."


class Phase(NamedTuple):
    """One optimizer step within an iteration.

    Attributes:
        name: what the phase's loss is logged as, ``train/loss_<name>``.
        player: whose parameters it trains; all others are frozen meanwhile.
        loss: (batch, what ``generate`` returned for it) -> (scalar to minimise, named terms to
            log, each averaged over its elements).
        interval: it runs in every so many iterations; or, where it does not run evenly, a
            function: iteration (from 1) -> how often it has run by the end of it.
        through_generators: whether it back-propagates into the iteration's shared forward pass.
    """

    name: str
    player: str
    loss: Callable[[Any, Any], Loss]
    interval: int | Callable[[int], int] = 1
    through_generators: bool = False

    def runs(self, iteration: int) -> int:
        """How often it has run by the end of that iteration."""
        return self.interval(iteration) if callable(self.interval) else iteration // self.interval


class AdversarialModule(pl.LightningModule):
    """Manual optimization of several players, phase by phase, with one iteration to one batch.

    A model says who its players are (``players``), what the iteration's shared forward pass
    computes (``generate``), and which phases follow on it (``phases``). This class freezes the
    others, steps, clips, accumulates, schedules, averages, counts and logs.

    ``trainer.max_steps``, ``trainer.global_step``, the x-axis of the logs and the names of
    checkpoints all count iterations, however many optimizers step in one.

    Args:
        optimizers: player -> factory of its optimizer, given the player's parameters.
        scheduler: factory of a learning-rate schedule for each optimizer, stepped once an
            iteration; None keeps the rates. A ReduceLROnPlateau steps every 100 iterations on the
            figure that the model's ``watched`` names.
        gradient_clip_val: largest Euclidean norm of one player's gradients; None to not clip.
        accumulate_grad_batches: each player steps once in so many runs of its phase, on the mean
            of their gradients.
        ema_decay: decay of the moving average of the networks in ``averaged_networks``, which
            ``sample`` then prefers; 0 for none. The decay warms up as (1 + n) / (10 + n).

    Attributes:
        batch_types: the NamedTuples of the batches that it trains on.
        averaged_networks: each network that ``ema_decay`` averages, and the player that trains it.
        watched: which of ``figures`` a ReduceLROnPlateau watches; None where none would do.
        steered: figures that the model steers -> the bounds at which they would steer nothing, and
            what helps then.
        targets: figures that the objective holds -> the range that they should come to lie in.
        published: what the paper reports: (dataset, figure of ``evaluate``) -> its words.
        config: the run's whole configuration as plain dicts; checkpoints carry it.
        latest: phase -> its loss and terms when it last ran, detached, on the device.
        logged: figure -> its value at the last logging step, as ``train/<figure>``.
        counts: images_seen, and of each player the optimizer's steps; checkpoints carry them too.

    Raises:
        ValueError: for an option out of its range.
        ArithmeticError: in training, at a logging step or checkpoint, once a loss or one of its
            terms has not been finite, or the weights are not; no checkpoint is written then.
    """

    batch_types: ClassVar[tuple[type, ...]] = (ImageBatch,)
    averaged_networks: ClassVar[dict[str, str]] = {"generator": "g"}
    watched: str | None = None
    steered: ClassVar[Mapping[str, tuple[tuple[float, ...], str]]] = {}
    targets: Mapping[str, tuple[float, float]] = {}
    published: ClassVar[Mapping[tuple[str, str], str]] = {}

    def __init__(
        self,
        optimizers: Mapping[str, OptimizerFactory],
        scheduler: SchedulerFactory | None = None,
        gradient_clip_val: float | None = None,
        accumulate_grad_batches: int = 1,
        ema_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        refuse_unfit("model.gradient_clip_val", gradient_clip_val, Positive | None)
        refuse_unfit("model.accumulate_grad_batches", accumulate_grad_batches, Count)
        refuse_unfit("model.ema_decay", ema_decay, Decay)
        self.optimizer_factories = optimizers
        self.scheduler_factory = scheduler
        self.gradient_clip_val = gradient_clip_val
        self.accumulate_grad_batches = accumulate_grad_batches
        self.ema_decay = ema_decay
        self.ema = nn.ModuleDict()
        self.counts: dict[str, int] = {"images_seen": 0}
        self.config: dict[str, Any] = {}
        self.latest: dict[str, dict[str, Tensor]] = {}
        self.logged: dict[str, float] = {}
        self._gradient_norm: Tensor | None = None
        # Gradients of steps that are yet to come, from a checkpoint.
        self._accumulated: dict[str, Tensor] = {}
        # Iteration, loss and figures of phases since they were last checked.
        self._unchecked: deque[tuple[int, Tensor, dict[str, Tensor]]] = deque(
            maxlen=_MOST_UNCHECKED
        )

    def players(self) -> dict[str, nn.Module]:
        """Each player's networks, by the name that phases and optimizers use."""
        raise NotImplementedError

    def generate(self, batch: Any) -> Any:
        """The forward pass that the iteration's phases share."""
        raise NotImplementedError

    def phases(self) -> list[Phase]:
        """The iteration's phases, in order."""
        raise NotImplementedError

    def grid_inputs(self, generator: torch.Generator, examples: Any) -> dict[str, Tensor]:
        """What the model's sample grid holds fixed through a run.

        Args:
            generator: source of randomness.
            examples: a batch of the data, on the model's device.
        """
        raise NotImplementedError

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        """The model's most telling grid: images row by row, and how many make a row."""
        raise NotImplementedError

    def real_grid(self, examples: Any) -> tuple[Tensor, int]:
        """Real images to hold the sample grid against."""
        raise NotImplementedError

    def generated_images(
        self,
        n: int,
        source: BatchSource,
        generator: torch.Generator,
        ema: bool = True,
        chunk_size: int = 500,
    ) -> Iterator[dict[str, Generated]]:
        """What the model generates to be measured, in chunks.

        Args:
            n: how many; a model that translates makes at most one of each of the source's images.
            source: the data's test set, whose images are translated, or whose captions are drawn.
            generator: source of the noise.
            ema: use the moving averages where there are such.
            chunk_size: images of a chunk.

        Returns:
            Domain ("a" and "b", or "" for the only one) -> its part of the chunk.
        """
        raise NotImplementedError

    def real_images(self, batch: Any) -> dict[str, Generated]:
        """A batch of the data as ``generated_images`` gives the model's own, with its classes where
        the model is asked for such."""
        raise NotImplementedError

    def certainty(self, figures: Mapping[str, float]) -> float | None:
        """How sure the discriminator is of real and generated images; 1 has nothing left to learn.

        None where its outputs have no end to go to.

        Args:
            figures: as they are logged, with ``d_real`` and ``d_fake``.
        """
        gap = getattr(getattr(self, "adversarial", None), "gap", None)
        if gap is None or not {"d_real", "d_fake"} <= figures.keys():
            return None
        return (figures["d_real"] - figures["d_fake"]) / gap

    def age(self, player: str) -> int | None:
        """For how many iterations before this one the player had been in the game.

        None where it is out of it: then its learning rate and its moving average stand still.
        """
        return self.trainer.global_step

    def after_phase(self, phase: Phase) -> None:
        """Called after each run of a phase; its figures are in ``latest``."""

    def figures(self) -> dict[str, Tensor]:
        """More to log than the phases' terms; only asked for at logging steps."""
        return {}

    def configure_optimizers(self) -> Any:
        optimizers = [
            self.optimizer_factories[player](list(network.parameters()))
            for player, network in self.players().items()
        ]
        if self.scheduler_factory is None:
            return optimizers
        schedulers = [self.scheduler_factory(optimizer) for optimizer in optimizers]
        if self.watched is None and isinstance(schedulers[0], ReduceLROnPlateau):
            raise ValueError(
                f"model.scheduler is ReduceLROnPlateau, and a {type(self).__name__} has no figure "
                "whose plateau would tell anything: take model/scheduler=linear, say."
            )
        return optimizers, schedulers

    def start_averaging(self) -> None:
        """Makes the averaged copies, as ``ema_decay`` asks, of the networks that are set by now."""
        for name in self.averaged_networks:
            if self.ema_decay and hasattr(self, name) and name not in self.ema:
                self.ema[name] = copy.deepcopy(getattr(self, name)).requires_grad_(False)

    def network(self, name: str, ema: bool = True) -> nn.Module:
        """The network of that name, its moving average where there is one and ``ema`` is true."""
        return self.ema[name] if ema and name in self.ema else getattr(self, name)

    def on_fit_start(self) -> None:
        self._seed = self.config.get("seed", torch.initial_seed())

    def on_train_start(self) -> None:
        self._seed_generators("start", self.trainer.global_step)
        players = self.players()
        self._optimizer_of = dict(zip(players, self.trainer.optimizers, strict=True))
        # Walking the modules anew in each iteration would cost more than what is done with them.
        self._others_of = {
            player: [
                parameter
                for other, network in players.items()
                if other != player
                for parameter in network.parameters()
                if parameter.requires_grad
            ]
            for player in players
        }
        self._averages = [
            _MovingAverage(self.averaged_networks[name], average, getattr(self, name))
            for name, average in self.ema.items()
        ]
        for name, parameter in self.named_parameters():
            if name in self._accumulated:
                parameter.grad = self._accumulated.pop(name).to(parameter.device)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        iteration = self.trainer.global_step + 1
        self._seed_generators("iteration", iteration)
        due = [p for p in self.phases() if p.runs(iteration) > p.runs(iteration - 1)]
        with (
            torch.set_grad_enabled(any(phase.through_generators for phase in due)),
            ExitStack() as s,
        ):
            for average in self._averages:
                s.enter_context(average.watching(self.age(average.player)))
            generated = self.generate(batch)

        logging, accumulate = self.is_logging_step, self.accumulate_grad_batches
        for phase in due:
            with _frozen(self._others_of[phase.player]):
                loss, terms = phase.loss(batch, generated)
                share = loss if accumulate == 1 else loss / accumulate
                self.manual_backward(share)
            self._gradient_norm = None
            if phase.runs(iteration) % accumulate == 0:
                self._step(phase.player)
            latest = {name: term.detach() for name, term in terms.items()}
            latest[f"loss_{phase.name}"] = loss.detach()
            self._unchecked.append((iteration, loss.detach(), latest))
            if self._gradient_norm is not None:
                latest[f"grad_norm_{phase.name}"] = self._gradient_norm
            self.latest[phase.name] = latest
            self.after_phase(phase)

        self._end_iteration(len(batch[0]))
        if logging:
            self.refuse_broken_losses()
            logged: dict[str, Any] = {
                name: value.mean()
                for figures in [*self.latest.values(), self.figures()]
                for name, value in figures.items()
            }
            logged |= {name: float(count) for name, count in self.counts.items()}
            if self.scheduler_factory is not None:
                logged |= {
                    f"lr_{player}": optimizer.param_groups[0]["lr"]
                    for player, optimizer in self._optimizer_of.items()
                }
            values = {f"train/{name}": float(value) for name, value in logged.items()}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise _diverged(name, value, iteration)
            self.logged = values
            # Lightning would log them under the number of the iteration before.
            self.log_dict(values, logger=False)
            for logger in self.loggers:
                logger.log_metrics(values, iteration)

    def refuse_broken_losses(self) -> None:
        """Raises ArithmeticError if a loss was not finite since this was last called.

        It names the first such iteration, and the term that made it so.
        """
        unchecked = list(self._unchecked)
        self._unchecked.clear()
        losses = [loss.float() for _, loss, _ in unchecked]
        if not losses or bool(torch.stack(losses).isfinite().all()):
            return
        for iteration, _, figures in unchecked:
            for name, figure in figures.items():
                if not bool(figure.isfinite().all()):
                    raise _diverged(f"train/{name}", float(figure.mean()), iteration)

    @property
    def is_logging_step(self) -> bool:
        """Whether this iteration's figures are wanted: the trainer's interval, or the last one's.

        Between such iterations nothing is read from the device, and nothing logged.
        """
        trainer = self.trainer
        iteration = trainer.global_step + 1
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return (every > 0 and iteration % every == 0) or iteration == trainer.max_steps

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Called by Lightning once gradients are unscaled under mixed precision.
        if self.is_logging_step:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            gradients = [p.grad for p in parameters if p.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients)
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
                # A fused optimizer unscales the gradients in its own step, which is yet to come.
                self._gradient_norm = self._gradient_norm / scaler.get_scale()
        if self.gradient_clip_val is not None:
            self.clip_gradients(
                optimizer,
                gradient_clip_val=self.gradient_clip_val,
                gradient_clip_algorithm="norm",
            )

    def _step(self, player: str) -> None:
        optimizer = self._optimizer_of[player]
        # The strategy's step serves precision plugins as a LightningOptimizer's does, but leaves
        # Lightning's count of steps alone.
        self.trainer.strategy.optimizer_step(optimizer, closure=_no_closure)
        optimizer.zero_grad()
        self.counts[f"{player}_steps"] = self.counts.get(f"{player}_steps", 0) + 1

    def _end_iteration(self, batch_size: int) -> None:
        trainer = self.trainer
        self.counts["images_seen"] += batch_size * trainer.world_size
        if self.scheduler_factory is not None:
            self._step_schedulers()
        for average in self._averages:
            average.follow(self.age(average.player), self.ema_decay)
        progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def _step_schedulers(self) -> None:
        for player, config in zip(self.players(), self.trainer.lr_scheduler_configs, strict=True):
            if self.age(player) is None:
                continue
            if not isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step()
            elif self.watched and (self.trainer.global_step + 1) % _PLATEAU_INTERVAL == 0:
                config.scheduler.step(float(self.figures()[self.watched]))

    def on_validation_epoch_start(self) -> None:
        self._seed_generators("validation", self.trainer.global_step)
        self.share_buffers()

    def on_validation_epoch_end(self) -> None:
        # Lightning's name for the x-axis of what is logged with it; its own counts otherwise.
        self.log("step", float(self.trainer.global_step))

    def _seed_generators(self, purpose: str, iteration: int) -> None:
        """Has each process draw what belongs to this iteration of this run."""
        seed = derived_seed(purpose, self._seed, iteration, self.global_rank)
        seed_generators(seed, self.device)

    def on_train_end(self) -> None:
        self.share_buffers()

    def share_buffers(self) -> None:
        """Gives all processes the first one's buffers, such as batch norm's running statistics.

        Under manual optimization nothing else does. Networks in training mode don't use them, so
        it is enough where the processes are to sample or judge alike.
        """
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.refuse_broken_losses()
        names, parameters = zip(*self.named_parameters(), strict=True)
        sound = torch.stack([parameter.isfinite().all() for parameter in parameters]).tolist()
        if not all(sound):
            raise ArithmeticError(
                f"The weights {names[sound.index(False)]} are not finite after iteration "
                f"{self.trainer.global_step}: the run has diverged. {_REMEDY}"
            )
        checkpoint["counts"] = dict(self.counts)
        checkpoint["config"] = self.config
        checkpoint["gradients"] = {
            name: parameter.grad.cpu()
            for name, parameter in self.named_parameters()
            if parameter.grad is not None
        }
        own = self.process_state()
        shares: list[Any] = [own] * self.trainer.world_size
        if len(shares) > 1:
            torch.distributed.all_gather_object(shares, own)
        checkpoint["processes"] = shares
        _set_between_iterations(
            checkpoint, self.trainer.global_step, self.trainer.num_training_batches
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.counts = dict(checkpoint["counts"])
        self._accumulated = checkpoint["gradients"]
        shares = checkpoint["processes"]
        # With other numbers of processes than before, what was one's goes to several or to none.
        self.load_process_state(shares[self.global_rank % len(shares)])

    def process_state(self) -> dict[str, Any]:
        """What this process holds beside the weights and needs to go on, as plain data."""
        return {
            "latest": {
                phase: {name: value.cpu() for name, value in figures.items()}
                for phase, figures in self.latest.items()
            }
        }

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Takes what ``process_state`` gave before."""
        self.latest = {phase: dict(figures) for phase, figures in state["latest"].items()}


def _set_between_iterations(checkpoint: dict[str, Any], step: int, batches: int | float) -> None:
    """Has a checkpoint say that ``step`` iterations are over, and nothing of what comes after.

    Lightning counts epochs, batches and validations at different moments, and goes on differently
    from each of them; training ends or is interrupted at several. From here on it always goes on
    with the next iteration.

    Args:
        checkpoint: as Lightning fills it.
        step: iterations done.
        batches: iterations an epoch; nothing is changed where they have no end.
    """
    if not math.isfinite(batches):
        return
    epochs, done = divmod(step, int(batches))
    begun = epochs + (done > 0)

    def both(**counts: int) -> dict[str, Any]:
        return {"total": dict(counts), "current": dict(counts)}

    # Within an epoch, a batch counts as completed once Lightning has gone on from it.
    left = int(done > 0)
    batch_progress = both(ready=done, started=done, processed=done, completed=done - left)
    batch_progress["total"] = {
        "ready": step, "started": step, "processed": step, "completed": step - left,
    }  # fmt: skip
    checkpoint["epoch"] = epochs
    checkpoint["loops"]["fit_loop"] |= {
        "epoch_progress": both(ready=begun, started=begun, processed=epochs, completed=epochs),
        "epoch_loop.batch_progress": {**batch_progress, "is_last_batch": False},
        "epoch_loop.state_dict": {"_batches_that_stepped": step - left},
        "epoch_loop.manual_optimization.optim_step_progress": both(ready=step, completed=step),
        "epoch_loop.val_loop.batch_progress": {
            **both(ready=0, started=0, processed=0, completed=0),
            "is_last_batch": False,
        },
    }


class _MovingAverage:
    """Has a network's copy follow it: weights by their moving average, buffers as they are.

    Batch norm's running statistics are not the network's but the averaged weights' own, from a pass
    over the network's inputs in every 16th iteration. (With the network's, whose weights move much
    between two iterations, StackGAN++'s samples had 2.8 times the Frechet distance.)

    Args:
        player: who trains the network.
        average: the copy.
        network: what it follows.
    """

    def __init__(self, player: str, average: nn.Module, network: nn.Module) -> None:
        self.player = player
        self._average = average
        self._network = network
        self._averages: list[Tensor] = list(average.parameters())
        self._weights: list[Tensor] = list(network.parameters())
        self._norms = [m for m in average.modules() if isinstance(m, _BATCH_NORM)]
        self._momenta = [norm.momentum or 0.0 for norm in self._norms]
        own = {id(buffer) for norm in self._norms for buffer in norm.buffers()}
        pairs = zip(average.buffers(), network.buffers(), strict=True)
        self._buffers = [(kept, buffer) for kept, buffer in pairs if id(kept) not in own]
        self._inputs: tuple[Any, ...] | None = None

    @contextmanager
    def watching(self, age: int | None) -> Iterator[None]:
        """Keeps what the network is given meanwhile, if its statistics are due at that age."""
        if not self._norms or age is None or age % _STATISTICS_INTERVAL:
            yield
            return

        def keep(network: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._inputs = inputs if self._inputs is None else self._inputs

        with self._network.register_forward_pre_hook(keep):
            yield

    @torch.no_grad()
    def follow(self, age: int | None, decay: float) -> None:
        """After the network's iteration number ``age``, from 0; None where it was left alone."""
        if age is None:
            return
        share = 1 - min(decay, (1 + age) / (10 + age))
        torch._foreach_lerp_(self._averages, self._weights, share)
        for kept, buffer in self._buffers:
            kept.copy_(buffer)
        if self._inputs is None:
            return
        with eval_mode(self._average):
            for norm, momentum in zip(self._norms, self._momenta, strict=True):
                # The first ones count in full, not what the statistics were set to before.
                norm.momentum = max(momentum, 1 / (1 + age // _STATISTICS_INTERVAL))
                norm.train()
            self._average(*self._inputs)
        self._inputs = None


class NoiseToImage(AdversarialModule):
    """One generator from noise (and a label) to images, one discriminator; their losses are open.

    The generator runs forward once an iteration: the discriminator trains on its detached images,
    then the generator back-propagates through the same ones. (Goodfellow et al. 2014, Algorithm 1,
    draws fresh noise for the generator; the gradients have the same expectation up to the
    discriminator's one step.)

    Args:
        generator: (noise (B, latent_dim)[, label (B,)]) -> images (B, C, H, W) in [-1, 1].
        discriminator: (images[, label]) -> what the model's losses take.
        optimizer_g, optimizer_d: factories of the players' optimizers.
        noise: fills a tensor in place with the latent distribution, as torch.nn.init's functions
            do; takes ``generator=``.
        latent_dim: length of the noise vector.
        num_classes: number of classes that both networks are conditioned on; None for none.
        n_critic: the discriminator's steps to one of the generator (k in 1406.2661, Algorithm 1).
        options: AdversarialModule's.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        noise: Callable[..., Tensor],
        latent_dim: Count,
        num_classes: Count | None = None,
        n_critic: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(optimizers={"d": optimizer_d, "g": optimizer_g}, **options)
        refuse_unfit("model.n_critic", n_critic, Count)
        refuse_unfit("model.latent_dim", latent_dim, Count)
        refuse_unfit("model.num_classes", num_classes, Count | None)
        try:
            noise(torch.empty(1), generator=torch.Generator())
        except RuntimeError as error:
            raise ValueError(f"model.noise can't be drawn: {error}") from error
        self.generator = generator
        self.discriminator = discriminator
        self.noise = noise
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.n_critic = n_critic
        self.start_averaging()

    def players(self) -> dict[str, nn.Module]:
        return {"d": self.discriminator, "g": self.generator}

    def phases(self) -> list[Phase]:
        return [
            Phase("d", "d", self.discriminator_loss),
            Phase("g", "g", self.generator_loss, self.n_critic, through_generators=True),
        ]

    def generate(self, batch: ImageBatch) -> Any:
        noise = self.draw_noise(len(batch.image))
        return self._conditioned(self.generator, noise, batch.label)

    def discriminator_loss(self, batch: ImageBatch, fake: Any) -> Loss:
        """The discriminator's objective on real and generated images, whose graph it leaves."""
        raise NotImplementedError

    def generator_loss(self, batch: ImageBatch, fake: Any) -> Loss:
        """The generator's objective on images that it made."""
        raise NotImplementedError

    def discriminate(self, image: Tensor, label: Tensor) -> Tensor:
        """The discriminator's output for images, which belong to the labels if it takes any."""
        return self._conditioned(self.discriminator, image, label)

    def real_grid(self, examples: ImageBatch) -> tuple[Tensor, int]:
        return examples.image[:64], 8

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, latent_dim) from the latent distribution, on the model's device.

        With ``generator``, the noise is drawn on that generator's device and is the same on all.
        """
        device = self.device if generator is None else generator.device
        noise = torch.empty(n, self.latent_dim, device=device)
        return self.noise(noise, generator=generator).to(self.device)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        noise: Tensor | None = None,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        ema: bool = True,
        chunk_size: int = 500,
    ) -> Tensor:
        """Generates images in eval mode, without gradients.

        Args:
            n: how many.
            noise: (n, latent_dim); drawn where not given.
            labels: (n,) int64, for conditional models; by default 0, 1, ..., 9, 0, 1, ...
            generator: source of the noise; torch's global one by default.
            ema: use the generator's moving average where there is one.
            chunk_size: images to make at once; bounds the memory, does not change the images.

        Returns:
            (n, C, H, W) in [-1, 1], on the model's device.

        Raises:
            ValueError: for labels that the model does not take, or that are not n in its range.
        """
        noise = self.draw_noise(n, generator) if noise is None else noise.to(self.device)
        labels = self._checked_labels(n, labels)
        network = self.network("generator", ema)
        return in_chunks(
            [network],
            lambda z, label: self.finished(self._conditioned(network, z, label)),
            (noise, labels),
            chunk_size,
        )

    def finished(self, images: Tensor) -> Tensor:
        """Images as people and metrics see them, from the generator's output."""
        return images

    def sample_inputs(
        self, asked: Mapping[str, Sequence[Any]], n: int | None, generator: torch.Generator
    ) -> dict[str, Any]:
        """The noise and conditions of samples that somebody asks for: ``sample``'s arguments.

        Args:
            asked: condition -> its values as plain numbers; ``labels`` go round until there are n.
            n: how many; by default one a label, or 64.
            generator: source of the noise.

        Raises:
            ValueError: for a condition that the model does not take, or a value out of its range.
        """
        known = {"labels"} if self.num_classes else set()
        for name in asked.keys() - known:
            raise ValueError(
                f"This checkpoint's {type(self).__name__} takes no {name}: leave {name} out."
            )
        labels = asked.get("labels")
        n = n or len(labels or [0] * 64)
        inputs: dict[str, Any] = {"noise": self.draw_noise(n, generator)}
        if self.num_classes:
            labels = range(self.num_classes) if labels is None else labels
            if not labels or not all(isinstance(x, int) for x in labels):
                raise ValueError(f"labels={labels}: they have to be whole numbers.")
            inputs["labels"] = self._checked_labels(
                n, torch.tensor(labels).repeat(-(-n // len(labels)))[:n]
            )
        return inputs

    def generated_images(
        self,
        n: int,
        source: BatchSource,
        generator: torch.Generator,
        ema: bool = True,
        chunk_size: int = 500,
    ) -> Iterator[dict[str, Generated]]:
        inputs = self.sample_inputs({}, n, generator)
        for begin in range(0, n, chunk_size):
            chunk = {name: values[begin : begin + chunk_size] for name, values in inputs.items()}
            images = self.sample(len(chunk["noise"]), **chunk, ema=ema)
            yield self.by_domain(images, chunk.get("labels"))

    def real_images(self, batch: Any) -> dict[str, Generated]:
        return self.by_domain(batch.image, batch.label if self.num_classes else None)

    def by_domain(self, images: Tensor, labels: Tensor | None) -> dict[str, Generated]:
        """A chunk for ``generated_images``, from what ``sample`` gave for these labels."""
        return {"": Generated(images, labels)}

    def grid_inputs(self, generator: torch.Generator, examples: Any) -> dict[str, Tensor]:
        """Noise, and labels of conditional models: ``sample``'s keyword arguments.

        The first 8 vectors are the survey's fixed noise; conditional models show them, a column
        each, under every class, the others 56 more.
        """
        noise = self.draw_noise(8 if self.num_classes else 64, generator)
        if not self.num_classes:
            return {"noise": noise}
        labels = torch.arange(self.num_classes, device=self.device).repeat_interleave(8)
        return {"noise": noise.repeat(self.num_classes, 1), "labels": labels}

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        return self.sample(len(inputs["noise"]), **inputs), 8

    def _conditioned(self, network: nn.Module, x: Tensor, label: Tensor) -> Tensor:
        return network(x) if self.num_classes is None else network(x, label)

    def _checked_labels(self, n: int, labels: Tensor | None) -> Tensor:
        if self.num_classes is None:
            if labels is not None:
                raise ValueError("This model is unconditional: it takes no labels.")
            return torch.zeros(n, dtype=torch.int64)
        if labels is None:
            return torch.arange(n, device=self.device) % self.num_classes
        if len(labels) != n or labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(
                f"labels have to be {n} whole numbers from 0 to {self.num_classes - 1}."
            )
        return labels.to(self.device)


class ImageGAN(NoiseToImage):
    """NoiseToImage with an adversarial loss on the discriminator's logits.

    The discriminator sees real and generated images in one pass, or in two where it has batch
    norm, which would mix them.

    Args:
        discriminator: (images[, label]) -> logits.
        loss: a name in gan_zoo.losses.ADVERSARIAL_LOSSES, or an AdversarialLoss.
        penalty: a name in gan_zoo.losses.GRADIENT_PENALTIES, a function like those, or None.
        lambda_gp: weight of the penalty.
        penalty_interval: 1 adds the penalty to each discriminator loss; n > 1 makes it a phase of
            its own in every n-th iteration, weighted n-fold (Karras et al. 2020, 1912.04958,
            section 3.1).
        options: NoiseToImage's.

    Raises:
        ValueError: for an option out of its range, or a discriminator that the penalty can't work
            with.
    """

    def __init__(
        self,
        *,
        discriminator: nn.Module,
        loss: str | AdversarialLoss = "non_saturating",
        penalty: str | Penalty | None = None,
        lambda_gp: float = 10.0,
        penalty_interval: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(discriminator=discriminator, **options)
        refuse_unfit("model.lambda_gp", lambda_gp, NonNegative)
        refuse_unfit("model.penalty_interval", penalty_interval, Count)
        self.adversarial = adversarial_loss(loss)
        self.penalty = gradient_penalty(penalty)
        self.lambda_gp = lambda_gp
        self.penalty_interval = penalty_interval
        self._has_batch_norm = has_batch_norm(discriminator)
        if self.penalty is not None:
            _refuse_penalty(discriminator, self._has_batch_norm)

    def phases(self) -> list[Phase]:
        discriminator, generator = super().phases()
        if self.penalty is None or self.penalty_interval == 1:
            return [discriminator, generator]
        lazy = Phase("penalty", "d", self.penalty_loss, self.penalty_interval)
        return [discriminator, lazy, generator]

    def discriminator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        fake = fake.detach()
        real_logits, fake_logits = on_both(
            self.discriminate,
            (batch.image, batch.label),
            (fake, batch.label),
            apart=self._has_batch_norm,
        )
        return self.discriminator_objective(batch, fake, real_logits, fake_logits)

    def discriminator_objective(
        self, batch: ImageBatch, fake: Tensor, real_logits: Tensor, fake_logits: Tensor
    ) -> Loss:
        """The adversarial loss of these logits, and the penalty where it is due each iteration."""
        loss = self.adversarial.discriminator(real_logits, fake_logits)
        with torch.no_grad():
            terms = {
                "d_real": self.adversarial.output(real_logits),
                "d_fake": self.adversarial.output(fake_logits),
            }
        if self.penalty is not None and self.penalty_interval == 1:
            penalty, penalty_terms = self.penalty_loss(batch, fake)
            loss, terms = loss + penalty, terms | penalty_terms
        return loss, terms

    def penalty_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        """The gradient penalty times lambda_gp and its interval; its terms are unweighted."""
        if self.penalty is None:
            raise ValueError("This model has no gradient penalty.")
        value, norms = self.penalty(
            lambda image: self.discriminate(image, batch.label), batch.image, fake.detach()
        )
        terms = {"penalty": value, "gradient_norm": norms}
        return self.penalty_interval * self.lambda_gp * value, terms

    def generator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        return self.adversarial.generator(self.discriminate(fake, batch.label)), {}

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """D on held-out real images: it falls behind ``train/d_real`` as D learns them by heart."""
        logits = self.discriminate(batch.image, batch.label)
        self.log(
            "val/d_real",
            self.adversarial.output(logits).mean(),
            batch_size=len(batch.image),
            sync_dist=True,
        )


def has_batch_norm(network: nn.Module) -> bool:
    """Whether the images of a batch influence each other in it, by batch norm."""
    return any(isinstance(m, _BATCH_NORM) for m in network.modules())


def on_both(
    discriminate: Callable[..., Tensor],
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    apart: bool,
) -> Sequence[Tensor]:
    """What a discriminator says of real and of generated images.

    Args:
        discriminate: images, and what else it takes of each -> its output.
        real, fake: its arguments, B of each.
        apart: in two passes, as for a network that mixes images; one pass costs less.
    """
    if apart:
        return discriminate(*real), discriminate(*fake)
    return discriminate(*(torch.cat(pair) for pair in zip(real, fake, strict=True))).chunk(2)


@torch.no_grad()
def in_chunks(
    networks: Iterable[nn.Module],
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    chunk_size: int,
) -> Tensor:
    """``function`` of the inputs, a chunk at a time, with the networks in eval mode."""
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(eval_mode(network))
        chunks = zip(*(tensor.split(chunk_size) for tensor in inputs), strict=True)
        return torch.cat([function(*chunk) for chunk in chunks])


def _diverged(name: str, value: float, iteration: int) -> ArithmeticError:
    return ArithmeticError(
        f"{name} is {value} in iteration {iteration}: the run has diverged. {_REMEDY}"
    )


def _no_closure() -> None:
    """A manual step has run forward and backward by itself."""


@contextmanager
def _frozen(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Lets no gradient reach the parameters, for the duration."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Has the network in eval mode, for the duration."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def _refuse_penalty(discriminator: nn.Module, has_batch_norm: bool) -> None:
    if has_batch_norm:
        raise ValueError(
            "A gradient penalty is taken on each image alone, and batch norm in the discriminator "
            "mixes the images of a batch: drop model.penalty, or the batch norm "
            "(model.discriminator.norm)."
        )
    for module in discriminator.modules():
        if isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl:
            raise ValueError(
                "A gradient penalty differentiates the discriminator twice, which torch.compile's "
                "inductor can't: leave the discriminator uncompiled, or drop model.penalty."
            )
