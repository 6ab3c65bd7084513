"""Small data, small networks, and the commands that people type."""

from __future__ import annotations

import functools
import logging
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from gan_zoo.data import ImageBatch, ImagePair
from gan_zoo.data.base import normalised, pass_through
from gan_zoo.data.mnist import InMemoryImages
from gan_zoo.data.pairs import Domain, InMemoryPairs
from gan_zoo.metrics import evaluator as evaluators
from gan_zoo.models import GAN
from gan_zoo.networks.mlp import MLPDiscriminator, MLPGenerator
from gan_zoo.run.configuration import known_datasets

Model = TypeVar("Model")
ROOT = Path(__file__).resolve().parent.parent
SHORT = (
    "dataset=digits", "trainer=cpu", "trainer.max_steps=6", "trainer.log_every_n_steps=2",
    "callbacks.metrics=null",
)  # fmt: skip
# Datasets of two domains and of captions have the digits by dataset.name.
DIGITS = dict.fromkeys(
    ("cogan", "discogan", "cyclegan", "stackgan", "stackgan_pp"), "dataset.name=digits"
)
SMALLER = {
    "hdcgan": ("dataset.batch_size=8",),
    "r3gan": ("dataset.batch_size=8",),
    "cogan": ("dataset.batch_size=8", "model.generator.base_channels=4"),
    "discogan": ("dataset.batch_size=8", "model.generator.base_channels=4"),
    "cyclegan": ("dataset.batch_size=4", "model.generator.base_channels=4"),
    "stackgan": ("dataset.batch_size=8", "dataset.encoder_steps=2"),
    "stackgan_pp": ("dataset.batch_size=8", "dataset.encoder_steps=2"),
}

# Of each kind of game one; tests that take long have the others with -m slow.
FEW = ("gan", "cgan", "wgan_gp", "cogan", "cyclegan", "stackgan")

pytest.register_assert_rewrite("tests.same_end")

# The suite measures properties, not speed; one thread makes small steps fast and repeatable.
torch.set_num_threads(1)


def slow_but(few: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """A test's parameter: the values, of which all but the few are slow; tuples for several."""
    few = set(few)
    return [
        value
        if value in few
        else pytest.param(*(value if isinstance(value, tuple) else [value]), marks=pytest.mark.slow)
        for value in values
    ]


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Until it holds; fails if that takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def random_batches(count: int, batch_size: int = 4, size: int = 8) -> DataLoader[ImageBatch]:
    """A loader of ``count`` batches of random images."""
    random = torch.Generator().manual_seed(1)
    n = count * batch_size
    images = torch.randint(0, 256, (n, 1, size, size), generator=random, dtype=torch.uint8)
    labels = torch.randint(0, 10, (n,), generator=random)
    return DataLoader(
        InMemoryImages(images, labels), batch_size=batch_size, collate_fn=pass_through
    )


def random_pairs(count: int, batch_size: int = 4, size: int = 16) -> DataLoader[ImagePair]:
    """A loader of ``count`` batches of random images of two domains."""
    random = torch.Generator().manual_seed(1)
    n = count * batch_size
    domains = [
        Domain(
            torch.randint(0, 256, (n, 1, size, size), generator=random, dtype=torch.uint8),
            torch.randint(0, 10, (n,), generator=random),
            torch.arange(n),
        )
        for _ in range(2)
    ]
    dataset = InMemoryPairs(domains, ImagePair, normalised)
    return DataLoader(dataset, batch_size=batch_size, collate_fn=pass_through)


def small_gan(**options: object) -> GAN:
    """A GAN of 8x8 images, small enough for thousands of steps a minute."""
    return small(GAN, **options)


def small(kind: Callable[..., Model], **options: object) -> Model:
    """Such a model of 8x8 images, with small networks, optimizers and noise unless given."""
    torch.manual_seed(0)
    defaults: dict[str, object] = {
        "generator": MLPGenerator(4, 1, 8, hidden=[16], norm=False),
        "discriminator": MLPDiscriminator(1, 8, hidden=[16], dropout=0.0),
        "optimizer_g": functools.partial(torch.optim.SGD, lr=0.05),
        "optimizer_d": functools.partial(torch.optim.SGD, lr=0.05),
        "noise": functools.partial(nn.init.uniform_, a=-1.0, b=1.0),
        "latent_dim": 4,
    }
    return kind(**{**defaults, **options})


def fit(
    model: pl.LightningModule, batches: int | DataLoader[Any], size: int = 8, **options: object
) -> pl.Trainer:
    """Trains on one epoch of a loader, or of so many random batches."""
    loader = random_batches(batches, size=size) if isinstance(batches, int) else batches
    trainer = pl.Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            **options,
        }  # type: ignore[arg-type]
    )
    trainer.fit(model, loader)
    return trainer


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what is cached for the session alone; evaluators of small data need not be good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAN_ZOO_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(evaluators, "_LEAST_STEPS", 20)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tables", type=Path, help="a document whose tables the tests write anew")


