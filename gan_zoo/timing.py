"""A model's iterations in a bare loop, and the same under Lightning, timed in turn."""

import copy
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from gan_zoo.ranges import UnfitArgument
from gan_zoo.training.module import AdversarialModule, Phase, frozen, parameters_of_others

# The model's methods that are parts of an iteration; "bookkeeping" is what they leave of it: seeds,
# freezing, counts.
_METHODS = {
    "training_step": "bookkeeping",
    "generate": "forward",
    "manual_backward": "backward",
    "step_player": "optimizer",
    "log_terms": "logging",
}
PARTS = ("data", "forward", "backward", "optimizer", "averaging", "bookkeeping", "logging",
         "callbacks", "Lightning")  # fmt: skip


class BareLoop:
    """A model's iterations by its own phases, without Lightning, loader, logging or checks.

        loop = BareLoop(model, batches)
        loop.iterate()

    All that the algorithm consists of is here: the shared forward pass, each phase that is due with
    the other players frozen, clipping, the optimizers, what a model does after a phase, learning
    rates and moving averages. Noise is drawn from torch's generators as it comes.

    Args:
        model: a copy of it is trained.
        batches: as the loader gives them, on the device to train on; they are taken in turn.
        max_steps: iterations that the game is planned for; -1 for no end.
        precision: Lightning's precision plugin, for how forward passes are cast.
        data: the data module of the batches.

    Raises:
        UnfitArgument: if gradients are accumulated, which it does not do.
    """

    def __init__(
        self,
        model: AdversarialModule,
        batches: Sequence[Any],
        max_steps: int = -1,
        precision: pl.plugins.Precision | None = None,
        data: pl.LightningDataModule | None = None,
    ) -> None:
        if model.accumulate_grad_batches > 1:
            raise UnfitArgument("accumulate_grad_batches", "has to be 1 in a bare loop.")
        self.batches, self.precision = batches, precision
        self.model = copy.deepcopy(model).to(batches[0][0].device).train()
        # What models ask of their trainer.
        trainer: Any = SimpleNamespace(
            global_step=0,
            max_steps=max_steps,
            world_size=1,
            global_rank=0,
            datamodule=data,
            strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
        )
        self.trainer = self.model._trainer = trainer
        self.model.on_fit_start()
        players = self.model.players()
        self.optimizers = {
            player: self.model.optimizer_factories[player](list(network.parameters()))
            for player, network in players.items()
        }
        schedule = self.model.scheduler_factory
        self.schedules = {p: schedule(o) for p, o in self.optimizers.items()} if schedule else {}
        self.others = parameters_of_others(players)
        self.averages = self.model.moving_averages()

    def iterate(self) -> None:
        """Trains on the next batch."""
        model, step = self.model, self.trainer.global_step
        batch = model.as_seen(self.batches[step % len(self.batches)])
        due = [phase for phase in model.phases() if phase.is_due(step + 1)]
        ages = [model.age(average.player) for average in self.averages]
        with self.precision.train_step_context() if self.precision else nullcontext():
            with ExitStack() as stack:
                for average, age in zip(self.averages, ages, strict=True):
                    stack.enter_context(average.recording(age))
                reach_generators = any(phase.through_generators for phase in due)
                stack.enter_context(torch.set_grad_enabled(reach_generators))
                generated = model.generate(batch)
            for phase in due:
                self._run(phase, batch, generated)
            for player, schedule in self.schedules.items():
                if model.age(player) is not None and not isinstance(schedule, ReduceLROnPlateau):
                    schedule.step()
            for average, age in zip(self.averages, ages, strict=True):
                average.update(age, model.ema_decay)
        self.trainer.global_step += 1

    def _run(self, phase: Phase, batch: Any, generated: Any) -> None:
        with frozen(self.others[phase.player]):
            loss, terms = phase.loss(batch, generated)
            loss.backward()
        optimizer = self.optimizers[phase.player]
        if self.model.gradient_clip_val is not None:
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, self.model.gradient_clip_val)
        optimizer.step()
        optimizer.zero_grad()
        self.model.latest[phase.name] = {name: term.detach() for name, term in terms.items()}
        self.model.after_phase(phase)


