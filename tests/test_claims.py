"""What papers claim: goals and their verdicts, protocols, records, and the command."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from gan_zoo.claims import Measured, Results
from gan_zoo.claims.claim import Claim, Goal, composition
from gan_zoo.claims.judges import kept_judge
from gan_zoo.claims.settings import (
    architectures,
    chosen,
    compared,
    games,
    only_one_succeeds,
    ratio,
)
from gan_zoo.files import CONFIG_DIR, cache_dir
from tests.conftest import ROOT

FILES = sorted((CONFIG_DIR / "claim").glob("*.yaml"))
TINY = ("dataset=digits", "trainer.max_steps=2", "dataset.batch_size=8", "model=gan")


def of(**arms: list[float | None]) -> Results:
    """A figure ``x`` of each arm's seeds 0, 1, ...; None for a run that failed."""
    return {
        arm: {
            str(seed): {"failed": "diverged"} if value is None else {"figures": {"x": value}}
            for seed, value in enumerate(values)
        }
        for arm, values in arms.items()
    }


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ({"arm": "a", "at_least": 1.5}, "beats"),
        ({"arm": "a", "at_least": 2}, "meets"),
        ({"arm": "a", "at_least": 2.5}, "meets"),
        ({"arm": "a", "at_least": 3.5}, "misses"),
        ({"arm": "a", "at_most": 2.5}, "beats"),
        ({"arm": "a", "at_most": 1}, "meets"),
        ({"arm": "a", "at_most": 0.5}, "misses"),
        ({"arm": "a", "above": "low"}, "shown"),
        ({"arm": "a", "above": "near"}, "partly"),
        ({"arm": "a", "above": "high"}, "not shown"),
        ({"arm": "a", "below": "high"}, "shown"),
        ({"arm": "a", "below": "low"}, "not shown"),
        ({"arm": "a", "above": "missing"}, None),
        ({"arm": "a", "above": "failing"}, "shown"),
        ({"arm": "failing", "at_least": 0}, "misses"),
        ({"arm": "failing", "above": "low"}, "not shown"),
        ({"arm": "missing", "at_least": 0}, None),
        ({"at_most": 7}, "meets"),
        ({"at_most": 8}, "beats"),
        ({"at_most": 6}, "misses"),
    ],
)
def test_a_goal_is_judged_by_medians_and_by_overlap(
    told: dict[str, Any], verdict: str | None
) -> None:
    results = of(a=[3, 1, 2], low=[0.5, 0, 0.9], near=[1.5, 0, 1.9], high=[4, 5, 6])
    results |= of(failing=[None, -1, None])
    assert Goal.of({"figure": "x", **told}).verdict(results, {"x": 7}) == verdict


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_claim_is_complete(file: Path) -> None:
    config: Any = OmegaConf.load(file)
    for quick in (False, True) if config.quick else (False,):
        claim = Claim(file.stem, config, quick)
        arms = claim.arms({})
        assert callable(claim.measure)
        assert isinstance(claim.summary({}), Measured)
        assert claim.goals
        if not quick:
            assert min(len(arm.seeds) for arm in arms.values()) >= 3 or "_target_" in config.arms
        for goal in claim.goals:
            later = {name for name in (goal.arm, goal.than) if name and name.endswith(" best")}
            assert {goal.arm, goal.than} - {None} - later <= set(arms)
        # The first and the last of perhaps many.
        for arm in {next(iter(arms)), next(reversed(arms))}:
            assert composition(arms[arm].options, arms[arm].seeds[0])


def test_the_help_names_all_claims(run: Callable[..., CompletedProcess[str]]) -> None:
    told = run("reproduce.py", "--help").stdout.split("Claims, each")[1]
    assert set(re.findall(r"\w+_\w+", told)) - {"conf"} >= {file.stem for file in FILES}


def test_the_composition_is_what_is_trained() -> None:
    same = composition(["model=gan"], 0)
    assert same == composition(["model=gan", "paths.data_dir=/elsewhere", "tags=[a]"], 0)
    assert same != composition(["model=gan"], 1)
    assert same != composition(["model=gan", "model.optimizer_g.lr=0.01"], 0)
    assert same != composition(["model=gan", "dataset=fashion_mnist"], 0)


def test_summaries_over_arms() -> None:
    results = of(a=[1, 2, 6], b=[4, 4, 8])
    assert ratio(results, "x", "a", "b").figures == {"x_ratio": 0.5}
    assert ratio(results, "x", "a", "c").figures == {}
    entries = [{"figures": {"x": 9, "by": 1}}, {"figures": {"x": 7, "by": 2}}, {"failed": ""}]
    named = {"a": {str(seed): entry for seed, entry in enumerate(entries)}}
    assert chosen(named, "a", "by", "x").figures == {"chosen_x": 7}
    pairs = of(**{"0 gan": [9, 9, 1], "0 wgan_gp": [9, 2, 9], "1 gan": [None], "1 wgan_gp": [1]})
    assert only_one_succeeds(pairs, "x", 5).figures == {
        "gan_only": 1, "wgan_gp_only": 1, "both": 1, "none": 1, "advantage": 0,
    }  # fmt: skip


