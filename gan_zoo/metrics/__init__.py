"""What is measured of generated data: pure functions of tensors, which know nothing of models."""

from collections.abc import Callable

# Told the share of a long measurement that is done.
Report = Callable[[float], None]


def silent(share: float) -> None:
    """The Report where nobody listens."""