_TABLES = pytest.StashKey[dict[str, dict[str, dict[str, str]]]]()


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Records what a test has found: ``table("fault", "disk full", outcome="...")``.

    ``pytest --tables=FILE`` puts the rows between ``<!-- table: fault -->`` and ``<!-- end -->``.
    """
    tables = request.config.stash.setdefault(_TABLES, {})

    def record(name: str, row: str, **columns: str) -> None:
        tables.setdefault(name, {}).setdefault(row, {}).update(columns)

    return record


def pytest_sessionfinish(session: pytest.Session) -> None:
    document = session.config.getoption("--tables")
    if document is None:
        return
    text = document.read_text()
    for name, rows in session.config.stash.get(_TABLES, {}).items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, after = text.split(begin)
        table, after = after.split(end, 1)
        # Rows of what this session did not run stay as they are.
        kept = _read_table(table)
        for row, cells in rows.items():
            kept.setdefault(row, {}).update(
                {column.replace("_", " "): cell for column, cell in cells.items()}
            )
        text = f"{before}{begin}{_write_table(name, kept)}{end}{after}"
    document.write_text(text)


def _read_table(text: str) -> dict[str, dict[str, str]]:
    lines = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines()
    ]
    if not lines:
        return {}
    (_, *columns), _, *rows = lines
    return {row: dict(zip(columns, cells, strict=True)) for row, *cells in rows}


def _write_table(name: str, rows: dict[str, dict[str, str]]) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [[name, *columns], ["---"] * (len(columns) + 1)]
    lines += [[row, *(cells.get(column, "") for column in columns)] for row, cells in rows.items()]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)


def _escaped(cell: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", cell)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one of the scripts in an empty folder, in this process, where torch is loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    # A command of its own would look relative data folders up anew.
    known_datasets.clear()

    def run_script(
        script: str, *arguments: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        handlers = list(logging.root.handlers)
        answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(ROOT / "scripts" / script), *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                torch.set_num_threads(1)
                for number, answer in answers.items():
                    signal.signal(number, answer)
                # Hydra's write to the run's folder, which may be gone again.
                for handler in set(logging.root.handlers) - set(handlers):
                    with suppress(OSError):
                        handler.close()
                logging.root.handlers = handlers
        output, errors = capfd.readouterr()
        if check and code:
            pytest.fail(f"{script} {' '.join(arguments)}\n{output}\n{errors}")
        return subprocess.CompletedProcess(arguments, code, output, errors)

    return run_script


@pytest.fixture
def spawn(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in an empty folder, in a process of its own, as a person would."""

    def spawn_command(
        *command: str, check: bool = True, timeout: float = 400, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and result.returncode:
            pytest.fail(f"{' '.join(command)}\n{result.stdout}\n{result.stderr}")
        return result

    return spawn_command
