"""What people see in TensorBoard, asked of a real one."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from gan_zoo.callbacks import SampleGrid
from gan_zoo.cli import main
from gan_zoo.train import train
from tests.conftest import ROOT

Run = Callable[..., CompletedProcess[str]]
Ask = Callable[..., Any]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUICK = ("dataset=digits", "trainer=cpu", "trainer.max_steps=2", "callbacks.metrics=null",
         "callbacks.sample_grid=null")  # fmt: skip
# Constants of a sweep, all of them.
SAME = ("dataset=digits", "trainer=cpu", "dataset.batch_size=16", "trainer.max_steps=24",
        "trainer.log_every_n_steps=2", "callbacks.sample_grid.every_n_steps=2",
        "callbacks.metrics.every_n_steps=8", "callbacks.metrics.num_samples=40",
        "callbacks.metrics.max_share=null", "callbacks.health.saturation=0",
        "callbacks.health.warm_up_steps=0", "model.discriminator.dropout=0.2",
        "model.penalty=null", "model.optimizer_d.lr=0.002")  # fmt: skip


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[tuple[str, Ask]]:
    """A TensorBoard of a folder, as the script starts it: its address, and what asks it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(ROOT / "scripts" / "tensorboard.sh"), str(folder), "--host", "127.0.0.1",
               "--port", str(port)]  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command, env={**os.environ, "PATH": path}, stderr=subprocess.DEVNULL, text=True
    )

    def ask(path: str, body: object = None, **query: object) -> Any:
        url = f"http://127.0.0.1:{port}/data/{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(url, data, {"Content-Type": "application/json"})) as answer:
            content = answer.read()
        return content if content.startswith(b"\x89PNG") else json.loads(content)

    wanted = len({file.parent for file in folder.rglob("events.out.tfevents.*")})
    try:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if len(ask("runs")) >= wanted:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", ask
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of two models and two rates."""
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", "-m", "model=gan,cgan",
                                    "model.optimizer_g.lr=0.001,0.0002", *SAME,
                                    f"hydra.sweep.dir={folder}"])  # fmt: skip
        assert main(train, "train") == 0
    torch.set_num_threads(1)
    return folder


@pytest.fixture(scope="module")
def board(sweep: Path) -> Iterator[tuple[str, Ask]]:
    """A TensorBoard of it."""
    with tensorboard(sweep) as started:
        yield started


@pytest.fixture(scope="module")
def ask(board: tuple[str, Ask]) -> Ask:
    return board[1]


def table(ask: Ask) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """The columns of options and of figures, in their order, and the rows."""
    experiment = ask("plugin/hparams/experiment", {})
    options = [info["name"] for info in experiment["hparamInfos"]]
    figures = [info["name"]["tag"] for info in experiment["metricInfos"]]
    groups = ask("plugin/hparams/session_groups", {
        "startIndex": 0, "sliceSize": 100, "colParams": [],
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"],
    })  # fmt: skip
    return options, figures, groups["sessionGroups"]


def columns(folder: Path) -> dict[str, Any]:
    """A run's own columns, as its event file has them."""
    events = EventAccumulator(str(folder)).Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}


def test_the_table_begins_with_what_was_swept_and_the_best_figure(ask: Ask) -> None:
    options, figures, rows = table(ask)
    # Of either five are ticked.
    assert options == ["lr_g", "model", "dataset", "lr_d"]
    assert figures[0] == "best/fid"
    assert all(tag.startswith("metrics/") for tag in figures[1:5])
    found = {(row["hparams"]["model"], row["hparams"]["lr_g"]) for row in rows}
    assert found == {(model, rate) for model in ("gan", "cgan") for rate in (0.001, 0.0002)}
    assert [len(row["sessions"]) for row in rows] == [1] * 4
    # What a row is called begins with the job's name, not with a sweep's time.
    assert sorted(row["name"][:2] for row in rows) == ["0-", "1-", "2-", "3-"]
    for row in rows:
        values = {value["name"]["tag"]: value["value"] for value in row["metricValues"]}
        assert math.isfinite(values["best/fid"])
        assert values["metrics/fid"] >= values["best/fid"]


