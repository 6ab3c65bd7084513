"""A claim: which runs it takes, how they are measured, what has to come out, and what did."""

import functools
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from gan_zoo.claims import Arm, Measured, Results, figures_of
from gan_zoo.run.configuration import composed

# Options that change nothing that is measured, but for rounding.
_LEFT_OUT = ("callbacks", "channels_last", "cuda_graphs", "debug", "health", "logger", "paths",
             "print_config", "recommended", "resume", "search", "tags", "trust")  # fmt: skip
_BEATS, _MEETS, _MISSES = "beats", "meets", "misses"
_SHOWN, _PARTLY, _NOT_SHOWN = "shown", "partly", "not shown"


class Goal(NamedTuple):
    """What has to come out.

    A figure is held against a number, mostly the paper's, or against that of another arm.

    Attributes:
        figure: its name.
        arm: of this arm's seeds; None for a figure of the whole claim.
        higher: whether higher is better.
        number, than: what it is held against; one of them is None.
        paper: the paper's figure in words, and nothing where it has none.
        quick: whether the short version of the claim has to show it.
    """

    figure: str
    arm: str | None
    higher: bool
    number: float | None
    than: str | None
    paper: str
    quick: bool

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Goal":
        """From a claim's file: one of at_least, at_most (a number), above, below (an arm)."""
        (key,) = {"at_least", "at_most", "above", "below"} & set(told)
        number = told[key] if key.startswith("at_") else None
        return cls(
            told["figure"], told.get("arm"), key in ("at_least", "above"),
            number, None if key.startswith("at_") else told[key],
            str(told.get("paper", "")), bool(told.get("quick")),
        )  # fmt: skip

    @property
    def words(self) -> str:
        """What is asked for, in a table."""
        way = "higher" if self.higher else "lower"
        if self.than is not None:
            return f"{way} than {self.than}"
        return f"{self.number:g} or {'more' if self.higher else 'less'}"

    def verdict(self, results: Results, summary: Mapping[str, float]) -> str | None:
        """How the medians over seeds compare; None if there are no figures yet.

        Against a number: "beats" if the median is better, "meets" if it is equal or lies between
        the seeds' figures, else "misses". Against another arm: "shown" if each of its seeds is
        worse than each seed of this arm, "partly" if the median is, else "not shown". A run that
        failed is worse than any other.
        """
        sign = 1 if self.higher else -1
        own = [sign * value for value in self.values(results, summary)]
        own += _failures(results, self.arm)
        if not own:
            return None
        median = statistics.median(own)
        if self.than is None:
            assert self.number is not None
            bound = sign * self.number
            if median > bound:
                return _BEATS
            return _MEETS if median == bound or max(own) >= bound else _MISSES
        other = [sign * value for value in figures_of(results, self.than, self.figure)]
        other += _failures(results, self.than)
        if not other:
            return None
        if min(own) > max(other):
            return _SHOWN
        return _PARTLY if median > statistics.median(other) else _NOT_SHOWN

    def values(self, results: Results, summary: Mapping[str, float]) -> list[float]:
        if self.arm is None:
            return [summary[self.figure]] if self.figure in summary else []
        return figures_of(results, self.arm, self.figure)


def _failures(results: Results, arm: str | None) -> list[float]:
    failed = (entry for entry in results.get(arm or "", {}).values() if "failed" in entry)
    return [-math.inf for _ in failed]


def succeeded(verdict: str | None) -> bool:
    return verdict in (_BEATS, _MEETS, _SHOWN)


class Claim:
    """A file of conf/claim.

    Its keys:

    - ``title``, ``about``: what the paper says, and the protocol, for the page; ``source``: where.
    - ``seeds``: of each arm.
    - ``arms``: name -> options of train.py. An arm whose only option is a model is that model's
      default run. A ``_target_`` in its place gives arms of the results so far, until it gives no
      others.
    - ``measure``: the protocol, (run's folder) -> Measured.
    - ``summary``: (results) -> what was found over all arms; null for nothing.
    - ``goals``: see ``Goal.of``.
    - ``quick``: ``options`` that make the runs short, ``seeds``, and which ``arms`` are run, or
      other arguments of their ``_target_``; null if there is no short version.
    - ``found``: what was tried and seen, for the page.

    Args:
        name: of the file.
        config: its content.
        quick: the short version, of which only some goals are asked.
    """

    def __init__(self, name: str, config: DictConfig, quick: bool = False) -> None:
        self.name = name
        self.config = config
        self.quick = quick
        if quick and config.quick is None:
            raise ValueError(f"{name} has no quick version.")
        self.title, self.source = str(config.title), str(config.source)
        self.about, self.found = str(config.about).strip(), str(config.found or "").strip()
        self.seeds: list[int] = list((config.quick if quick else config).seeds)
        goals = [Goal.of(goal) for goal in OmegaConf.to_container(config.goals)]  # type: ignore[arg-type, union-attr]
        self.goals = [goal for goal in goals if goal.quick or not quick]

    @cached_property
    def measure(self) -> Callable[[Path], Measured]:
        found: Callable[[Path], Measured] = instantiate(self.config.measure)
        return found

    def arms(self, results: Results) -> dict[str, Arm]:
        """The runs of the claim, as far as the results so far tell."""
        arms, quick = self.config.arms, self.config.quick
        if "_target_" in arms:
            # Of a short version, other numbers.
            given: dict[str, Arm] = instantiate(arms)(results, **(quick.arms if self.quick else {}))
        else:
            given = {
                str(arm): Arm(list(map(str, options)), self.seeds) for arm, options in arms.items()
            }
        if not self.quick:
            return given
        short = list(map(str, quick.options))
        chosen = given if "_target_" in arms else quick.arms or given
        return {
            str(arm): given[arm]._replace(options=[*given[arm].options, *short]) for arm in chosen
        }

    def summary(self, results: Results) -> Measured:
        if self.config.summary is None:
            return Measured({})
        found: Measured = instantiate(self.config.summary)(results)
        return found

    def verdicts(self, results: Results) -> list[tuple[Goal, list[float], str | None]]:
        """Each goal with its figures and its verdict; nothing of both before there are results."""
        if not results:
            return [(goal, [], None) for goal in self.goals]
        summary = self.summary(results).figures
        return [
            (goal, goal.values(results, summary), goal.verdict(results, summary))
            for goal in self.goals
        ]


def composition(options: Sequence[str], seed: int) -> str:
    """Twelve hexadecimal digits of what a command line trains, wherever its files are."""
    return _composition((*options, f"seed={seed}"))


@functools.cache
def _composition(options: tuple[str, ...]) -> str:
    return digits_of(OmegaConf.to_container(composed("train", options), resolve=True))


def digits_of(plain: Any) -> str:
    """The same of a run's configuration, resolved, as plain dicts."""
    kept = {key: value for key, value in plain.items() if key not in _LEFT_OUT}
    kept["dataset"] = {k: v for k, v in kept["dataset"].items() if k != "root"}
    text = json.dumps(_without_nulls(kept), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without_nulls(node: Any) -> Any:
    """Without what is not used: options that newer versions have change nothing so."""
    if not isinstance(node, dict):
        return node
    return {key: _without_nulls(value) for key, value in node.items() if value is not None}
