"""Schedules that torch does not have: of rates and momentum, and of WGAN's critic."""

from bisect import bisect_right
from typing import Annotated

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from gan_zoo.ranges import Decay, NonNegative, Range, Steps, UnfitArgument, checked


class MomentumSchedule(LRScheduler):
    """SGD's schedule in the GAN and cGAN papers: the rate decays, the momentum rises.

    In step t the rate is max(lr / decay^t, min_lr) and the momentum rises linearly from
    ``momentum_start`` to ``momentum_end``, where it stays from step ``momentum_steps`` on.

        schedule = MomentumSchedule(torch.optim.SGD(weights, lr=0.1, momentum=0.5))

    The optimizer is an SGD with momentum; its own momentum is overwritten. The default decay is
    that of GAN's authors' code; cGAN's is 1.00004. In both papers the momentum rises from .5 to .7,
    in the authors' code over 250 epochs of 500 batches.
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        decay: Annotated[float, Range(1)] = 1.000004,
        min_lr: NonNegative = 1e-6,
        momentum_start: Decay = 0.5,
        momentum_end: Decay = 0.7,
        momentum_steps: Steps = 125_000,
    ) -> None:
        self.decay = decay
        self.min_lr = min_lr
        self.momentum_start = momentum_start
        self.momentum_end = momentum_end
        self.momentum_steps = momentum_steps
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        risen = min(self.last_epoch / self.momentum_steps, 1.0)
        momentum = self.momentum_start + (self.momentum_end - self.momentum_start) * risen
        for group in self.optimizer.param_groups:
            group["momentum"] = momentum
        return [max(lr / self.decay**self.last_epoch, self.min_lr) for lr in self.base_lrs]


class ConstantThenLinear(LambdaLR):
    """The rate is constant at first and then falls linearly to 0 (CycleGAN: 1703.10593, 7.1).

        schedule = ConstantThenLinear(optimizer, constant_share=0.5, total_steps=5000)

    ``constant_share`` is the share of the ``total_steps`` at the full rate (the paper: half).
    """

    @checked
    def __init__(self, optimizer: Optimizer, constant_share: Decay, total_steps: int) -> None:
        if total_steps < 1:
            problem = (
                f"is {total_steps}; a rate that falls until the end of the run needs its length"
            )
            remedy = "(trainer.max_steps has to be set, or model.scheduler=null taken)."
            raise UnfitArgument("total_steps", f"{problem} {remedy}")
        falling = (1 - constant_share) * total_steps
        super().__init__(optimizer, lambda n: min(1.0, max(0.0, (total_steps - n) / falling)))


def steps_after_warmup(iteration: int, n_critic: int, n_critic_warmup: int) -> int:
    """How many steps WGAN's generator has taken by the end of that iteration of the critic.

    As in the authors' code (1701.07875), its first 25 steps, and those whose number from 0 is a
    multiple of 500, take ``n_critic_warmup`` iterations each, the others ``n_critic``.
    """

    def iterations(steps: int) -> int:
        warm = min(steps, 25) + max(0, (steps - 1) // 500)
        return n_critic * steps + (n_critic_warmup - n_critic) * warm

    return bisect_right(range(iteration // n_critic + 1), iteration, key=iterations) - 1