class Turns:
    """Has several sides work one after the other, a block at a time, each in its own thread.

    What else the machine does then meets all of them. A side calls ``begin`` before anything else,
    and ``stop`` and ``pass_on`` after each of its blocks, so that no two work at the same time.

    Args:
        sides: their names, in the order of a round.
        rounds: blocks of each side.
        device: is waited for before a clock is read.

    Attributes:
        seconds: side -> how long each of its blocks took.
    """

    def __init__(self, sides: Sequence[str], rounds: int, device: torch.device) -> None:
        self.sides, self.rounds, self.device = list(sides), rounds, device
        self.seconds: dict[str, list[float]] = {side: [] for side in sides}
        self._turn = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None

    def begin(self, side: str) -> None:
        """Waits for the side's turn, and starts its clock."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or self.sides[self._turn] == side)
        self.raise_error()
        self._begun = time.perf_counter()

    def stop(self, side: str) -> None:
        """Stops its clock at the end of a block."""
        self.seconds[side].append(self.now() - self._begun)

    def pass_on(self, side: str) -> None:
        """Lets the next side work; returns when it is this one's turn again, or all are done."""
        with self._changed:
            self._turn = (self._turn + 1) % len(self.sides)
            self._changed.notify_all()
        if len(self.seconds[side]) < self.rounds:
            self.begin(side)
            return
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._done())
        self.raise_error()

    def now(self) -> float:
        """The clock, once the device has done its work."""
        # Nothing may wait for a device while its work is recorded.
        if self.device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _done(self) -> bool:
        return all(len(blocks) == self.rounds for blocks in self.seconds.values())

    def fail(self, error: BaseException) -> None:
        """Ends all sides by this error."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def raise_error(self) -> None:
        """Raises what a side has failed by, if one has."""
        if self._error:
            raise self._error


class Blocks(pl.Callback):
    """Takes a trainer's turns after every ``block`` iterations."""

    def __init__(self, turns: Turns, side: str, block: int) -> None:
        self.turns, self.side, self.block = turns, side, block

    def on_train_batch_end(self, trainer: pl.Trainer, *unused: Any) -> None:
        if trainer.global_step % self.block == 0:
            self.turns.stop(self.side)
            self.turns.pass_on(self.side)


class Stopwatch(Profiler):
    """Where a training iteration's time goes: part -> seconds, without those of parts within it.

    It runs between ``begin`` and ``end``. Lightning tells its hooks, callbacks and the loader by
    their names; the parts of an iteration are the model's own.
    """

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.turns = turns
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._running: list[str] = []
        self._since = 0.0
        self._before: list[tuple[Any, str, Any]] = []

    def start(self, action_name: str) -> None:
        # Some hooks, such as an epoch, begin or end while it does not run.
        if self._running:
            self._lap()
            self._running.append(self._part(action_name))

    def stop(self, action_name: str) -> None:
        if len(self._running) > 1:
            self._lap()
            self._running.pop()

    def begin(self, trainer: pl.Trainer, model: AdversarialModule) -> None:
        """Starts it, between two iterations."""

        def timed(function: Any, part: str) -> Any:
            def measured(*args: Any, **options: Any) -> Any:
                with self.profile(part):
                    return function(*args, **options)

            return measured

        def phases() -> list[Phase]:
            return [phase._replace(loss=timed(phase.loss, "forward")) for phase in own_phases()]

        own_phases = model.phases
        watched: list[tuple[Any, str, Any]] = [
            (trainer, "profiler", self),
            (model, "phases", phases),
            *((model, name, timed(getattr(model, name), part)) for name, part in _METHODS.items()),
            *((a, "update", timed(a.update, "averaging")) for a in model.network_averages),
        ]
        for owner, name, value in watched:
            own = vars(owner).get(name)
            setattr(owner, name, value)
            self._before.append((owner, name, own))
        self._running = ["Lightning"]
        self._since = self.turns.now()

    def end(self) -> None:
        """Stops it."""
        self._lap()
        self._running = []
        for owner, name, value in self._before:
            delattr(owner, name) if value is None else setattr(owner, name, value)
        self._before.clear()

    def _lap(self) -> None:
        now = self.turns.now()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def _part(self, action: str) -> str:
        if action.startswith("[Callback]"):
            return "callbacks"
        if "dataloader_next" in action or "batch_to_device" in action:
            return "data"
        return action if action in PARTS else self._running[-1]
