"""Claims about many settings: random networks, and random rates and weights."""

import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from gan_zoo.claims import Arm, Measured, Results, figures_of

_RIVALS = ("gan", "wgan_gp")
_BEST = "best"


def ratio(results: Results, figure: str, arm: str, than: str) -> Measured:
    """``<figure>_ratio``: an arm's median over seeds over another's."""
    medians = [figures_of(results, name, figure) for name in (arm, than)]
    if not all(medians):
        return Measured({})
    own, other = map(statistics.median, medians)
    return Measured({f"{figure}_ratio": own / other})


def chosen(results: Results, arm: str, by: str, figure: str) -> Measured:
    """``chosen_<figure>``: a figure of the seed of which another one, ``by``, is highest."""
    entries = [entry["figures"] for entry in results.get(arm, {}).values() if "figures" in entry]
    if not entries:
        return Measured({})
    return Measured({f"chosen_{figure}": max(entries, key=lambda found: found[by])[figure]})


def architectures(
    results: Results,
    count: int,
    seeds: Sequence[int],
    widths: Sequence[int],
    depths: Sequence[int],
    experiment: str,
) -> dict[str, Arm]:
    """Random fully connected networks, each trained as a GAN and as a WGAN-GP (1704.00028, sec. 4).

    The paper draws depth, width, nonlinearity and normalisation of convolutional networks, of
    either player independently. A critic whose gradient is penalised has no batch norm, and these
    have no layer norm in its place; a GAN's discriminator has neither here.

    Args:
        count: of architectures.
        widths, depths: of hidden layers, to draw from.
        experiment: "experiment=NAME", of which there is a NAME_gan and a NAME_wgan_gp.
    """
    draw = random.Random(0)
    arms = {}
    for number in range(count):
        networks = []
        for player in ("generator", "discriminator"):
            hidden = [draw.choice(widths)] * draw.choice(depths)
            slope = draw.choice([0.0, 0.2])
            networks += [f"model/{player}=mlp", f"model.{player}.hidden={hidden}",
                         f"model.{player}.negative_slope={slope}"]  # fmt: skip
        networks.append(f"model.generator.norm={str(draw.choice([True, False])).lower()}")
        for rival in _RIVALS:
            arms[f"{number} {rival}"] = Arm([f"{experiment}_{rival}", *networks], list(seeds))
    return arms


def only_one_succeeds(results: Results, figure: str, above: float) -> Measured:
    """Of how many architectures and seeds one, both or none of the rivals succeed.

    A run succeeds if its figure is above the bound; one that diverged does not. ``advantage`` is by
    how many more WGAN-GP alone succeeds than the GAN alone.
    """
    names = {arm.rpartition(" ")[0] for arm in results}
    found = dict.fromkeys(("gan_only", "wgan_gp_only", "both", "none"), 0.0)
    for name in names:
        gan, wgan_gp = (results.get(f"{name} {rival}", {}) for rival in _RIVALS)
        for seed in gan.keys() & wgan_gp.keys():
            wins = tuple(
                runs[seed].get("figures", {}).get(figure, 0) > above for runs in (gan, wgan_gp)
            )
            outcomes = {(True, False): "gan_only", (False, True): "wgan_gp_only",
                        (True, True): "both", (False, False): "none"}  # fmt: skip
            found[outcomes[wins]] += 1
    return Measured(found | {"advantage": found["wgan_gp_only"] - found["gan_only"]})


class _Range(NamedTuple):
    """An option, and what its values are drawn from: evenly, or evenly by their logarithms."""

    option: str
    low: float
    high: float
    logarithmic: bool = True

    def drawn(self, draw: random.Random) -> str:
        share = draw.random()
        value = self.low + share * (self.high - self.low)
        return f"{self.option}={10**value if self.logarithmic else value:.4g}"