def test_random_architectures_are_the_same_for_both_and_each_time() -> None:
    arms = architectures({}, 3, [0, 1], [8, 16], [1, 2], "experiment=e")
    assert len(arms) == 6
    assert arms == architectures({}, 3, [0, 1], [8, 16], [1, 2], "experiment=e")
    for number in range(3):
        gan, wgan_gp = (arms[f"{number} {rival}"] for rival in ("gan", "wgan_gp"))
        assert gan.options[1:] == wgan_gp.options[1:]
        assert (gan.options[0], wgan_gp.options[0]) == ("experiment=e_gan", "experiment=e_wgan_gp")


def test_the_best_setting_of_each_loss_is_trained_again() -> None:
    first = games({}, 2, [1, 2], ["trainer.max_steps=1"], "x")
    assert len(first) == 14
    results = of(**{arm: [number] for number, arm in enumerate(first)})
    results["wgan 0"] = {"0": {"failed": "diverged"}}
    then = games(results, 2, [1, 2], ["trainer.max_steps=1"], "x")
    assert set(then) - set(first) == {f"{arm.split()[0]} best" for arm in first}
    assert then["minimax best"] == first["minimax 0"]._replace(seeds=[1, 2])
    assert then["wgan best"].options == first["wgan 1"].options
    # One that is not tried yet may be the best.
    del results["minimax 1"]
    assert "minimax best" not in games(results, 2, [1, 2], ["trainer.max_steps=1"], "x")


def test_the_expected_best_of_so_many_settings() -> None:
    results = of(**{"wgan 0": [3], "wgan 1": [1], "wgan 2": [None], "wgan best": [1, 2, 4]})
    found = compared(results, "x", 2, [1, 2, 5])
    # Of two values the mean; of two draws the lower one in three of four cases.
    assert found.series["wgan"] == [(1, 2), (2, 1.5)]
    assert found.figures["collapsed_wgan"] == pytest.approx(2 / 3)
    assert found.figures["rank_wgan"] == 1


PROTOCOLS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "images.evaluated": ({"metrics": ["parzen"]}, ("model=gan", "dataset=digits")),
    "images.digit_categories": ({}, ("model=infogan", "dataset=digits")),
    "domains.pairs_agree": ({}, ("model=cogan", "dataset.name=digits")),
    "domains.adapted": (
        {},
        ("model=cogan", "dataset=mnist_usps", "dataset.name=digits", "model.adapt=true"),
    ),
    "domains.modes_of_points": ({}, ("experiment=discogan_toy",)),
    "domains.angles_kept": ({}, ("model=discogan", "dataset.name=digits")),
    "domains.known_map": ({}, ("model=cyclegan", "dataset.name=digits")),
    "captions.captions_shown": (
        {},
        ("model=stackgan", "dataset.name=digits", "dataset.encoder_steps=2"),
    ),
    "captions.colour_gap": (
        {},
        ("model=stackgan_pp", "dataset=digits", "dataset.image_size=32"),
    ),
    "curves.correlated": (
        {"estimates": ["train/wasserstein_estimate_median", "-train/loss_d"]},
        ("model=wgan", "dataset=digits"),
    ),
    "curves.overfitted": (
        {"training": "train/wasserstein_estimate", "validation": "val/wasserstein_estimate"},
        ("model=wgan_gp", "dataset=digits", "dataset.train_size=50"),
    ),
    "curves.balanced": ({"skip": 0}, ("model=began", "dataset=digits")),
    "curves.last_figures": ({"figures": ["fid", "coverage"]}, ("model=gan", "dataset=digits")),
}


