"""Sweeps by the training command, and what the configuration composes to."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from filelock import FileLock
from joblib.externals.loky import get_reusable_executor
from omegaconf import DictConfig, ListConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_zoo.cli import main
from gan_zoo.run.configuration import CONFIG_DIR, composed
from gan_zoo.train import train
from tests.conftest import ROOT
from tests.same_end import assert_same_end, read_checkpoint
from tests.test_resume import killed_in

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
    return sorted(path for path in sweep.glob("[!.]*") if path.is_dir())


# Jobs and their failures.


LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local",),
}


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(options, id=name, marks=() if name == "joblib" else pytest.mark.slow)
        for name, options in LAUNCHERS.items()
    ],
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
    # Nothing of Lightning's tips and warnings; the processes of submitit have files of their own.
    alone = shlex.join([*QUICK, "model.optimizer_g.lr=-1"])
    assert [line for line in result.stderr.splitlines() if line != f"error: {reason}"] == [
        "1 of 2 jobs failed:", f"  {failed.name}: {reason}",
        f"    Alone: python {TRAIN} {alone}",
    ]  # fmt: skip
    told = result.stdout.splitlines()
    words = {line.split()[0] for line in told if "[HYDRA]" not in line and line[0] != "─"}
    of_a_job, of_the_sweep = {"Job", "Done"}, {"gan_zoo", "steps", "2", "failed", "Look"}
    assert words == (of_the_sweep if "submitit" in "".join(launcher) else of_a_job | of_the_sweep)
    assert told[-1].startswith(f"Look    tensorboard --logdir runs/multirun/{failed.parent.name} ")
    assert json.loads((trained / "metrics.json").read_text())["steps"] == 2
    assert not (trained / "error.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)
def test_of_six_jobs_four_finish_and_two_diverge(
    spawn: Run, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    rates = ("model.optimizer_d.lr=0.01,1e30,0.1", "seed=0,1", "trainer.log_every_n_steps=1")
    result = spawn(TRAIN, "-m", *MEASURED, *rates, *launcher, check=False)
    assert result.returncode == 1
    jobs = jobs_of(tmp_path)
    failed = [job for job in jobs if (job / "error.txt").is_file()]
    assert [job.name[0] for job in failed] == ["2", "3"]
    assert all((job / "metrics.json").is_file() for job in jobs if job not in failed)
    told = [line for line in result.stderr.splitlines() if not line.startswith("error: ")]
    assert told[0] == "2 of 6 jobs failed:"
    assert len(told) == 5
    for job, reason, alone in zip(failed, told[1::2], told[2::2], strict=True):
        assert reason.startswith(f"  {job.name}: train/loss_")
        assert "has diverged" in reason
        seed = job.name[-1]
        assert f" model.optimizer_d.lr=1e+30 seed={seed} " in alone


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
    assert " ".join(reason.split()) in result.stderr.splitlines()[-2]
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


def test_a_sweep_of_nothing_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("train.py", "-m", *QUICK, "seed=range(1,0)", check=False)
    assert result.returncode == 1
    assert result.stderr == "error: seed=range(1,0) has no values: there is nothing to run.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_may_leave_callbacks_out(run: Run, tmp_path: Path) -> None:
    run("train.py", "-m", *QUICK[:3], "~callbacks.metrics", "~callbacks.sample_grid", "seed=0,1")
    for job in jobs_of(tmp_path):
        callbacks = OmegaConf.load(job / ".hydra" / "config.yaml").callbacks
        assert not {"metrics", "sample_grid"} & set(callbacks)
        assert not list((job / "samples").glob("step-*.png"))


def test_a_sweep_ends_with_its_leaderboard(run: Run, tmp_path: Path) -> None:
    result = run("train.py", "-m", *MEASURED, "seed=0,1")
    first, _ = jobs_of(tmp_path)
    assert "best fid" in result.stdout
    assert {"leaderboard.md", "leaderboard.csv"} <= {p.name for p in first.parent.iterdir()}


# What jobs share.


@pytest.fixture
def fresh_workers() -> Iterator[Callable[[], None]]:
    """Ends joblib's processes, which would keep the folder and the environment of a test."""

    def end() -> None:
        get_reusable_executor().shutdown()

    end()
    yield end
    end()


