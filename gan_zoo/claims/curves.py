"""Protocols that read what a run has logged."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

import gan_zoo
from gan_zoo.claims import AGAINST, Measured
from gan_zoo.comparison.runs import Run
from gan_zoo.files import read_json
from gan_zoo.run.report import METRICS_FILE

# Of a curve that a record keeps.
_POINTS = 100
_Curve = dict[int, float]


def _curve(logged: dict[str, _Curve], tag: str, run: Path) -> _Curve:
    if tag not in logged:
        raise ValueError(f"{run} has logged no {tag}.")
    return logged[tag]


def _points(curve: _Curve) -> list[tuple[float, float]]:
    """At most a hundred of them, evenly chosen."""
    points = [(float(step), round(value, 6)) for step, value in sorted(curve.items())]
    return points[:: -(-len(points) // _POINTS)]


def correlated(
    run: Path, estimates: Sequence[str], figure: str = "metrics/fid", skip: int = 0
) -> Measured:
    """Spearman's rank correlation of what the loss says with how good the images are.

    WGAN (1701.07875, figures 3 and 4): its estimate of the distance falls as images get better, a
    GAN's does not. The estimate is the median of those logged since the measurement before, as the
    authors smooth their curves by a median.

    Args:
        estimates: logged tags that should fall with the figure, of which the first that there is is
            taken; one that should rise has a minus before it.
        figure: the logged tag of the images' quality, lower is better.
        skip: iterations at the beginning that are left out.
    """
    logged = Run(run, run.name).logged
    measured = _curve(logged, figure, run)
    estimate = next((tag for tag in estimates if tag.lstrip("-") in logged), estimates[0])
    sign = -1 if estimate.startswith("-") else 1
    told = _curve(logged, estimate.lstrip("-"), run)
    pairs, begin = [], skip
    for step, value in sorted(measured.items()):
        since = [sign * told[at] for at in told if begin < at <= step]
        if since:
            pairs.append((statistics.median(since), value))
            begin = step
    rho = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    series = {f"Frechet distance{AGAINST}{estimate}": pairs}
    return Measured({"correlation": rho, "points": len(pairs)}, series=series)


def overfitted(run: Path, validation: str, training: str, share: float = 0.2) -> Measured:
    """Whether the critic knows its training images by heart (1704.00028, section 5.3, figure 5b).

    ``gap`` is its estimate on training images less that on images held out, over the former; each
    is the median over the last part of training, and ``held_out`` the latter.

    Args:
        validation, training: tags of both estimates.
        share: the last part of the run that medians are taken over.
    """
    logged = Run(run, run.name).logged
    curves = {
        "training": _curve(logged, training, run),
        "held out": _curve(logged, validation, run),
    }
    last = max(map(max, curves.values()))
    ends = {
        name: statistics.median(v for step, v in curve.items() if step >= (1 - share) * last)
        for name, curve in curves.items()
    }
    figures = {
        "gap": (ends["training"] - ends["held out"]) / ends["training"],
        "held_out": ends["held out"],
    }
    return Measured(figures, series={name: _points(curve) for name, curve in curves.items()})


def balanced(run: Path, skip: int = 1000) -> Measured:
    """BEGAN's equilibrium (1703.10717, sections 3.3 and 3.4).

    ``off_balance`` is how far the balance, the auto-encoder's loss of generated over that of real
    images, was from gamma in the median, over gamma; ``k_low`` and ``k_high`` are the bounds of k;
    ``correlation`` is Spearman's of the convergence measure M with the Frechet distance;
    ``coverage`` is the last one measured.

    Args:
        skip: iterations at the beginning that are left out.
    """
    logged = Run(run, run.name).logged
    gamma = gan_zoo.load(run).config["model"]["gamma"]
    balance, k, convergence, fid = (
        {step: v for step, v in _curve(logged, tag, run).items() if step >= skip}
        for tag in ("train/balance", "train/k", "train/convergence", "metrics/fid")
    )
    pairs = [
        (convergence[max(s for s in convergence if s <= step)], value)
        for step, value in sorted(fid.items())
        if any(s <= step for s in convergence)
    ]
    figures = {
        "off_balance": abs(statistics.median(balance.values()) / gamma - 1),
        "k_low": min(k.values()),
        "k_high": max(k.values()),
        "correlation": float(spearmanr(*zip(*pairs, strict=True)).statistic),
    }
    result: dict[str, Any] = read_json(run / METRICS_FILE, dict)
    figures |= {name: result[f"metrics/{name}"] for name in ("fid", "coverage", "recall")}
    return Measured(figures, series={"balance": _points(balance), "k": _points(k)})


def last_figures(run: Path, figures: Sequence[str]) -> Measured:
    """The last figures that training measured, on images held out of the training set."""
    result: dict[str, Any] = read_json(run / METRICS_FILE, dict)
    floors = {name: result.get(f"metrics_floor/{name}") for name in figures}
    return Measured(
        {name: result[f"metrics/{name}"] for name in figures},
        {name: floor for name, floor in floors.items() if floor is not None},
    )
