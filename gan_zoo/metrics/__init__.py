"""What is measured of generated data: functions of tensors that know nothing of models."""

from collections.abc import Callable

# Arguments named ``report`` are called with the share of the work that is done, from 0 to 1.
Report = Callable[[float], None]


def silent(share: float) -> None:
    """A Report that does nothing."""
