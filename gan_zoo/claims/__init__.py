"""What the papers claim, and how it is measured on finished runs.

conf/claim has a file for each claim; ``claim.py`` says what is in one. The other modules hold the
protocols, functions that take a run's folder and give what was measured. ``python
scripts/reproduce.py claim=NAME`` trains, measures and writes the record.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

_NOTHING: Mapping[str, Any] = MappingProxyType({})
# Between what a series shows and what it is drawn over, in its name.
AGAINST = " against "


class Measured(NamedTuple):
    """What a protocol found in a run.

    Attributes:
        figures: name -> value.
        floors: name -> the same figure of real images, or of chance, where there is one.
        series: name -> points (x, y) of a curve over iterations; "Y against X" says over what else.
        evaluators: name -> hash of the judges' weights.
    """

    figures: Mapping[str, float]
    floors: Mapping[str, float] = _NOTHING
    series: Mapping[str, Sequence[tuple[float, float]]] = _NOTHING
    evaluators: Mapping[str, str] = _NOTHING


class Arm(NamedTuple):
    """Runs that differ by their seeds alone; ``options`` are those of train.py."""

    options: list[str]
    seeds: list[int]


# Arm -> seed -> what was measured and how, as the record has it.
Results = dict[str, dict[str, dict[str, Any]]]


def figures_of(results: Results, arm: str, figure: str) -> list[float]:
    """A figure of an arm's seeds, in the order of the seeds; runs without it are left out."""
    seeds = sorted(results.get(arm, {}).items(), key=lambda item: int(item[0]))
    found = (entry.get("figures", {}).get(figure) for _, entry in seeds)
    return [value for value in found if value is not None]
