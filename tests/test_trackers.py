"""Weights & Biases and MLflow without any network."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from PIL import Image

from gan_zoo.training import trackers
from gan_zoo.training.untrusted import keywords_of, listed
from tests.conftest import ROOT
from tests.test_resume import killed_in

Run = Callable[..., CompletedProcess[str]]

TRAIN = str(ROOT / "scripts" / "train.py")
QUICK = ("dataset=digits", "trainer=cpu", "trainer.log_every_n_steps=2", "callbacks.metrics=null",
         "dataset.batch_size=16", "callbacks.sample_grid.every_n_steps=4",
         "callbacks.checkpoint.every_n_train_steps=4", "model.loss=hinge")  # fmt: skip
WARNED = ("callbacks.health.saturation=0", "callbacks.health.warm_up_steps=0",
          "trainer.log_every_n_steps=1", "trainer.max_steps=12")  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and an environment that names no server."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("MLFLOW_TRACKING_URI", "WANDB_DIR", "WANDB_PROJECT", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_missing_package_is_named_with_the_extra(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    result = run("train.py", *QUICK, f"logger={tracker}", "hydra.run.dir=here", check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"logger={tracker} needs {tracker}" in line
    assert f"gan_zoo[{tracker}]" in line
    assert list(tmp_path.iterdir()) == []


def test_files_may_give_a_tracker_no_server_and_no_folder() -> None:
    kinds = [trackers.WandB, trackers.MLflow]
    assert {f"gan_zoo.training.trackers.{kind.__name__}" for kind in kinds} <= listed("logger")
    assert [keywords_of(kind) for kind in kinds] == [
        {"save_dir", "project", "offline"},
        {"save_dir", "experiment_name"},
    ]


# Weights & Biases.


def records_of(content: bytes) -> Iterator[bytes]:
    """What an offline file holds: a header of 7 bytes, then blocks of 32 KiB as LevelDB logs.

    A block has parts, each with its checksum, length and kind: whole, first, middle or last.
    """
    at, record = 7, b""
    while at < len(content):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def wandb_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A session's options, and the rows that it has logged."""
    from wandb.proto import wandb_internal_pb2 as protocol

    (file,) = folder.glob("run-*.wandb")
    options: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    records: list[Any] = []
    deadline = time.monotonic() + 60
    # wandb's own process writes its end a little after the run's.
    while not (records and records[-1].HasField("exit")) and time.monotonic() < deadline:
        time.sleep(0.1)
        records = [protocol.Record.FromString(data) for data in records_of(file.read_bytes())]
    for record in records:
        for item in [*record.run.config.update, *record.config.update]:
            options[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        if record.HasField("history"):
            rows.append({
                item.key or item.nested_key[0]: json.loads(item.value_json)
                for item in record.history.item
            })  # fmt: skip
    return options, rows


def steps_of(rows: list[dict[str, Any]], tag: str) -> list[int]:
    return [row["trainer/global_step"] for row in rows if tag in row]


def test_wandb_has_figures_pictures_texts_and_options(run: Run, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run("train.py", *QUICK, *WARNED, "logger=wandb", "hydra.run.dir=here")
    (first,) = (tmp_path / "here" / "wandb").glob("offline-run-*")
    options, rows = wandb_run(first)
    assert (options["loss"], options["batch_size"], options["model"]) == ("hinge", 16, "gan")
    assert steps_of(rows, "train/loss_d") == list(range(1, 13))
    assert steps_of(rows, "samples/generated") == [0, 4, 8, 12]
    assert len(steps_of(rows, "health/saturated")) == 1
    media = first / "files" / "media"
    (real,) = (media / "images" / "samples").glob("real_*.png")
    assert Image.open(real).size == (8 * 30 + 2, 8 * 30 + 2)
    (text,) = (media / "html" / "run").glob("overrides_*.html")
    assert "model.loss=hinge" in text.read_text()
    # Nothing is written elsewhere but wandb's own logs, and its run goes on where it was.
    written = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert written <= {(".cache", "wandb"), (".cache", "matplotlib")}
    run("train.py", "resume=here", "trainer.max_steps=14")
    second = max((tmp_path / "here" / "wandb").glob("offline-run-*"))
    assert second != first
    assert second.name.rpartition("-")[2] == first.name.rpartition("-")[2]
    options, rows = wandb_run(second)
    assert options["max_steps"] == 14
    assert steps_of(rows, "train/loss_d") == [13, 14]
    assert steps_of(rows, "run/overrides") == []


def test_each_job_is_a_run_of_its_own(run: Run, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run("train.py", "-m", *QUICK, "trainer.max_steps=2", "seed=1,2", "hydra.sweep.dir=sweep",
        "logger=wandb")  # fmt: skip
    found = sorted(tmp_path.glob("sweep/*/wandb/offline-run-*"))
    assert [wandb_run(folder)[0]["seed"] for folder in found] == [1, 2]
    assert len({folder.name.rpartition("-")[2] for folder in found}) == 2


# MLflow.


def mlflow_run(folder: Path) -> tuple[Any, dict[str, list[int]], set[str]]:
    """A run, the steps of its figures, and its artifacts."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'gan_zoo'")
    (found,) = client.search_runs([experiment.experiment_id])
    steps = {
        tag: [metric.step for metric in client.get_metric_history(found.info.run_id, tag)]
        for tag in found.data.metrics
    }
    artifacts = folder / "mlflow" / "artifacts" / found.info.run_id / "artifacts"
    return found, steps, {str(f.relative_to(artifacts)) for f in artifacts.rglob("*.*")}


def pictures_of(artifacts: set[str], tag: str) -> list[int]:
    names = (name.split("+") for name in artifacts if name.endswith(".png"))
    return sorted(int(parts[2]) for parts in names if parts[0] == f"images/{tag}")


def test_mlflow_has_figures_pictures_texts_and_options(
    run: Run, home: Path, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    result = run("train.py", *QUICK, *WARNED, "logger=mlflow", "hydra.run.dir=here")
    assert "mlflow" not in result.stderr
    found, steps, artifacts = mlflow_run(tmp_path / "here")
    options = found.data.params
    assert (options["loss"], options["batch_size"], options["model"]) == ("hinge", "16", "gan")
    assert (found.info.status, found.info.run_name) == ("FINISHED", "here")
    assert steps["train/loss_d"] == list(range(1, 13))
    assert pictures_of(artifacts, "samples~generated") == [0, 4, 8, 12]
    assert pictures_of(artifacts, "samples~real") == [0]
    assert {"run/overrides.md", "run/settings.md", "health/saturated.md"} <= artifacts
    written = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert written <= {(".cache", "matplotlib")}


@pytest.mark.slow
def test_each_job_has_a_database_of_its_own(run: Run, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    run("train.py", "-m", *QUICK, "trainer.max_steps=2", "seed=1,2", "hydra.sweep.dir=sweep",
        "logger=mlflow")  # fmt: skip
    jobs = sorted(path.parent for path in tmp_path.glob("sweep/*/mlflow"))
    assert [mlflow_run(job)[0].data.params["seed"] for job in jobs] == ["1", "2"]


@pytest.mark.slow
def test_mlflow_goes_on_with_a_killed_run_and_logs_nothing_twice(
    run: Run, spawn: Run, home: Path, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    with killed_in(7):
        run("train.py", *QUICK, "trainer.max_steps=10", "logger=mlflow", "hydra.run.dir=here")
    before, steps, _ = mlflow_run(tmp_path / "here")
    # The last checkpoint is of the fourth iteration.
    assert steps["train/loss_d"] == [2, 4, 6]
    # Its database has whole paths.
    (tmp_path / "here").rename(tmp_path / "there")
    spawn(TRAIN, "resume=there", "trainer.max_steps=12")
    after, steps, artifacts = mlflow_run(tmp_path / "there")
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert steps["train/loss_d"] == [2, 4, 6, 8, 10, 12]
    assert pictures_of(artifacts, "samples~generated") == [0, 4, 8, 12]
    assert not (tmp_path / "here").exists()
