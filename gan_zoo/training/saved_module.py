"""What of a model is in its checkpoints: enough to resume exactly, and to build it again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor

from gan_zoo.training.checkpoints import model_of, read_checkpoint, restore
from gan_zoo.training.divergence import Divergence, refuse_broken_weights
from gan_zoo.training.lightning_state import set_between_iterations


class SavedModule(pl.LightningModule):
    """A module whose checkpoints are plain data, and are only written while all is finite.

    Attributes:
        config: the run's whole configuration as plain dicts.
        trust: what the user trusts beside this package: full names, or packages.
        counts: images_seen, and of each player the optimizer's steps.
        latest: phase -> its loss and terms when it last ran, detached, on the device.
        divergence: the losses that have not been checked yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.trust: Sequence[str] = ()
        self.counts: dict[str, int] = {"images_seen": 0}
        self.latest: dict[str, dict[str, Tensor]] = {}
        self.divergence = Divergence()
        self._accumulated_gradients: dict[str, Tensor] = {}

    def process_state(self) -> dict[str, Any]:
        """What this process needs to resume, beside the weights, as plain data."""
        return {
            "latest": {
                phase: {name: value.cpu() for name, value in terms.items()}
                for phase, terms in self.latest.items()
            }
        }

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Takes what ``process_state`` gave before."""
        self.latest = {phase: dict(terms) for phase, terms in state["latest"].items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trainer = self.trainer
        self.divergence.refuse_broken_losses()
        refuse_broken_weights(self.named_parameters(), trainer.global_step)
        checkpoint["counts"] = dict(self.counts)
        checkpoint["config"] = self.config
        checkpoint["gradients"] = {
            name: parameter.grad.cpu()
            for name, parameter in self.named_parameters()
            if parameter.grad is not None
        }
        own = self.process_state()
        states: list[Any] = [own] * trainer.world_size
        if len(states) > 1:
            torch.distributed.all_gather_object(states, own)
        checkpoint["processes"] = states
        set_between_iterations(checkpoint, trainer.global_step, trainer.num_training_batches)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.counts = dict(checkpoint["counts"])
        self._accumulated_gradients = checkpoint["gradients"]
        states = checkpoint["processes"]
        # With another world size than before, ranks share states, or some states are dropped.
        self.load_process_state(states[self.global_rank % len(states)])

    def begin_with(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes the networks of another run, as read_checkpoint gives it, and nothing else.

        Raises:
            RuntimeError: if they are other networks than this model's.
        """
        self.load_state_dict(checkpoint["state_dict"])

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, *, trust: Sequence[str] = (), **options: Any
    ) -> Self:
        """The model of a checkpoint, in eval mode, on the CPU.

        Args:
            checkpoint_path: a checkpoint that train.py wrote, which knows its networks; or one of
                a trainer of your own, for which ``options`` are the model's arguments.
            trust: full names, or packages, that its configuration may have built beside this
                package's.

        Raises:
            ValueError: for a file that is no such checkpoint, is damaged, or would run code; or
                that is of a model of another class.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        model = model_of(checkpoint, trust) if checkpoint["config"] else cls(**options)
        if not isinstance(model, cls):
            raise ValueError(
                f"'{checkpoint_path}' is of a {type(model).__name__}, not of a {cls.__name__}."
            )
        if not checkpoint["config"]:
            restore(model, checkpoint)
        return model

    def restore_gradients(self) -> None:
        """Puts back the gradients of a checkpoint that was written between two optimizer steps."""
        for name, parameter in self.named_parameters():
            if name in self._accumulated_gradients:
                parameter.grad = self._accumulated_gradients.pop(name).to(parameter.device)

    def share_buffers(self) -> None:
        """Gives all ranks the first one's buffers, such as batch norm's running statistics.

        Under manual optimization nothing else does. Networks in training mode don't use them, so
        it is enough before all ranks sample or validate.
        """
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)