# 1711.10337, section 6, with the ranges of its authors' code, google/compare_gan, src/params.py
# (GetDefaultWideRange and what each loss adds); powers of ten where logarithmic.
_ADAM = ["model/optimizer@model.optimizer_g=adam", "model/optimizer@model.optimizer_d=adam"]
_GAMES: dict[str, tuple[list[str], list[_Range]]] = {
    "minimax": (["model=dcgan", "model.loss=minimax"], []),
    "non_saturating": (["model=dcgan", "model.loss=non_saturating"], []),
    "least_squares": (["model=dcgan", "model.loss=least_squares"], []),
    "wgan": (["model=wgan", *_ADAM], [_Range("model.clip_value", -3, 0)]),
    "wgan_gp": (["model=wgan_gp"], [_Range("model.lambda_gp", -1, 2)]),
    "dragan": (["model=dcgan", "model.penalty=dragan"], [_Range("model.lambda_gp", -1, 2)]),
    "began": (
        ["model=began"],
        [_Range("model.lambda_k", -4, -2), _Range("model.gamma", 0.01, 1, False)],
    ),
}
# Batch norm mixes the images of a batch, so that their gradients can't be penalised.
_WITHOUT_NORM = ("wgan_gp", "dragan")
# BEGAN's is an auto-encoder.
_DISCRIMINATOR = ["model.discriminator.base_channels=16", "model.discriminator.fc_units=128"]


def games(
    results: Results,
    count: int,
    seeds: Sequence[int],
    options: Sequence[str],
    figure: str,
) -> dict[str, Arm]:
    """Seven losses on equal networks, each with random settings, then the best one again.

    Adam's rate is drawn from 1e-5 to 1e-2, its beta1 from 0 to 1, the discriminator's steps are 1
    or 5, and it has batch norm or not. The settings are tried with seed 0 and chosen by the figure
    on images held out; once all are there, the best of each loss is trained with other seeds.

    Args:
        count: of settings a loss.
        seeds: of the best ones.
        options: of all runs.
        figure: that settings are chosen by; lower is better.
    """
    arms: dict[str, Arm] = {}
    best: dict[str, Arm] = {}
    for game, (chosen, ranges) in _GAMES.items():
        draw = random.Random(game)
        tried = {}
        for number in range(count):
            rate = f"{10 ** draw.uniform(-5, -2):.4g}"
            beta = f"{draw.random():.4g}"
            steps, norm = draw.choice([1, 5]), draw.choice(["true", "false"])
            setting = [*chosen, f"model.n_critic={steps}"]
            for player in "gd":
                setting += [f"model.optimizer_{player}.lr={rate}",
                            f"model.optimizer_{player}.betas=[{beta},0.999]"]  # fmt: skip
            if game != "began":
                norm = "false" if game in _WITHOUT_NORM else norm
                setting += [f"model.discriminator.norm={norm}", *_DISCRIMINATOR]
            setting += [found.drawn(draw) for found in ranges]
            tried[f"{game} {number}"] = Arm([*setting, *options], [0])
        arms |= tried
        scores = {name: figures_of(results, name, figure) for name in tried}
        if all(name in results for name in tried) and any(scores.values()):
            least = min((name for name in tried if scores[name]), key=lambda name: scores[name])
            best[f"{game} {_BEST}"] = Arm(tried[least].options, list(seeds))
    return arms | best


def compared(results: Results, figure: str, collapsed: float, budgets: Sequence[int]) -> Measured:
    """What the search of ``games`` came to.

    ``rank_<loss>`` orders the losses by the median of the best setting's seeds, 1 is the best;
    ``collapsed_<loss>`` is the share of settings that diverged or whose figure is above the bound.
    Series have, by loss, the expected best figure of so many random settings.

    Args:
        budgets: numbers of settings.
    """
    figures: dict[str, float] = {}
    series: dict[str, list[tuple[float, float]]] = {}
    medians = {}
    for game in _GAMES:
        tried = [arm for arm in results if arm.startswith(f"{game} ") and not arm.endswith(_BEST)]
        if again := figures_of(results, f"{game} {_BEST}", figure):
            medians[game] = statistics.median(again)
        values = sorted(value for arm in tried for value in figures_of(results, arm, figure))
        if tried:
            good = sum(value <= collapsed for value in values)
            figures[f"collapsed_{game}"] = 1 - good / len(tried)
        series[game] = [
            (budget, _expected_best(values, budget)) for budget in budgets if budget <= len(values)
        ]
    for rank, game in enumerate(sorted(medians, key=medians.__getitem__), 1):
        figures[f"rank_{game}"] = rank
    return Measured(figures, series=series)


def _expected_best(values: Sequence[float], budget: int) -> float:
    """The mean of the least of ``budget`` values drawn with replacement, of sorted values."""
    n = len(values)
    chances = [((n - i) / n) ** budget - ((n - i - 1) / n) ** budget for i in range(n)]
    return sum(chance * value for chance, value in zip(chances, values, strict=True))