# Those that train judges of their own take longest.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if name.startswith(("domains.", "captions.")) and name != "domains.modes_of_points"
        else name
        for name in PROTOCOLS
    ],
)
def test_a_protocol_measures_a_run(
    run: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    arguments, options = PROTOCOLS[name]
    folder = tmp_path / "run"
    run("train.py", *options, "trainer.max_steps=6", "dataset.batch_size=8", "trainer=cpu",
        "callbacks.metrics.every_n_steps=2", "callbacks.metrics.num_samples=20",
        "trainer.log_every_n_steps=2", "+trainer.val_check_interval=3",
        "trainer.check_val_every_n_epoch=null", f"hydra.run.dir={folder}")  # fmt: skip
    module = "gan_zoo.claims." + name.partition(".")[0]
    for constant, small in (("_PAIRS", 20), ("_SOURCE_STEPS", 2), ("_CAPTIONS", 20),
                            ("_REPEATED", 3), ("_EPOCHS_OF_ANGLES", 1)):  # fmt: skip
        monkeypatch.setattr(f"{module}.{constant}", small, raising=False)
    config = {"_target_": f"gan_zoo.claims.{name}", "_partial_": True, **arguments}
    found = instantiate(config)(folder)
    assert found.figures
    assert json.dumps(dict(found.figures))
    # Of images that are all alike, or of curves that are flat, there is no correlation.
    if name not in ("domains.angles_kept", "curves.correlated"):
        assert all(math.isfinite(value) for value in found.figures.values())


CLAIM = """
title: A test
source: nowhere
about: Nothing.
seeds: [0, 1]
arms:
  slow: [{options}, model.optimizer_g.lr=1e-4]
  broken: [{options}, trainer.max_steps=8, trainer.log_every_n_steps=1, model.optimizer_d.lr=1e30]
measure:
  _target_: gan_zoo.claims.curves.last_figures
  _partial_: true
  figures: [fid]
summary: null
goals:
  - {{figure: fid, arm: slow, at_most: 1e9, paper: "7", quick: true}}
  - {{figure: fid, arm: slow, at_most: 0, quick: {hard}}}
quick:
  options: [trainer.max_steps=1]
  seeds: [0]
  arms: [slow]
found: null
"""


def written(folder: Path, hard: str = "false", options: tuple[str, ...] = TINY) -> list[str]:
    (folder / "conf" / "claim").mkdir(parents=True, exist_ok=True)
    text = CLAIM.format(options=", ".join(options), hard=hard)
    (folder / "conf" / "claim" / "mine.yaml").write_text(text)
    return ["--config-dir", "conf", "claim=mine", "output=docs/reproduction"]


def test_a_claim_is_trained_once_recorded_and_verified(
    run: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    command = written(tmp_path)
    first = run("reproduce.py", *command)
    assert first.stdout.count("Trained 2 steps") + first.stdout.count("Done ") >= 2
    file = tmp_path / "docs" / "reproduction" / "mine.json"
    record = json.loads(file.read_text())
    slow = record["arms"]["slow"]["seeds"]
    assert list(slow) == ["0", "1"]
    assert slow["0"]["figures"]["fid"] > 0
    assert all("failed" in entry for entry in record["arms"]["broken"]["seeds"].values())
    assert [goal["verdict"] for goal in record["goals"]] == ["beats", "misses"]
    assert "# What the papers claim" in (tmp_path / "docs" / "reproduction.md").read_text()
    assert (tmp_path / "docs" / "reproduction" / "mine.png").is_file()

    again = run("reproduce.py", *command)
    assert not any(word in again.stdout for word in ("Launching", "is finished"))
    assert json.loads(file.read_text()) == record

    slow["1"]["figures"]["fid"] += 1e-6
    file.write_text(json.dumps(record))
    changed = run("reproduce.py", *command, "verify=true", check=False)
    assert changed.returncode == 1
    assert "slow, seed 0: the same" in changed.stdout
    assert "slow, seed 1: NOT the same" in changed.stdout
    assert "1 of" in changed.stderr
    # A part of the record that is gone is measured again, of the run that is there.
    del slow["1"]
    file.write_text(json.dumps(record))
    assert "is finished" in run("reproduce.py", *command).stdout
    assert list(json.loads(file.read_text())["arms"]["slow"]["seeds"]) == ["0", "1"]


def test_a_judge_is_trained_once_for_its_data() -> None:
    trained = []

    def train() -> nn.Linear:
        trained.append(nn.Linear(2, 1))
        return trained[-1]

    def weight(*data: float) -> torch.Tensor:
        judge = kept_judge("here", [torch.tensor(data)], nn.Linear(2, 1), train)
        assert not judge.training
        return judge.weight

    assert torch.equal(weight(1.0), weight(1.0))
    assert len(trained) == 1
    assert not torch.equal(weight(1.0), weight(2.0))
    for file in (cache_dir() / "judges").glob("here-*"):
        file.write_bytes(file.read_bytes()[:-1])
    assert torch.equal(weight(1.0), trained[-1].weight)
    assert len(trained) == 3


@pytest.mark.parametrize("hard", [pytest.param("false", marks=pytest.mark.slow), "true"])
def test_the_short_version_shows_its_goals_or_fails(
    run: Callable[..., CompletedProcess[str]], tmp_path: Path, hard: str
) -> None:
    command = written(tmp_path, hard)
    result = run("reproduce.py", *command, "quick=true", check=False)
    assert result.returncode == (hard == "true")
    if hard == "true":
        assert "slow's fid: 0 or less" in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "docs").exists()


@pytest.mark.slow
def test_a_paper_s_direction_shows_in_minutes(
    spawn: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    script = str(ROOT / "scripts" / "reproduce.py")
    spawn(script, "claim=all", "quick=true", timeout=3600)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "claim=NAME"),
        (("claim=infogan",), "There is no claim 'infogan'"),
        (("claim=gan_parzen", "quick=true"), "no quick version"),
        (("claim=gan_parzen", "jobs=0"), "jobs"),
        (("claim=gan_parzen", "seeds=three"), "seeds"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    run: Callable[..., CompletedProcess[str]], arguments: tuple[str, ...], told: str
) -> None:
    result = run("reproduce.py", *arguments, check=False)
    assert result.returncode == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr
