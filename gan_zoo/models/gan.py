"""Generative Adversarial Nets: Goodfellow et al. 2014, arXiv 1406.2661.

    min_G max_D V(D, G) = E_x[log D(x)] + E_z[log(1 - D(G(z)))]                            (eq. 1)

D ascends V; G descends V (``loss=minimax``) or, as section 3 does in practice and the default here
does, ascends E_z[log D(G(z))] (``loss=non_saturating``).

What differs from the paper by default: the survey's simple networks, noise of 256 uniform values
and Adam. ``experiment=gan_2014`` brings the paper's own networks, noise and SGD schedule. The
authors' code halves D's loss, and updates both players at once from the same weights; here, as in
the paper's Algorithm 1, V stands as it is and the players alternate.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gan_zoo.models.base import ImageGAN
from gan_zoo.ranges import Decay, NonNegative, Range, refuse_unfit


class GAN(ImageGAN):
    """The original game, which is the base's: nothing is added to ImageGAN."""

    published: ClassVar = {("mnist", "parzen"): "225 ± 2"}


class MomentumSchedule(LRScheduler):
    """SGD's schedule in the GAN and cGAN papers: the rate decays, the momentum rises.

    In step t the rate is max(lr / decay^t, min_lr) and the momentum rises linearly from
    ``momentum_start`` to ``momentum_end``, where it stays from step ``momentum_steps`` on.

    Args:
        optimizer: an SGD with momentum; its own momentum is overwritten.
        decay: divisor of the rate at each step (GAN's authors' code: 1.000004, cGAN: 1.00004).
        min_lr: the rate's floor.
        momentum_start, momentum_end: .5 and .7 in both papers.
        momentum_steps: 250 epochs of 500 batches in the authors' code.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        decay: float = 1.000004,
        min_lr: float = 1e-6,
        momentum_start: float = 0.5,
        momentum_end: float = 0.7,
        momentum_steps: int = 125_000,
    ) -> None:
        refuse_unfit("model.scheduler.decay", decay, Annotated[float, Range(1)])
        refuse_unfit("model.scheduler.min_lr", min_lr, NonNegative)
        refuse_unfit("model.scheduler.momentum_start", momentum_start, Decay)
        refuse_unfit("model.scheduler.momentum_end", momentum_end, Decay)
        refuse_unfit("model.scheduler.momentum_steps", momentum_steps, Annotated[int, Range(1)])
        self.decay = decay
        self.min_lr = min_lr
        self.momentum_start = momentum_start
        self.momentum_end = momentum_end
        self.momentum_steps = momentum_steps
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        risen = min(self.last_epoch / self.momentum_steps, 1.0)
        for group in self.optimizer.param_groups:
            group["momentum"] = (
                self.momentum_start + (self.momentum_end - self.momentum_start) * risen
            )
        return [max(lr / self.decay**self.last_epoch, self.min_lr) for lr in self.base_lrs]
