"""The alternating loop of any game, written once: players, phases, and one iteration.

A model says who its players are (``players``), what the iteration's shared forward pass computes
(``generate``), and which phases follow on it (``phases``). AdversarialModule orders them, freezes
the other players, steps, clips, accumulates, schedules, averages, counts and logs.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from gan_zoo.randomness import derived_seed, seed_generators
from gan_zoo.ranges import Count, Decay, Positive, UnfitArgument, checked, within
from gan_zoo.training.averaging import MovingAverage
from gan_zoo.training.divergence import refuse_broken_values
from gan_zoo.training.graphs import CudaRecorder, IterationGraphs, recordable
from gan_zoo.training.lightning_state import (
    count_iteration,
    forget_absent_gpus,
    is_logging_step,
    loss_scale,
    scales_losses,
    step_optimizer,
)
from gan_zoo.training.reporting import report_figures
from gan_zoo.training.saved_module import SavedModule

OptimizerFactory = Callable[[Iterable[Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]
Loss = tuple[Tensor, dict[str, Tensor]]

# A plateau's term is read from the device, so not in every iteration.
_PLATEAU_INTERVAL = 100


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

    def is_due(self, iteration: int) -> bool:
        """Whether it runs in that iteration."""
        return self.runs(iteration) > self.runs(iteration - 1)


class AdversarialModule(SavedModule):
    """Manual optimization of several players, phase by phase; one iteration is one batch.

    ``trainer.max_steps``, ``trainer.global_step``, the x-axis of the logs and the names of
    checkpoints all count iterations, however many optimizers step in one.

    Args:
        optimizers: player -> factory of its optimizer, given the player's parameters.
        averaged: networks to average -> the player that trains them and the network. Each is an
            attribute of the model by that name.
        scheduler: factory of a learning-rate schedule for each optimizer, stepped once an
            iteration; None keeps the rates. A ReduceLROnPlateau steps every 100 iterations on the
            model's ``plateau_term``.
        gradient_clip_val: largest Euclidean norm of one player's gradients; None to not clip.
        accumulate_grad_batches: each player steps once in so many runs of its phase, on the mean
            of their gradients.
        ema_decay: decay of the moving averages, from which samples are then drawn; 0 for none. It
            warms up as (1 + n) / (10 + n).

    Attributes, in addition to SavedModule's:
        batch_types: the NamedTuples of the batches that it trains on; plain tuples of as many
            values become these.
        graphable: whether iterations with the same phases always do the same on the device, so that
            they can be recorded as CUDA graphs. Each class says so itself; it is not inherited.
        graphs: whether they are, on a single GPU; where anything keeps them from it, they are not.
        plateau_term: which of ``extra_terms`` a ReduceLROnPlateau watches; None where none would
            tell anything.
        ema: the moving averages by name.
        logged: term -> its value at the last logging step, as ``train/<term>``.

    Raises:
        UnfitArgument: a ValueError, for an argument that can't be.
        ArithmeticError: in training, at a logging step or checkpoint, once a loss or one of its
            terms has not been finite, or the weights are not; no checkpoint is written then.
    """

    batch_types: ClassVar[tuple[type, ...]]
    graphable: bool = False
    plateau_term: ClassVar[str | None] = None

    @checked
    def __init__(
        self,
        optimizers: Mapping[str, OptimizerFactory],
        averaged: Mapping[str, tuple[str, nn.Module]],
        scheduler: SchedulerFactory | None = None,
        gradient_clip_val: Positive | None = None,
        accumulate_grad_batches: Count = 1,
        ema_decay: Decay = 0.0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.optimizer_factories = optimizers
        self.scheduler_factory = scheduler
        self.gradient_clip_val = gradient_clip_val
        self.accumulate_grad_batches = accumulate_grad_batches
        self.ema_decay = ema_decay
        self._player_of = {name: player for name, (player, _) in averaged.items()}
        self.ema = nn.ModuleDict(
            {
                name: copy.deepcopy(network).requires_grad_(False)
                for name, (_, network) in averaged.items()
                if ema_decay
            }
        )
        self.logged: dict[str, float] = {}
        self._gradient_norm: Tensor | None = None
        self.graphs = False
        self._graphs: IterationGraphs | None = None

    def players(self) -> dict[str, nn.Module]:
        """Each player's networks, by the name that phases and optimizers use."""
        raise NotImplementedError

    def as_seen(self, batch: Any) -> Any:
        """The loader's batch as ``generate`` and the phases take it."""
        return batch

    def generate(self, batch: Any) -> Any:
        """The forward pass that the iteration's phases share."""
        raise NotImplementedError

    def phases(self) -> list[Phase]:
        """The iteration's phases, in order."""
        raise NotImplementedError

    def after_phase(self, phase: Phase) -> None:
        """Called after each run of a phase; its terms are in ``latest``."""

    def extra_terms(self) -> dict[str, Tensor]:
        """More to log than the phases' terms; only asked for at logging steps."""
        return {}

    def age(self, player: str) -> int | None:
        """For how many iterations before this one the player has trained.

        None where it does not train now: its learning rate and its moving average stand still.
        """
        return self.trainer.global_step

    def training_step(self, batch: Any, batch_idx: int) -> None:
        iteration = self.trainer.global_step + 1
        logging = is_logging_step(self.trainer)
        self._seed_generators("iteration", iteration)
        batch = self.as_seen(batch)
        due = [phase for phase in self.phases() if phase.is_due(iteration)]

        def play(batch: Any) -> None:
            self._play(due, batch, iteration)

        # At a logging step more is read than is recorded.
        graphs = None if logging else self._graphs
        if graphs is None:
            play(batch)
        else:
            statistics = [a.takes_statistics(self.age(a.player)) for a in self.network_averages]
            played = [(phase.name, phase.player) for phase in due]
            graphs.play(batch, (*played, *statistics), play)
        for phase in due:
            name, terms = f"loss_{phase.name}", self.latest[phase.name]
            # A recording writes its other terms anew in the next iteration.
            noted = terms if graphs is None else {name: terms[name]}
            self.divergence.note(iteration, terms[name], noted)
        self._end_iteration(len(batch[0]))
        if logging:
            self.log_terms(iteration)

    def _play(self, due: Sequence[Phase], batch: Any, iteration: int) -> None:
        """The shared forward pass, and the phases on it."""
        with ExitStack() as stack:
            for average in self.network_averages:
                stack.enter_context(average.recording(self.age(average.player)))
            reach_generators = any(phase.through_generators for phase in due)
            stack.enter_context(torch.set_grad_enabled(reach_generators))
            generated = self.generate(batch)
        for phase in due:
            self._run(phase, batch, generated, iteration)

    def _run(self, phase: Phase, batch: Any, generated: Any, iteration: int) -> None:
        accumulate = self.accumulate_grad_batches
        with frozen(self._others_of[phase.player]):
            loss, terms = phase.loss(batch, generated)
            self.manual_backward(loss if accumulate == 1 else loss / accumulate)
        self._gradient_norm = None
        if phase.runs(iteration) % accumulate == 0:
            self.step_player(phase.player)
        latest = {name: term.detach() for name, term in terms.items()}
        latest[f"loss_{phase.name}"] = loss.detach()
        if self._gradient_norm is not None:
            latest[f"grad_norm_{phase.name}"] = self._gradient_norm
        self.latest[phase.name] = latest
        self.after_phase(phase)

    def step_player(self, player: str) -> None:
        """Steps the player's optimizer on its gradients."""
        optimizer = self._optimizer_of[player]
        step_optimizer(self.trainer, optimizer)
        optimizer.zero_grad()
        self.counts[f"{player}_steps"] = self.counts.get(f"{player}_steps", 0) + 1

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if is_logging_step(self.trainer):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            self._gradient_norm = norm / loss_scale(self.trainer, optimizer)
        if self.gradient_clip_val is not None:
            self.clip_gradients(
                optimizer,
                gradient_clip_val=self.gradient_clip_val,
                gradient_clip_algorithm="norm",
            )

    def _end_iteration(self, batch_size: int) -> None:
        self.counts["images_seen"] += batch_size * self.trainer.world_size
        if self.scheduler_factory is not None:
            self._step_schedulers()
        for average in self.network_averages:
            average.update(self.age(average.player), self.ema_decay)
        count_iteration(self.trainer)

    def _step_schedulers(self) -> None:
        for player, config in zip(self.players(), self.trainer.lr_scheduler_configs, strict=True):
            if self.age(player) is None:
                continue
            if not isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step()
            elif self.plateau_term and (self.trainer.global_step + 1) % _PLATEAU_INTERVAL == 0:
                config.scheduler.step(float(self.extra_terms()[self.plateau_term]))

    def log_terms(self, iteration: int) -> None:
        """Logs the latest terms; ArithmeticError if one is not finite."""
        self.divergence.refuse_broken_losses()
        logged: dict[str, Any] = {
            name: value.mean()
            for terms in [*self.latest.values(), self.extra_terms()]
            for name, value in terms.items()
        }
        logged |= {name: float(count) for name, count in self.counts.items()}
        if self.scheduler_factory is not None:
            logged |= {
                f"lr_{player}": optimizer.param_groups[0]["lr"]
                for player, optimizer in self._optimizer_of.items()
            }
        self.logged = {f"train/{name}": float(value) for name, value in logged.items()}
        refuse_broken_values(self.logged, iteration)
        # Lightning would log them under the number of the iteration before.
        self.log_dict(self.logged, logger=False)
        report_figures(self.loggers, self.logged, iteration)

    def configure_optimizers(self) -> Any:
        optimizers = [
            self.optimizer_factories[player](list(network.parameters()))
            for player, network in self.players().items()
        ]
        if self.scheduler_factory is None:
            return optimizers
        with within("scheduler"):
            schedulers = [self.scheduler_factory(optimizer) for optimizer in optimizers]
        if self.plateau_term is None and isinstance(schedulers[0], ReduceLROnPlateau):
            raise UnfitArgument(
                "scheduler",
                f"is ReduceLROnPlateau, and a {type(self).__name__} has no term whose plateau "
                "would tell anything: take another one (model/scheduler=linear, say).",
            )
        return optimizers, schedulers

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, self.batch_types):
            return batch
        for kind in self.batch_types:
            if len(kind._fields) == len(batch):  # type: ignore[attr-defined]
                return kind(*batch)
        expected = " or ".join(", ".join(kind._fields) for kind in self.batch_types)  # type: ignore[attr-defined]
        raise ValueError(
            f"A {type(self).__name__} trains on batches of {expected}, and the loader gives "
            f"{len(batch)} values."
        )

    def on_fit_start(self) -> None:
        forget_absent_gpus()
        self._seed = self.config.get("seed", torch.initial_seed())

    def on_train_start(self) -> None:
        self._seed_generators("start", self.trainer.global_step)
        players = self.players()
        self._optimizer_of = dict(zip(players, self.trainer.optimizers, strict=True))
        # Listed once: to walk the modules in each iteration would cost more than freezing them.
        self._others_of = parameters_of_others(players)
        self.network_averages = self.moving_averages()
        self.restore_gradients()
        self._graphs = self._iteration_graphs()

    def _iteration_graphs(self) -> IterationGraphs | None:
        optimizers = self.trainer.optimizers
        if not (
            self.graphs
            and vars(type(self)).get("graphable")
            and self.device.type == "cuda"
            and self.trainer.world_size == 1
            and self.accumulate_grad_batches == 1
            and not scales_losses(self.trainer)
            and recordable(optimizers, [c.scheduler for c in self.trainer.lr_scheduler_configs])
        ):
            return None
        recorder = CudaRecorder(self.device)
        return IterationGraphs(self, self.network_averages, optimizers, recorder)

    def moving_averages(self) -> list[MovingAverage]:
        """What moves ``ema`` along with the networks."""
        return [
            MovingAverage(self._player_of[name], average, self.get_submodule(name))
            for name, average in self.ema.items()
        ]

    def on_validation_epoch_start(self) -> None:
        self._seed_generators("validation", self.trainer.global_step)
        self.share_buffers()

    def on_validation_epoch_end(self) -> None:
        # The x-axis of what Lightning logs in validation, which would be its own count.
        self.log("step", float(self.trainer.global_step))

    def on_train_end(self) -> None:
        self.share_buffers()

    def network(self, name: str, ema: bool = True) -> nn.Module:
        """The network of that name, its moving average where there is one and ``ema`` is true."""
        return self.ema[name] if ema and name in self.ema else self.get_submodule(name)

    def _seed_generators(self, purpose: str, iteration: int) -> None:
        """Seeds what this rank draws in this iteration of this run."""
        seed = derived_seed(purpose, self._seed, iteration, self.global_rank)
        seed_generators(seed, self.device)


def parameters_of_others(players: Mapping[str, nn.Module]) -> dict[str, list[Parameter]]:
    """Player -> the trainable parameters of all others."""
    return {
        player: [
            parameter
            for other, network in players.items()
            if other != player
            for parameter in network.parameters()
            if parameter.requires_grad
        ]
        for player in players
    }


@contextmanager
def frozen(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Lets no gradient reach the parameters meanwhile."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