@pytest.mark.slow
def test_jobs_share_the_threads_whatever_else_runs(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fresh_workers: Callable[[], None],
) -> None:
    def threads(*options: str) -> set[int]:
        torch.set_num_threads(4)
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        run("train.py", "-m", *QUICK, *options)
        sessions = [json.loads((job / "provenance.json").read_text()) for job in jobs_of(tmp_path)]
        return {session["threads"] for (session,) in sessions}

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads("seed=0,1") == {4}
    assert threads("seed=0,1", *LAUNCHERS["joblib"]) == {2}
    # Two are never at work at once here.
    assert threads("seed=0", *LAUNCHERS["joblib"]) == {2}
    # What the user says stays.
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    fresh_workers()
    assert threads("seed=0", *LAUNCHERS["joblib"]) == {4}


@pytest.mark.usefixtures("fresh_workers")
def test_what_jobs_need_is_made_once_before_they_start(run: Run, tmp_path: Path) -> None:
    result = run(
        "train.py", "-m", *MEASURED, "seed=0,1", "dataset=digits,mnist", "dataset.name=digits",
        *LAUNCHERS["joblib"], GAN_ZOO_CACHE_DIR=str(tmp_path / "cache"),
    )  # fmt: skip
    assert result.stdout.count("Training the evaluator") == 1
    assert "Training the evaluator" not in "".join(
        (job / "train.log").read_text() for job in jobs_of(tmp_path)
    )
    # One for each seed, and no other in the jobs.
    floors = list((tmp_path / "cache" / "floors").iterdir())
    begun = min((job / "train.log").stat().st_ctime_ns for job in jobs_of(tmp_path))
    assert len(floors) == 2
    assert all(file.stat().st_mtime_ns < begun for file in floors)


def test_the_jobs_of_a_sweep_are_measured_at_the_same_steps(run: Run, tmp_path: Path) -> None:
    # A share that no measurement keeps to.
    often = ("trainer.max_steps=6", "callbacks.metrics.max_share=1e-6", "logger=tensorboard")
    run("train.py", "-m", *MEASURED, *often, "seed=0,1")
    for job in jobs_of(tmp_path):
        events = EventAccumulator(str(job)).Reload()
        assert [event.step for event in events.Scalars("metrics/fid")] == [1, 2, 3, 4, 5, 6]


# Started again.


AGAIN = (
    *MEASURED[:2], *MEASURED[3:], "trainer.max_steps=8", "trainer.log_every_n_steps=1",
    "callbacks.checkpoint.every_n_train_steps=2", "logger=tensorboard",
)  # fmt: skip


def sweep_jobs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def test_a_sweep_that_is_started_again_does_what_is_missing(run: Run, tmp_path: Path) -> None:
    command = ("train.py", "-m", *AGAIN, "seed=0,1")
    run(*command, "hydra.sweep.dir=straight")
    here = tmp_path / "here"
    with killed_in(1):
        # Before the first checkpoint.
        run(*command, "hydra.sweep.dir=here")
    assert not (sweep_jobs(here)[0] / "checkpoints").exists()
    with killed_in(6):
        run(*command, "hydra.sweep.dir=here")
    assert read_checkpoint(sweep_jobs(here)[0])["global_step"] == 4
    result = run(*command, "hydra.sweep.dir=here")
    assert result.stdout.count("Done    ") == 2
    for job, other in zip(sweep_jobs(here), sweep_jobs(tmp_path / "straight"), strict=True):
        assert job.name == other.name
        assert_same_end(job, other)
    results = [(job / "metrics.json").stat().st_mtime_ns for job in sweep_jobs(here)]
    again = run(*command, "hydra.sweep.dir=here")
    assert [line for line in again.stdout.splitlines() if line.endswith("is finished.")] == [
        f"here/{job.name} is finished." for job in sweep_jobs(here)
    ]
    assert [(job / "metrics.json").stat().st_mtime_ns for job in sweep_jobs(here)] == results


