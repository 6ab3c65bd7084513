"""Moving averages of networks, with running statistics of batch norm that fit them."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
# Iterations between two updates of the average's running statistics.
_STATISTICS_INTERVAL = 16


class MovingAverage:
    """A copy of a network that follows it: weights by their moving average, buffers as they are.

    Batch norm's running statistics are the average's own, from a pass over the network's inputs in
    every 16th iteration. With those of the network, whose weights move much between two iterations,
    StackGAN++'s samples had 2.8 times the Frechet distance.

    Args:
        player: who trains the network.
        average: the copy.
        network: what it follows.

    Attributes:
        inputs: the network's, while running statistics are to be taken from them; else None.
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
        self.inputs: tuple[Any, ...] | None = None

    def takes_statistics(self, age: int | None) -> bool:
        """Whether running statistics are due at that age."""
        return bool(self._norms) and age is not None and age % _STATISTICS_INTERVAL == 0

    @contextmanager
    def recording(self, age: int | None) -> Iterator[None]:
        """Keeps the network's inputs meanwhile, if running statistics are due at that age."""
        if not self.takes_statistics(age):
            yield
            return

        def keep(network: nn.Module, inputs: tuple[Any, ...]) -> None:
            self.inputs = inputs if self.inputs is None else self.inputs

        with self._network.register_forward_pre_hook(keep):
            yield

    @torch.no_grad()
    def update(self, age: int | None, decay: float) -> None:
        """Follows the network after an iteration.

        Args:
            age: number of the iteration from 0, as the player counts them; None where the player
                did not train, and the average does not move.
            decay: of the average; it warms up as (1 + age) / (10 + age).
        """
        if age is None:
            return
        share = 1 - min(decay, (1 + age) / (10 + age))
        torch._foreach_lerp_(self._averages, self._weights, share)
        for kept, buffer in self._buffers:
            kept.copy_(buffer)
        if self.inputs is None:
            return
        with eval_mode(self._average):
            for norm, momentum in zip(self._norms, self._momenta, strict=True):
                # Young statistics are the mean of all batches so far: what they were initialised
                # to does not count.
                norm.momentum = max(momentum, 1 / (1 + age // _STATISTICS_INTERVAL))
                norm.train()
            self._average(*self.inputs)
        self.inputs = None


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Puts the network into eval mode meanwhile."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


@torch.no_grad()
def with_statistics_of(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy in eval mode whose batch norm's running statistics are those of these batches alone.

    A discriminator's own are of real and generated images together.
    """
    found = copy.deepcopy(network).train()
    for module in found.modules():
        if isinstance(module, _BATCH_NORM):
            module.reset_running_stats()
            # The mean over all batches.
            module.momentum = None
    for batch in batches:
        found(batch)
    return found.eval()


def has_batch_norm(network: nn.Module) -> bool:
    """Whether batch norm makes the images of a batch influence each other in the network."""
    return any(isinstance(m, _BATCH_NORM) for m in network.modules())