def test_no_chart_begins_with_a_point_that_is_none(ask: Ask) -> None:
    tags = ask("plugin/scalars/tags")
    assert len(tags) == 4
    for run, found in tags.items():
        for tag in found:
            points = ask("plugin/scalars/scalars", run=run, tag=tag)
            assert all(isinstance(value, float) and step > 0 for _, step, value in points), tag


def test_the_first_page_of_custom_scalars_tells_the_story(ask: Ask) -> None:
    pages = ask("plugin/custom_scalars/layout")["category"]
    assert [page["title"] for page in pages] == ["Overview", "Details"]
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in pages[0]["chart"]}
    assert list(charts)[:3] == ["losses", "outputs of the discriminator", "fid and its floor"]
    run = ask("runs")[-1]
    for title, (tags,) in charts.items():
        points = ask("plugin/custom_scalars/scalars", run=run, tag=tags)["tag_to_events"]
        figure = title.removesuffix(" and its floor")
        if title == "losses":
            assert set(points) == {"train/loss_d", "train/loss_g"}
        elif title == figure:
            assert set(points) == {"train/d_real", "train/d_fake"}
        else:
            assert set(points) == {f"metrics/{figure}", f"metrics_floor/{figure}"}
            assert [step for _, step, _ in points[f"metrics_floor/{figure}"]] == [8, 16, 24]


def test_every_picture_is_there(ask: Ask) -> None:
    run = next(iter(ask("runs")))
    assert set(ask("plugin/images/tags")[run]) == {"samples/generated", "samples/real"}
    pictures = ask("plugin/images/images", run=run, tag="samples/generated", sample=0)
    # More than the ten that TensorBoard would choose.
    assert [picture["step"] for picture in pictures] == list(range(0, 25, 2))
    picture = ask(f"plugin/images/individualImage?{pictures[-1]['query']}")
    assert Image.open(io.BytesIO(picture)).size == (8 * 30 + 2, 8 * 30 + 2)


def test_texts_say_what_was_typed_what_it_is_and_what_went_wrong(ask: Ask) -> None:
    run = next(iter(ask("runs")))
    texts = {
        tag: ask("plugin/text/text", run=run, tag=tag)[0]["text"]
        for tag in ask("plugin/text/tags")[run]
    }
    assert "model.optimizer_g.lr=" in texts["run/overrides/text_summary"]
    assert "dataset.batch_size=16" in texts["run/overrides/text_summary"]
    assert re.search(r"<td>batch_size</td>\s*<td>16</td>", texts["run/settings/text_summary"])
    assert "The discriminator is saturated" in texts["health/saturated/text_summary"]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
@pytest.mark.parametrize(
    "tab", ["timeseries", "scalars", "custom_scalars", "images", "text", "hparams"]
)
def test_each_tab_shows_something(board: tuple[str, Ask], tmp_path: Path, tab: str) -> None:
    file = tmp_path / f"{tab}.png"
    subprocess.run(
        [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-dev-shm-usage", "--window-size=1366,768", "--virtual-time-budget=8000",
         f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={file}", f"{board[0]}/#{tab}"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    # Without the tabs, and the column on the left.
    shown = np.asarray(Image.open(file).convert("RGB"))[140:, 360:]
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 20


# Columns.


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["model.loss=hinge"], {"loss": "hinge"}),
        (["model.generator.hidden=[8,16]"], {"generator.hidden": "[8, 16]"}),
        (["model/discriminator=maxout", "model.penalty=null"],
         {"discriminator": "maxout", "penalty": "null"}),
        (["model/optimizer@model.optimizer_g=sgd", "model.optimizer_g.lr=0.1"],
         {"optimizer_g": "sgd", "lr_g": 0.1}),
        (["experiment=paper/gan", "~callbacks.checkpoint", "dataset.val_size=0"],
         {"experiment": "paper/gan", "checkpoint": "null", "val_size": 0.0, "lr_g": 0.1,
          "lr_d": 0.05}),
        (["model.optimizer_d.betas=[0.1,0.9]", "logger=all"], {"betas_d": "[0.1, 0.9]"}),
        (["seed=3", "tags=[first,second]"], {"seed": 3.0, "tags": "first second"}),
    ],
)  # fmt: skip
def test_a_runs_columns_are_what_was_typed_and_what_it_is(
    run: Run, tmp_path: Path, typed: list[str], found: dict[str, Any]
) -> None:
    run("train.py", *typed, *QUICK, "hydra.run.dir=here")
    constant = {"trainer": "cpu", "max_steps": 2.0, "metrics": "null", "sample_grid": "null"}
    own = {"model": "gan", "dataset": "digits", "seed": 0.0, "lr_g": 0.001, "lr_d": 0.0005}
    assert columns(tmp_path / "here") == own | constant | found


