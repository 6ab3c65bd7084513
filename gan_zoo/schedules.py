"""Schedules."""

from __future__ import annotations

from bisect import bisect_right

# The authors of WGAN: the critic warms up before the generator's first 25 steps and before every
# 500th.
_FIRST_WARM_STEPS = 25
_WARM_EVERY = 500


def steps_after_warmup(iteration: int, n_critic: int, n_critic_warmup: int) -> int:
    """How many steps WGAN's generator has taken by the end of that iteration of the critic.

    As in the authors' code (1701.07875), its first 25 steps, and those whose number from 0 is a
    multiple of 500, take ``n_critic_warmup`` iterations each, the others ``n_critic``.
    """

    def iterations(steps: int) -> int:
        warm = min(steps, _FIRST_WARM_STEPS) + max(0, (steps - 1) // _WARM_EVERY)
        return n_critic * steps + (n_critic_warmup - n_critic) * warm

    return bisect_right(range(iteration // n_critic + 1), iteration, key=iterations) - 1
