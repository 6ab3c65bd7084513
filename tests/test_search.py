"""Searches: several processes on one study, which are killed, and what becomes of their trials."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_zoo.commands import _of_a_search
from gan_zoo.search import divided
from tests.conftest import ROOT, wait_for

Run = Callable[..., CompletedProcess[str]]
SEARCH = str(ROOT / "scripts" / "search.py")
SMALL = (
    "dataset=digits", "trainer=cpu", "trainer.max_steps=4", "logger=none",
    "callbacks.metrics.every_n_steps=2", "callbacks.metrics.num_samples=20",
    "callbacks.metrics.metrics=[fid]", "study=here",
)  # fmt: skip
RATES = "model.optimizer_g.lr=tag(log,interval(1e-4,1e-2))"
PRUNES_ALL = ("pruner=ThresholdPruner", "pruner_options={upper: 0.001}")


def study_in(tmp_path: Path, storage: str | None = None) -> optuna.Study:
    folder = tmp_path / "runs" / "search" / "here"
    return optuna.load_study(
        study_name="here", storage=storage or f"sqlite:///{folder / 'study.db'}"
    )


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def results(tmp_path: Path) -> dict[str, Any]:
    files = (tmp_path / "runs" / "search" / "here").glob("*/metrics.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def test_a_space_is_what_hydra_would_sweep() -> None:
    typed = [
        "model=gan,cgan", "model.latent_dim=range(8,20,4)", "seed=3", "a=int(interval(1,8))",
        "b=tag(log,interval(1e-4,1e-2))", "+c=choice('x y',[1,2])", "d=range(0.5,2,0.5)",
        "e=range(3,0,-1)",
    ]  # fmt: skip
    fixed, space = divided(typed, {"f": "interval(0, 1)", "seed": "range(0,9)"})
    assert fixed == ["seed=3"]
    values = {key: dimension.values for key, dimension in space.items()}
    assert values == {
        "model": CategoricalDistribution(["gan", "cgan"]),
        # Hydra's range ends before its end.
        "model.latent_dim": IntDistribution(8, 16, step=4),
        "a": IntDistribution(1, 8),
        "b": FloatDistribution(1e-4, 1e-2, log=True),
        "+c": CategoricalDistribution(["x\\ y", "[1,2]"]),
        "d": FloatDistribution(0.5, 1.5, step=0.5),
        "e": CategoricalDistribution(["3", "2", "1"]),
        "f": FloatDistribution(0, 1),
    }
    assert [space[key].written(value) for key, value in (("b", 0.001), ("+c", "[1,2]"))] == [
        "0.001", "[1,2]",
    ]  # fmt: skip


def test_search_gives_train_its_options() -> None:
    assert _of_a_search(["model=gan", "n_trials=3", "study=rates", "sampler=GPSampler"]) == [
        "-m", "search=default", "model=gan", "hydra.sweeper.n_trials=3",
        "hydra.sweep.dir=runs/search/rates", "hydra.sweeper.sampler=GPSampler",
    ]  # fmt: skip
    given = ["-m", "search=learning_rates", "hydra.sweeper.n_trials=3"]
    assert _of_a_search(given) == given


def test_a_search_goes_on_where_it_ended(run: Run, tmp_path: Path) -> None:
    told = run("search.py", *SMALL, RATES, "n_trials=2").stdout
    study = study_in(tmp_path)
    trials = study.trials
    assert states(study) == ["COMPLETE"] * 2
    figures = {name: result["best/fid"] for name, result in results(tmp_path).items()}
    assert sorted(figures.values()) == sorted(trial.value for trial in study.trials)
    names = [trial.user_attrs["folder"] for trial in study.trials]
    assert {n: t.value for n, t in zip(names, study.trials, strict=True)} == figures
    assert [trial.intermediate_values.keys() for trial in study.trials] == [{2, 4}] * 2
    assert f"Best    trial {study.best_trial.number}: " in told
    assert "0-lr_g=" in (tmp_path / "runs/search/here/leaderboard.md").read_text()
    again = run("search.py", *SMALL, RATES, "n_trials=2").stdout
    assert "Launching" not in again
    run("search.py", *SMALL, RATES, "n_trials=3")
    assert states(study_in(tmp_path)) == ["COMPLETE"] * 3
    assert study_in(tmp_path).trials[:2] == trials
    for name in ("history", "importances", "parallel"):
        with Image.open(tmp_path / f"runs/search/here/{name}.png") as picture:
            assert picture.width >= 600
    events = EventAccumulator(str(tmp_path / "runs/search/here/study"))
    events.Reload()
    assert events.Tags()["images"] == ["study/history", "study/importances", "study/parallel"]


@pytest.mark.slow
def test_a_search_draws_the_same_at_once_and_in_parts(run: Run, tmp_path: Path) -> None:
    for trials in (2, 3):
        run("search.py", *SMALL, RATES, f"n_trials={trials}")
    params = [trial.params for trial in study_in(tmp_path).trials]
    shutil.rmtree(tmp_path / "runs")
    run("search.py", *SMALL, RATES, "n_trials=3")
    assert [trial.params for trial in study_in(tmp_path).trials] == params


def test_hopeless_trials_are_ended(run: Run, tmp_path: Path) -> None:
    told = run("search.py", *SMALL, RATES, "n_trials=2", *PRUNES_ALL).stdout
    study = study_in(tmp_path)
    assert states(study) == ["PRUNED"] * 2
    assert [trial.user_attrs["pruned at"] for trial in study.trials] == [2, 2]
    assert [result["steps"] for result in results(tmp_path).values()] == [2, 2]
    assert told.count("is ended at iteration 2: others were better there.") == 2


@pytest.mark.slow
def test_a_search_may_have_several_objectives(run: Run, tmp_path: Path) -> None:
    objectives = "objectives={best/fid: minimize, d_steps: maximize}"
    run("search.py", *SMALL, "model.n_critic=1,2", "n_trials=3", objectives, *PRUNES_ALL)
    study = study_in(tmp_path)
    assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    found = [[r["best/fid"], r["d_steps"]] for r in results(tmp_path).values()]
    assert sorted(found) == sorted(trial.values for trial in study.trials)
    lacking = run(
        "search.py", *SMALL[:-1], "study=other", RATES, "objectives={best/kid: minimize}",
        "n_trials=1", check=False,
    )  # fmt: skip
    assert lacking.returncode == 0
    trial = optuna.load_study(
        study_name="other", storage=f"sqlite:///{tmp_path}/runs/search/other/study.db"
    ).trials[0]
    assert "a run has no best/kid; it has " in trial.user_attrs["reason"]


def test_failed_trials_are_counted_and_many_end_the_search(run: Run, tmp_path: Path) -> None:
    result = run("search.py", *SMALL, "model.optimizer_g.lr=-1,-2", "n_trials=9", check=False)
    assert result.returncode == 1
    assert states(study_in(tmp_path)) == ["FAIL"] * 3
    assert "error: The first 3 trials failed. The last: model.optimizer_g.lr is -" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "There is nothing to search"),
        ((RATES, "callbacks.metrics=null"), "callbacks.metrics monitors: it can't be left out"),
        ((RATES, "callbacks.metrics.monitor=accuracy"), "callbacks.metrics.monitor"),
        ((RATES, "hydra/launcher=joblib"), "a search trains one run at a time"),
        ((RATES, "storage=somewhere"), "storage is somewhere; give a database's"),
        ((RATES, "objectives={best/fid: lower}"), "has best/fid: lower; minimize or maximize"),
        ((RATES, "n_trials=0"), "n_trials is 0"),
        ((RATES, "sampler=Tpe"), "sampler is Tpe; there are "),
        ((RATES, "pruner_options={steps: 3}"), "pruner_options do not fit: "),
        (("model.optimizer_g.lr=interval(2,1)",), "it has to go to a larger number"),
        (("model.optimizer_g.lr=tag(log,interval(0,1))",), "from above 0 to a larger number"),
    ],
)
def test_a_search_that_can_not_be_never_starts(
    run: Run, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    result = run("search.py", *SMALL, *options, check=False)
    assert result.returncode == 1
    assert reason in result.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("metrics.json"))
    assert list(tmp_path.iterdir()) == []


def test_another_search_has_another_folder(run: Run, tmp_path: Path) -> None:
    run("search.py", *SMALL, RATES, "n_trials=1")
    for other in (RATES.replace("1e-4", "1e-3"), "model.n_critic=1,2"):
        result = run("search.py", *SMALL, other, "n_trials=2", check=False)
        assert result.returncode == 1
        assert "holds another search: " in result.stderr
        assert "Another study=NAME begins a new one." in result.stderr


def test_a_search_needs_optuna(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = run("search.py", *SMALL, RATES, check=False)
    assert result.stderr.endswith("error: A search needs Optuna: pip install 'gan_zoo[search]'.\n")


def searching(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SEARCH, *options],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


LONGER = (
    *(o for o in SMALL if "max_steps" not in o), "trainer.max_steps=300",
    "callbacks.metrics.every_n_steps=50", "callbacks.checkpoint.every_n_train_steps=25",
)  # fmt: skip


@pytest.mark.slow
def test_a_killed_trial_is_resumed(run: Run, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    searched = searching(whole, *LONGER, RATES, "n_trials=1")
    place = tmp_path / "runs" / "search" / "here"
    killed = searching(tmp_path, *LONGER, RATES, "n_trials=1")
    wait_for(lambda: any(place.glob("*/checkpoints/*.ckpt")))
    killed.kill()
    killed.wait()
    assert states(study_in(tmp_path)) == ["RUNNING"]
    told = run("search.py", *LONGER, RATES, "n_trials=1").stdout
    assert "iterations 0 to" not in told
    assert searched.wait(timeout=300) == 0
    (found,), (expected,) = study_in(tmp_path).trials, study_in(whole).trials
    assert found.state == TrialState.COMPLETE
    assert (found.params, found.values) == (expected.params, expected.values)
    assert found.intermediate_values == expected.intermediate_values


@pytest.mark.slow
def test_trials_of_machines_out_of_sight(run: Run, tmp_path: Path) -> None:
    run("search.py", *SMALL, RATES, "n_trials=1")
    study = study_in(tmp_path)
    for seen in (time.time(), time.time() - 3600):
        trial = study.ask({"model.optimizer_g.lr": FloatDistribution(1e-4, 1e-2, log=True)})
        trial.set_user_attr("host", "elsewhere")
        trial.set_user_attr("seen", seen)
    recent, lost = study.trials[1:]
    searched = searching(tmp_path, *SMALL, RATES, "n_trials=3", "lost_after_minutes=30")
    wait_for(lambda: len(study_in(tmp_path).trials) == 4)
    wait_for(lambda: states(study_in(tmp_path))[3] == "COMPLETE")
    # The one that was lost is tried again; the other is waited for.
    assert states(study_in(tmp_path)) == ["COMPLETE", "RUNNING", "FAIL", "COMPLETE"]
    assert study_in(tmp_path).trials[3].params == lost.params
    study.tell(recent.number, 1.0)
    assert searched.wait(timeout=60) == 0


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL of its own."""
    programs = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("postgres")
    # It does not run as root.
    as_user: list[str] = []
    if os.getuid() == 0:
        for place in (folder, *folder.parents):
            if place.stat().st_uid == 0 and place != Path("/") and place != Path("/tmp"):
                place.chmod(place.stat().st_mode | 0o055)
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def do(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs[-1] / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)

    data = str(folder / "data")
    do("initdb", "-D", data, "-A", "trust", "-U", "postgres")
    options = f"-k {folder} -c listen_addresses=''"
    do("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        do("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "journal", "postgresql"])