def test_a_jobs_columns_are_what_was_swept(run: Run, tmp_path: Path) -> None:
    run("train.py", "-m", *QUICK, "model.loss=hinge", "model/generator=mlp,mlp_2014",
        "model.discriminator.hidden=[8],[16]", "hydra.sweep.dir=sweep")  # fmt: skip
    jobs = [columns(file.parent) for file in sorted(tmp_path.glob("sweep/*/events*"))]
    rates = {"lr_g": 0.001, "lr_d": 0.0005}
    assert jobs == [
        {"model": "gan", "dataset": "digits", "generator": generator,
         "discriminator.hidden": hidden, **rates}
        for generator in ("mlp", "mlp_2014") for hidden in ("[8]", "[16]")
    ]  # fmt: skip


def test_a_resumed_run_is_one_row_as_it_is_now(run: Run, tmp_path: Path) -> None:
    rest = [option for option in QUICK if not option.startswith("trainer.max_steps")]
    # Its first terms would come in the fourth iteration.
    run("train.py", *rest, "trainer.max_steps=4", "trainer.log_every_n_steps=2",
        "model.penalty=null", "hydra.run.dir=runs/here")  # fmt: skip
    run("train.py", "resume=runs/here", "trainer.max_steps=8")
    with tensorboard(tmp_path / "runs") as (_, ask):
        options, figures, (row,) = table(ask)
        assert row["hparams"]["max_steps"] == 8
        assert len(row["sessions"]) == 1
        assert "trainer" in options
        for tag in figures:
            steps = [step for _, step, _ in ask("plugin/scalars/scalars", run="here", tag=tag)]
            assert steps == [2, 4, 6, 8]
        (page, _) = ask("plugin/custom_scalars/layout")["category"]
        assert len(page["chart"]) == 2
        texts = ask("plugin/text/text", run="here", tag="run/settings/text_summary")
        assert len(texts) == 1


# Pictures of long runs.


def drawn(
    grid: SampleGrid, max_steps: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """The iterations at which a run of so many draws in its first ``steps``."""
    trainer = pl.Trainer(max_steps=max_steps, max_epochs=-1, logger=False, accelerator="cpu",
                         enable_checkpointing=False, enable_progress_bar=False)  # fmt: skip
    found: list[int] = []
    monkeypatch.setattr(SampleGrid, "_show", lambda self, t, *_: found.append(t.global_step))
    model: Any = type("Model", (), {"sample_grid": lambda self, inputs: None})()
    for step in range(1, steps + 1):
        monkeypatch.setattr(pl.Trainer, "global_step", step)
        grid.on_train_batch_end(trainer, model)
    return found


@pytest.mark.parametrize(
    ("max_steps", "interval"), [(50, 5), (51, 10), (100, 10), (101, 20), (400, 40)]
)
def test_a_long_run_has_fewer_evenly_spaced_pictures(
    monkeypatch: pytest.MonkeyPatch, max_steps: int, interval: int
) -> None:
    grid = SampleGrid(every_n_steps=5, most=10)
    steps = drawn(grid, max_steps, max_steps, monkeypatch)
    assert steps == list(range(interval, max_steps + 1, interval))
    assert drawn(SampleGrid(5, most=None), max_steps, 50, monkeypatch) == list(range(5, 51, 5))


def test_the_pictures_of_a_longer_run_are_among_those_of_a_shorter_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short, long = (drawn(SampleGrid(5, most=10), n, 50, monkeypatch) for n in (50, 300))
    assert set(long) < set(short)


def test_without_an_end_pictures_become_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = drawn(SampleGrid(5, most=4), -1, 80, monkeypatch)
    assert steps == [5, 10, 15, 20, 30, 40, 60, 80]