@pytest.mark.slow
def test_a_larger_sweep_finds_its_jobs_by_what_they_train(run: Run, tmp_path: Path) -> None:
    command = ("train.py", "-m", *QUICK, "hydra.sweep.dir=here")
    run(*command, "seed=0,1")
    first = {job.name for job in sweep_jobs(tmp_path / "here")}
    result = run(*command, "model=gan,cgan", "seed=0,1,2")
    assert result.stdout.count("is finished.") == 2
    jobs = sweep_jobs(tmp_path / "here")
    assert len(jobs) == 6
    assert first < {job.name for job in jobs}
    # Each has a number of its own.
    assert {int(job.name.partition("-")[0]) for job in jobs} == set(range(6))
    assert run(*command, "model=gan,cgan", "seed=0,1,2").stdout.count("is finished.") == 6


@pytest.mark.slow
def test_jobs_are_trained_for_longer_if_they_are_asked_to(run: Run, tmp_path: Path) -> None:
    # Rates that fall over the run would fall over another length.
    again = (*AGAIN, "model.scheduler=null")
    command = ("train.py", "-m", *again, "seed=0,1", "hydra.sweep.dir=here")
    run(*command)
    run(*command, "trainer.max_steps=10")
    run("train.py", "-m", *again, "trainer.max_steps=10", "seed=1", "hydra.sweep.dir=straight")
    (straight,) = sweep_jobs(tmp_path / "straight")
    here = sweep_jobs(tmp_path / "here")
    assert [read_checkpoint(job)["global_step"] for job in here] == [10, 10]
    weights, others = (read_checkpoint(job)["state_dict"] for job in (here[1], straight))
    assert all(torch.equal(weights[name], others[name]) for name in others)


def test_other_runs_are_not_mixed_in(run: Run, tmp_path: Path) -> None:
    command = ("train.py", "-m", *QUICK, "hydra.sweep.dir=here", "seed=0,1")
    run(*command, "model.latent_dim=8")
    jobs = sweep_jobs(tmp_path / "here")
    before = [(job / "metrics.json").read_bytes() for job in jobs]
    for change, told in (
        ("model.latent_dim=9", "model.latent_dim is 8 there and 9 here"),
        ("trainer.max_steps=1", "trainer.max_steps is 2 there and 1 here"),
    ):
        result = run(*command, "model.latent_dim=8", change, check=False)
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert f"here/{jobs[0].name}" in result.stderr
        assert told in result.stderr
        assert sweep_jobs(tmp_path / "here") == jobs
        assert [(job / "metrics.json").read_bytes() for job in jobs] == before


def test_a_job_that_failed_is_tried_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train.py", "-m", *QUICK, "seed=0,1", "hydra.sweep.dir=here")
    with monkeypatch.context() as patch:
        patch.setattr("gan_zoo.train.build", lambda *_: 1 / 0)
        assert run(*command, check=False).returncode == 1
    # What is left of it is not what a sweep with nothing else leaves, which is removed.
    assert not (tmp_path / "here").exists()
    run(*command[:-2], "seed=1", "hydra.sweep.dir=here")
    (job,) = sweep_jobs(tmp_path / "here")
    (job / "error.txt").write_text("The disk was full.\n")
    again = run(*command)
    assert "is finished." not in again.stdout
    assert again.stderr == ""
    assert not list(tmp_path.glob("here/*/error.txt"))


def test_two_sweeps_in_one_folder_are_refused(run: Run, tmp_path: Path) -> None:
    command = ("train.py", "-m", *QUICK, "seed=0,1", "hydra.sweep.dir=here")
    run(*command)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "here").rglob("*")}
    with FileLock(tmp_path / "here" / ".lock"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("gan_zoo.run.sweep._SECONDS_TO_WAIT", 0)
        result = run(*command, check=False)
    assert result.returncode == 1
    assert "'here' is in use by another sweep" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "here").rglob("*")} == before
    run(*command)


def processes_of(session: int) -> str:
    """What runs in a session, but for what has ended."""
    found = subprocess.run(
        ["ps", "-s", str(session), "-o", "stat=,pid=,args="],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "\n".join(line for line in found.stdout.splitlines() if line[0] != "Z")


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        pytest.param("basic", signal.SIGTERM, marks=pytest.mark.slow),
        ("joblib", signal.SIGINT),
        pytest.param("joblib", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("submitit_local", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("submitit_local", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_the_whole_sweep_ends_with_its_process(
    tmp_path: Path, launcher: str, number: signal.Signals
) -> None:
    endless = ("trainer.max_steps=-1", "callbacks.checkpoint.every_n_train_steps=2")
    options = (*QUICK[:2], *QUICK[3:], *endless, "seed=0,1,2", *LAUNCHERS[launcher])
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, TRAIN, "-m", *options, "hydra.sweep.dir=here"],
            cwd=tmp_path, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    at_once = 1 if launcher == "basic" else 2
    while len(list(tmp_path.glob("here/[0-9]*/checkpoints/last.ckpt"))) < at_once:
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    # As a terminal's Ctrl-C.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    code = process.wait(120)
    while left := processes_of(process.pid):
        if number != signal.SIGKILL:
            # Of joblib's own there is one that cleans up after it.
            assert "train" not in left or "resource_tracker" in left
        time.sleep(0.1)
    if number == signal.SIGKILL:
        return
    # None has begun since.
    jobs = sweep_jobs(tmp_path / "here")
    assert all((job / "checkpoints" / "last.ckpt").is_file() for job in jobs)
    told = log.read_text()
    assert code == 128 + number, told
    assert "Traceback" not in told
    assert told.splitlines()[-1].startswith("The sweep is interrupted. Go on with: python ")
    assert told.endswith("hydra.sweep.dir=here\n")
    assert len(jobs) <= at_once + (launcher == "submitit_local")


def kill_a_sweep(
    spawn: Run, tmp_path: Path, kills: int, *options: str, share: float = 1
) -> dict[str, int]:
    script = str(ROOT / "tests" / "kill_a_sweep.py")
    folder = str(tmp_path / "kills")
    result = spawn(script, folder, str(kills), str(share), *options, timeout=600 + 80 * kills)
    return json.loads(result.stdout.splitlines()[-1])


# One of the rates diverges.
RATES = "model.optimizer_d.lr=0.01,1e30,0.1"


@pytest.mark.slow
def test_kills_at_random_moments(spawn: Run, tmp_path: Path) -> None:
    assert kill_a_sweep(spawn, tmp_path, 2, RATES)["kills"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_twenty_kills_at_random_moments(spawn: Run, tmp_path: Path, launcher: str) -> None:
    options = (RATES, "seed=0,1", *LAUNCHERS[launcher])
    assert kill_a_sweep(spawn, tmp_path, 20, *options)["kills"] == 20


@pytest.mark.slow
def test_fifty_kills_of_a_sweep_of_two_hundred_jobs(spawn: Run, tmp_path: Path) -> None:
    # A job that failed is tried again whenever the sweep goes on, so that only the last one does.
    seeds = f"seed={','.join(map(str, range(200)))},-1"
    small = (
        "dataset.batch_size=16",
        "model.generator.hidden=[32]",
        "model.discriminator.hidden=[32]",
    )
    assert kill_a_sweep(spawn, tmp_path, 50, seeds, *small, share=0.05)["kills"] == 50


WITHOUT_JOBLIB = """
import pkgutil, runpy, sys
sys.argv.pop(0)
walk = pkgutil.walk_packages
pkgutil.walk_packages = lambda *a, **k: (m for m in walk(*a, **k) if "joblib" not in m.name)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_launcher_that_is_not_installed_names_its_extra(spawn: Run) -> None:
    typed = (TRAIN, "-m", "seed=1,2", "hydra/launcher=joblib")
    result = spawn("-c", WITHOUT_JOBLIB, *typed, check=False)
    needs = "error: hydra/launcher=joblib needs pip install 'gan_zoo[sweep]'"
    assert result.stderr.startswith(needs)


# What is composed.


def test_the_files_of_jobs_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def files_read(seeds: str) -> list[str]:
        read: list[str] = []
        load = OmegaConf.load

        def loading(file: Any) -> DictConfig | ListConfig:
            read.append(file.name)
            return load(file)

        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(OmegaConf, "load", loading)
            patch.setattr(sys, "argv", ["train.py", "-m", *QUICK, f"seed={seeds}"])
            assert main(train, "train") == 0
        return read

    read = files_read("0,1")
    assert str(CONFIG_DIR / "model" / "gan.yaml") in read
    assert files_read("0,1,2") == read


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


GROUPS = ("experiment", "debug", "callbacks", "logger", "trainer", "paths", "search")


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
