"""What is measured of generated data: functions of tensors that know nothing of models."""

from collections.abc import Callable

# Called with the share of a long measurement that is done, from 0 to 1.
Report = Callable[[float], None]


def silent(share: float) -> None:
    """A Report that does nothing."""
