"""Ends a run once a loss or the weights are not finite, without reading the device each time."""

import math
from collections import deque
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn.parameter import Parameter

# Where nothing is logged, checkpoints still check the losses, back to this many phases.
_MOST_UNCHECKED = 1000
_REMEDY = "Lower rates (model.optimizer_d.lr) or model.gradient_clip_val may help."


class Divergence:
    """Keeps losses on the device, to check later whether all have been finite."""

    def __init__(self) -> None:
        self._unchecked: deque[tuple[int, Tensor, Mapping[str, Tensor]]] = deque(
            maxlen=_MOST_UNCHECKED
        )

    def note(self, iteration: int, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Keeps a phase's loss and terms."""
        self._unchecked.append((iteration, loss, dict(terms)))

    def refuse_broken_losses(self) -> None:
        """Raises ArithmeticError if a loss was not finite since the last call.

        It names the first such iteration, and the term that is to blame.
        """
        unchecked = list(self._unchecked)
        self._unchecked.clear()
        losses = [loss.float() for _, loss, _ in unchecked]
        if not losses or bool(torch.stack(losses).isfinite().all()):
            return
        for iteration, _, terms in unchecked:
            for name, term in terms.items():
                if not bool(term.isfinite().all()):
                    raise _diverged(f"train/{name}", float(term.mean()), iteration)


def refuse_broken_values(values: Mapping[str, float], iteration: int) -> None:
    """Raises ArithmeticError for the first of these logged values that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise _diverged(name, value, iteration)


def refuse_broken_weights(named: Iterable[tuple[str, Parameter]], iteration: int) -> None:
    """Raises ArithmeticError if any of these weights are not finite."""
    names, parameters = zip(*named, strict=True)
    finite = torch.stack([parameter.isfinite().all() for parameter in parameters]).tolist()
    if not all(finite):
        raise ArithmeticError(
            f"The weights {names[finite.index(False)]} are not finite after iteration {iteration}: "
            f"the run has diverged. {_REMEDY}"
        )


def _diverged(name: str, value: float, iteration: int) -> ArithmeticError:
    return ArithmeticError(
        f"{name} is {value} in iteration {iteration}: the run has diverged. {_REMEDY}"
    )