def test_four_processes_of_which_two_are_killed(
    run: Run, tmp_path: Path, request: pytest.FixtureRequest, storage: str
) -> None:
    address = request.getfixturevalue("postgres") if storage == "postgresql" else None
    chosen = {"sqlite": (), "journal": ("storage=journal",)}.get(storage, (f"storage={address}",))
    command = (*LONGER, "trainer.max_steps=100", *chosen, RATES, "n_trials=12")
    place = tmp_path / "runs" / "search" / "here"

    def study() -> optuna.Study:
        if storage == "journal":
            backend = optuna.storages.journal.JournalFileBackend(str(place / "study.log"))
            journal = optuna.storages.JournalStorage(backend)
            return optuna.load_study(study_name="here", storage=journal)
        return study_in(tmp_path, address)

    # The evaluator is trained and cached by one.
    run("search.py", *command[:-1], "n_trials=1")
    processes = [searching(tmp_path, *command) for _ in range(4)]
    try:
        for process in processes[:2]:
            before = len(list(place.glob("*/metrics.json")))
            wait_for(lambda: len(list(place.glob("*/metrics.json"))) > before + 1, 300)  # noqa: B023
            process.send_signal(signal.SIGKILL)
        told = [process.communicate(timeout=500)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [-9, -9, 0, 0], told
    trials = study().trials
    counted = [trial for trial in trials if "not counted" not in trial.user_attrs]
    assert [trial.state.name for trial in counted] == ["COMPLETE"] * 12
    # Each has a run of its own, which was trained to its end.
    assert len({trial.user_attrs["folder"] for trial in counted}) == 12
    assert len({tuple(trial.params.values()) for trial in counted}) == 12
    found = results(tmp_path)
    assert {n: r["best/fid"] for n, r in found.items()} == {
        trial.user_attrs["folder"]: trial.value for trial in counted
    }
    assert all(result["steps"] == 100 for result in found.values())
