"""Sweeps and searches by the training command, and what the configuration composes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from omegaconf import DictConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_zoo.metrics import evaluator as evaluators
from gan_zoo.run.configuration import CONFIG_DIR, composed
from tests.conftest import ROOT
from tests.same_end import read_checkpoint

Run = Callable[..., CompletedProcess[str]]

TRAIN = str(ROOT / "scripts" / "train.py")
QUICK = (
    "dataset=digits", "trainer=cpu", "trainer.max_steps=2", "callbacks.metrics=null", "logger=none",
)  # fmt: skip
MEASURED = (
    *QUICK[:3], QUICK[4], "callbacks.metrics.every_n_steps=1", "callbacks.metrics.num_samples=20",
    "callbacks.metrics.metrics=[fid]", "callbacks.metrics.max_share=null",
)  # fmt: skip


def jobs_of(tmp_path: Path) -> list[Path]:
    (sweep,) = (tmp_path / "runs" / "multirun").iterdir()
    return sorted(path for path in sweep.iterdir() if path.is_dir())


# Jobs and their failures.


@pytest.mark.parametrize(
    "launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")], ids=["basic", "joblib"]
)
def test_the_other_jobs_run_and_the_failed_one_is_listed(
    spawn: Run, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    # -m may stand anywhere.
    result = spawn(TRAIN, *QUICK, "-m", *launcher, "model.optimizer_g.lr=-1,1e-4", check=False)
    assert result.returncode == 1
    failed, trained = jobs_of(tmp_path)
    assert (failed.name, trained.name) == ("0-lr_g=-1", "1-lr_g=0.0001")
    reason = "model.optimizer_g.lr is -1; it has to be a number from 0."
    assert (failed / "error.txt").read_text() == f"{reason}\n"
    # Workers add nothing of Lightning's tips and warnings to it.
    assert result.stderr.splitlines() == [
        f"error: {reason}", "1 of 2 jobs failed:", f"  {failed.name}: {reason}",
    ]  # fmt: skip
    told = [line.split()[0] for line in result.stdout.splitlines() if "[HYDRA]" not in line]
    assert told == ["gan_zoo", "Job", "Done", "Look"]
    assert json.loads((trained / "metrics.json").read_text())["steps"] == 2
    assert not (trained / "error.txt").exists()


def test_a_sweep_without_failures_says_nothing(run: Run, tmp_path: Path) -> None:
    result = run("train.py", "-m", *QUICK, "seed=1,2")
    assert result.stderr == ""
    assert [job.name for job in jobs_of(tmp_path)] == ["0-seed=1", "1-seed=2"]


def test_a_sweep_that_never_starts_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    result = run("train.py", "-m", *QUICK, "model.optimizer_g.lr=-1,-2", check=False)
    assert result.returncode == 1
    assert "2 of 2 jobs failed:" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sweep", "reason"),
    [
        ("model=gan,cgna", "There is no model 'cgna'; did you mean cgan"),
        ("model.optimizer_g.rl=1,2", "There is no option 'model.optimizer_g.rl'"),
        ("model.optimizer_g.lr=1,[", "can't be read"),
    ],
)
def test_a_sweep_that_cannot_be_composed_gets_a_line(
    run: Run, tmp_path: Path, sweep: str, reason: str
) -> None:
    result = run("train.py", "-m", *QUICK, sweep, check=False)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert reason in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_refused_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    assert run("train.py", *QUICK, "model.optimizer_g.lr=-1", check=False).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_diverges_is_listed_and_keeps_its_folder(run: Run, tmp_path: Path) -> None:
    result = run(
        "train.py", "-m", *QUICK[:2], *QUICK[3:], "trainer.max_steps=30",
        "trainer.log_every_n_steps=10", "callbacks.checkpoint.every_n_train_steps=5",
        "model.optimizer_d.lr=1e30,1e-4", check=False,
    )  # fmt: skip
    assert result.returncode == 1
    diverged, trained = jobs_of(tmp_path)
    assert "1 of 2 jobs failed:" in result.stderr
    reason = (diverged / "error.txt").read_text()
    assert " ".join(reason.split()) in result.stderr.splitlines()[-1]
    assert (diverged / ".hydra" / "config.yaml").is_file()
    assert (trained / "metrics.json").is_file()


def test_tracebacks_can_be_asked_for_in_a_sweep(run: Run) -> None:
    command = ("train.py", "-m", *QUICK, "model.optimizer_g.lr=-1,1e-4")
    result = run(*command, check=False, HYDRA_FULL_ERROR="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "1 of 2 jobs failed:" in result.stderr


def test_jobs_are_named_by_what_differs(run: Run, tmp_path: Path) -> None:
    constant = ("model.latent_dim=64", "model.ema_decay=0", "seed=3", "trainer.log_every_n_steps=2")
    run(
        "train.py", "-m", *QUICK, *constant, "~callbacks.sample_grid", "+trainer.barebones=false",
        "model/optimizer@model.optimizer_d=adam", "tags=[a,b]", "model.optimizer_g.lr=1e-3,1e-4",
        "model.optimizer_d.betas=[0.5,0.9]",
    )  # fmt: skip
    names = [job.name for job in jobs_of(tmp_path)]
    assert names == ["0-lr_g=0.001", "1-lr_g=0.0001"]


def test_long_names_are_cut_and_need_no_quoting(run: Run, tmp_path: Path) -> None:
    hidden = "model.generator.hidden=[16,16,16,16,16,16],[8,8,8]"
    run("train.py", "-m", *QUICK, hidden, "model.discriminator.hidden=[16,16],[8]",
        "model.optimizer_g.betas=[0.123456789,0.9],[0.5,0.999]")  # fmt: skip
    names = [job.name.partition("-")[2] for job in jobs_of(tmp_path)]
    assert len(names) == 8
    assert all(len(name) <= 80 and not set(name) & set(", '[]") for name in names)


def test_other_commands_sweep_too_and_leave_no_folder(run: Run, tmp_path: Path) -> None:
    run("train.py", *QUICK, "hydra.run.dir=here")
    run("sample.py", "-m", "checkpoint=here", "num_samples=4", "output=a.png,b.png")
    assert {path.name for path in tmp_path.iterdir()} == {"here", "a.png", "b.png"}
    result = run("sample.py", "-m", "checkpoint=here", "output=a.gif,c.png", check=False)
    assert result.returncode == 1
    assert "1 of 2 jobs failed:" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"here", "a.png", "b.png", "c.png"}


# Searches.


def test_a_search_takes_the_monitored_figure(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluators, "_LEAST_STEPS", 20)
    run("train.py", "-m", "hparams_search=learning_rates", *MEASURED, "hydra.sweeper.n_trials=2")
    jobs = jobs_of(tmp_path)
    found = OmegaConf.load(jobs[0].parent / "optimization_results.yaml")
    best = [json.loads((job / "metrics.json").read_text())["best/fid"] for job in jobs]
    assert found.best_value == pytest.approx(min(best))
    rates = {f"{rate:.4g}" for rate in found.best_params.values()}
    assert all(rate in jobs[best.index(min(best))].name for rate in rates)


def test_a_search_without_a_figure_is_told_what_is_missing(run: Run, tmp_path: Path) -> None:
    result = run("train.py", "-m", *QUICK, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2",
                 "model.optimizer_g.lr=interval(0.001,0.01)", check=False)  # fmt: skip
    assert result.returncode == 1
    assert "measured no figure to search by: callbacks.metrics" in result.stderr.splitlines()[-1]


def test_failed_trials_do_not_end_the_search_for_rates(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluators, "_LEAST_STEPS", 20)
    result = run(
        "train.py", "-m", "hparams_search=learning_rates", *MEASURED, "hydra.sweeper.n_trials=3",
        "hydra.sweeper.n_jobs=1", "hydra.sweeper.params={}", "model.optimizer_g.lr=choice(-1,1e-3)",
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert len(jobs_of(tmp_path)) == 3
    assert " of 3 jobs failed:" in result.stderr


# What is composed.


def test_a_chosen_group_wins() -> None:
    def sizes(*overrides: str) -> tuple[int, int, int]:
        config = composed("train", ["model=discogan", *overrides])
        return (config.dataset.batch_size, config.dataset.image_size, config.trainer.max_steps)

    own = ("dataset=unpaired_folder", "dataset.root=here")
    assert sizes() == (64, 28, 5000)
    assert sizes(*own) == (1, 128, 5000)
    assert sizes(*own, "dataset.batch_size=8") == (8, 128, 5000)
    assert sizes("dataset.batch_size=8") == (8, 28, 5000)
    assert sizes("trainer=cpu") == (64, 28, 5000)
    assert sizes("trainer=cpu", "trainer.max_steps=7") == (64, 28, 7)


GROUPS = ("experiment", "debug", "callbacks", "logger", "trainer", "paths", "hparams_search")


@pytest.mark.parametrize(
    "choice",
    [f"{group}={file.stem}" for group in GROUPS for file in (CONFIG_DIR / group).glob("*.yaml")],
)
def test_what_users_of_the_template_know_composes(choice: str) -> None:
    config = composed("train", [choice])
    assert isinstance(config, DictConfig)
    OmegaConf.to_container(config, resolve=True)


def test_tags_end_in_the_folder(run: Run, tmp_path: Path) -> None:
    run("train.py", *QUICK[:-1], "tags=[first,second]", "hydra.run.dir=here")
    (session,) = json.loads((tmp_path / "here" / "provenance.json").read_text())
    assert session["tags"] == ["first", "second"]
    events = EventAccumulator(str(tmp_path / "here")).Reload()
    hparams = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"first second" in hparams
    assert read_checkpoint(tmp_path / "here")["config"]["tags"] == ["first", "second"]


def test_an_optimizer_is_chosen_as_the_hint_says(run: Run) -> None:
    result = run("train.py", *QUICK, "model.optimizer_g=rmsprop", check=False)
    assert result.returncode == 1
    hint = "model/optimizer@model.optimizer_g=rmsprop"
    assert hint in result.stderr
    config = composed("train", [hint])
    assert config.model.optimizer_g._target_ == "torch.optim.RMSprop"
    assert config.model.optimizer_d._target_ == "torch.optim.Adam"


def test_help_may_be_cut_off() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        result = subprocess.run(
            [sys.executable, TRAIN, "--help"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.stderr == ""
    assert result.returncode == 141
