"""What goes wrong around a run costs nothing that was saved, and is said in a sentence."""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TextIO

import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from gan_zoo.cli import main
from gan_zoo.console import signals_held
from gan_zoo.data.base import InMemoryDataModule, InMemoryDataset
from gan_zoo.models import GAN
from gan_zoo.run.events import truncate_logs
from gan_zoo.run.folder import find_checkpoint
from tests.conftest import ROOT, slow_but
from tests.kill_and_resume import changed
from tests.same_end import assert_same_end, differing, read_checkpoint, state

Run = Callable[..., CompletedProcess[str]]
Table = Callable[..., None]

TRAIN = str(ROOT / "scripts" / "train.py")
EVERY = 20
# Some seconds of training, measured and looked after on the way, with a checkpoint at each figure.
OPTIONS = (
    "model=gan", "dataset=digits", "dataset.batch_size=32", "dataset.val_size=20", "trainer=cpu",
    "trainer.max_steps=240", "trainer.log_every_n_steps=10",
    f"callbacks.checkpoint.every_n_train_steps={EVERY}", "callbacks.sample_grid.every_n_steps=60",
    "callbacks.metrics.every_n_steps=80", "callbacks.metrics.num_samples=50",
    "callbacks.metrics.metrics=[fid]", "callbacks.metrics.max_share=null",
    "callbacks.health.every_n_steps=50", "callbacks.health.warm_up_steps=50",
)  # fmt: skip
# Six iterations with a checkpoint at every second.
SHORT = (
    "model=gan", "dataset=digits", "dataset.batch_size=32", "trainer=cpu", "trainer.max_steps=6",
    "trainer.log_every_n_steps=1", "callbacks.checkpoint.every_n_train_steps=2",
    "callbacks.metrics=null",
)  # fmt: skip
# They are answered by the same handler: one of them where that matters alone.
EITHER = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
# What people name the copies of a step-000002.ckpt that they want to keep.
COPIES = ("000002-good", "000002 (copy)", "", "000002.bak", "-2", "1_0")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of OPTIONS that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    with started(folder) as process:
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    return folder / "here"


@contextmanager
def started(
    folder: Path, *arguments: str, at: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """train.py in a process of its own; from when the file ``at`` is there, where it is given."""
    arguments = arguments or (*OPTIONS, "hydra.run.dir=here")
    process = subprocess.Popen(
        [sys.executable, TRAIN, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As a terminal's job: with all processes that it starts.
        process_group=0,
        # Under a shell's background jobs it would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 200
        while at is not None and not at.exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def checkpoint_at(folder: Path, iteration: int) -> Path:
    return folder / "checkpoints" / f"step-{iteration:06d}.ckpt"


def said(process: subprocess.Popen[str] | CompletedProcess[str], *expected: str) -> None:
    """Asserts that a run failed and said so in a few lines, the last of which hold all of these."""
    if isinstance(process, subprocess.Popen):
        _, errors = process.communicate(timeout=100)
    else:
        errors = process.stderr
    assert process.returncode == 1
    assert "Traceback" not in errors
    message = "\n".join([line for line in errors.splitlines() if line.strip()][-2:])
    assert all(part in message for part in expected), errors


def wait_for_the_end_of_all(process: subprocess.Popen[str]) -> None:
    """Returns once nothing that a process has started runs any more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("processes were left behind")


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGINT, 0),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_in_order(
    run: Run, table: Table, straight: Path, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    here = tmp_path / "here"
    arguments = (*OPTIONS, f"dataset.num_workers={workers}", "hydra.run.dir=here")
    with started(tmp_path, *arguments, at=checkpoint_at(here, EVERY)) as process:
        # A terminal and a cluster signal the loader processes too.
        (os.killpg if workers else os.kill)(process.pid, number)
        output, errors = process.communicate(timeout=100)
        wait_for_the_end_of_all(process)
    assert process.returncode == 128 + number
    assert f"Interrupted. Resume with: python {TRAIN} resume=here" in output
    assert "Traceback" not in errors
    run("train.py", "resume=here")
    assert_same_end(here, straight)
    table(
        "fault",
        f"{number.name} ({'Ctrl-C' if number is signal.SIGINT else 'a cluster'})",
        outcome="the iteration is finished and a checkpoint written; the line that resumes is "
        f"printed; exit code {128 + number}",
        what_is_lost="nothing",
    )


def test_loader_processes_hear_no_signal_from_their_start() -> None:
    class Blocked(InMemoryDataset):
        def __len__(self) -> int:
            return 1

        def __getitems__(self, indices: Any) -> Any:
            return signal.pthread_sigmask(signal.SIG_BLOCK, ())

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    data = InMemoryDataModule("blocked", batch_size=1, num_workers=1)
    data.test = Blocked()
    assert {signal.SIGINT, signal.SIGTERM} <= next(iter(data.test_dataloader()))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


# Runs a script that gets a signal when it first imports a module or calls a function.
SIGNALLED = """
import importlib.abc, os, runpy, sys

module, function, number = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != module:
            return
        if function:
            sys.setprofile(watch)
        else:
            os.kill(os.getpid(), number)

def watch(frame, event, argument):
    if frame.f_code.co_name == function and frame.f_globals.get("__name__") == module:
        sys.setprofile(None)
        os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
sys.argv = sys.argv[4:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def signalled(
    folder: Path, number: int, module: str, function: str, script: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A script in a folder, to which that signal comes at that import or call."""
    (folder / "signalled.py").write_text(SIGNALLED)
    path = str(ROOT / "scripts" / script)
    return subprocess.run(
        [sys.executable, "signalled.py", module, function, str(number), path, *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GAN_ZOO_CACHE_DIR": str(folder / "cache")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


@pytest.mark.parametrize("number", EITHER)
@pytest.mark.parametrize(
    "script",
    slow_but(("train", "sample"), ["train", "sample", "evaluate", "train_evaluator", "benchmark"]),
)
def test_a_signal_while_torch_is_loaded(
    tmp_path: Path, script: str, number: signal.Signals
) -> None:
    result = signalled(tmp_path, number, "torch.nn", "", f"{script}.py")
    assert (result.returncode, result.stderr) == (128 + number, "")


@pytest.mark.parametrize("number", EITHER)
@pytest.mark.parametrize(
    ("module", "function", "script", "arguments"),
    [
        ("gan_zoo.metrics.evaluator", "_augmented", "train.py",
         ("model=discogan", "dataset=mnist_rotated", "dataset.name=digits",
          "callbacks.metrics.every_n_steps=2", *SHORT[3:-1], "trainer=cpu")),
        pytest.param("gan_zoo.losses", "joint_embedding", "train.py",
                     ("model=stackgan", "dataset.name=digits", *SHORT[3:], "trainer=cpu"),
                     marks=pytest.mark.slow),
        pytest.param("gan_zoo.metrics.evaluator", "_augmented", "train_evaluator.py",
                     ("dataset=digits",), marks=pytest.mark.slow),
    ],
    ids=["evaluator", "text encoder", "train_evaluator"],
)  # fmt: skip
def test_a_signal_while_something_is_trained_first(
    tmp_path: Path, number: signal.Signals, module: str, function: str, script: str,
    arguments: tuple[str, ...],
) -> None:  # fmt: skip
    result = signalled(tmp_path, number, module, function, script, *arguments)
    assert result.returncode == 128 + number, result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["signalled.py"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_a_jobs_last_iteration_ends_the_sweep(
    tmp_path: Path, number: signal.Signals
) -> None:
    # What keeps the latest checkpoints is first called when training is over.
    rare = "callbacks.checkpoint.every_n_train_steps=100"
    sweep = ("-m", *SHORT, rare, "seed=0,1", "hydra.sweep.dir=here")
    result = signalled(tmp_path, number, "gan_zoo.callbacks.checkpoint", "_keep_latest",
                       "train.py", *sweep)  # fmt: skip
    assert result.returncode == 128 + number, result.stderr
    assert "The sweep is interrupted. Go on with:" in result.stdout + result.stderr
    (job,) = (folder for folder in (tmp_path / "here").glob("[0-9]*"))
    assert json.loads((job / "metrics.json").read_text())["steps"] == 6


def test_an_interruption_that_a_library_has_made_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_way_out: list[type[Exception]] = [NameError, OSError]

    def task(config: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise on_the_way_out.pop(0)("on the way out")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "checkpoint=x"])
    assert main(task, "evaluate") == 128 + signal.SIGINT
    assert capsys.readouterr().err == ""
    # What could not be saved is told of.
    assert main(task, "evaluate") == 1
    assert "on the way out" in capsys.readouterr().err


def test_signals_wait_for_the_end_of_what_holds_them() -> None:
    done = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with signals_held():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")
    except KeyboardInterrupt:
        done.append("the end")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["the rest", "the end"]


@pytest.mark.parametrize("number", [signal.SIGKILL, *EITHER[1:]])
def test_no_loader_process_outlives_its_run(tmp_path: Path, number: signal.Signals) -> None:
    arguments = (*OPTIONS, "dataset.num_workers=2", "hydra.run.dir=here")
    with started(tmp_path, *arguments, at=checkpoint_at(tmp_path / "here", EVERY)) as process:
        # The second one ends the run wherever it is.
        process.send_signal(number)
        process.send_signal(number)
        process.communicate(timeout=100)
        wait_for_the_end_of_all(process)
    assert process.returncode in (-number, 128 + number)


@pytest.mark.slow
def test_two_processes_end_in_order(spawn: Run, table: Table, tmp_path: Path) -> None:
    options = ("model=cgan", *OPTIONS[1:], "trainer=ddp_cpu", "callbacks.metrics=null")
    options = tuple(a for a in options if not a.startswith("callbacks.metrics."))
    spawn(TRAIN, *options, "hydra.run.dir=straight")
    here = tmp_path / "here"
    arguments = (*options, "hydra.run.dir=here")
    with started(tmp_path, *arguments, at=checkpoint_at(here, EVERY)) as process:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert output.count("Interrupted. Resume with") == 1
    arguments = ("resume=here", "dataset.num_workers=2", "resume.allow=[dataset.num_workers]")
    with started(tmp_path, *arguments, at=checkpoint_at(here, 6 * EVERY)) as process:
        os.killpg(process.pid, signal.SIGTERM)
        output, errors = process.communicate(timeout=100)
        wait_for_the_end_of_all(process)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert output.count("Interrupted. Resume with") == 1
    spawn(TRAIN, "resume=here")
    assert_same_end(here, tmp_path / "straight")
    table("fault", "SIGTERM to the first of two processes", outcome="both end after the same "
          "iteration, as one alone does", what_is_lost="nothing")  # fmt: skip


@pytest.mark.slow
def test_kills_at_random_moments(spawn: Run, table: Table, tmp_path: Path) -> None:
    kill_and_resume(spawn, tmp_path, 2)


@pytest.mark.slow
def test_fifty_kills_at_random_moments(spawn: Run, table: Table, tmp_path: Path) -> None:
    found = kill_and_resume(spawn, tmp_path, 50)
    assert found["while a checkpoint was written"] >= 5
    table(
        "fault",
        "SIGKILL at 50 random moments",
        outcome=f"{found['while a checkpoint was written']} of the kills met a checkpoint that was "
        f"being written; runs that ended, as one that was never killed: {found['runs']}",
        what_is_lost="iterations since the last checkpoint, which are trained again",
    )


@pytest.mark.slow
def test_a_kill_at_each_write(spawn: Run, table: Table, tmp_path: Path) -> None:
    script = str(ROOT / "tests" / "kill_and_resume.py")
    result = spawn(script, str(tmp_path), "0")
    kills = json.loads(result.stdout.splitlines()[-1])["kills"]
    assert kills > 50
    table("fault", "SIGKILL at each write of a short run", outcome=f"{kills} kills: the same "
          "command or a resume brings each to its end",
          what_is_lost="iterations since the last checkpoint, which are trained again")  # fmt: skip


@pytest.mark.parametrize("left", [".hydra/.config.yaml.0123abcd", ".hydra/hydra.yaml",
                                  ".provenance.json.0123abcd", "provenance.json"])  # fmt: skip
def test_a_folder_in_which_nothing_was_trained(run: Run, tmp_path: Path, left: str) -> None:
    here = tmp_path / "here"
    (here / left).parent.mkdir(parents=True)
    (here / left).write_text('[{"dataset": "of another run"}]')
    for name in (".lock", "train.log"):
        (here / name).touch()
    run("train.py", *SHORT, "hydra.run.dir=here")
    assert not list(here.rglob("*.0123abcd"))
    assert len(json.loads((here / "provenance.json").read_text())) == 1
    run("train.py", "resume=here", "trainer.max_steps=8")
    assert read_checkpoint(here)["global_step"] == 8


def kill_and_resume(spawn: Run, tmp_path: Path, kills: int) -> dict[str, int]:
    script = str(ROOT / "tests" / "kill_and_resume.py")
    result = spawn(script, str(tmp_path), str(kills))
    found: dict[str, int] = json.loads(result.stdout.splitlines()[-1])
    assert found["kills"] == kills
    return found


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_by_a_byte(content: bytes) -> bytes:
    return content[:-1]


def with_a_bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def all_zeros(content: bytes) -> bytes:
    return bytes(len(content))


def emptied(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "damage",
    slow_but(
        (cut_by_a_byte, with_a_bit_flipped),
        (halved, cut_by_a_byte, with_a_bit_flipped, all_zeros, emptied),
    ),
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    run: Run, table: Table, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    here = tmp_path / "here"
    # As of a run that is not at its end, of which the last ones are kept.
    run("train.py", *SHORT, "callbacks.checkpoint.keep_last=null", "hydra.run.dir=here")
    end = state(here)
    last = here / "checkpoints" / "last.ckpt"
    # The same file under another name.
    last.write_bytes(damage(checkpoint_at(here, 6).read_bytes()))
    assert find_checkpoint(here)[0] == checkpoint_at(here, 4)
    result = run("sample.py", "checkpoint=here", "num_samples=4")
    assert "last.ckpt' is" in result.stdout + result.stderr
    assert "step-000004.ckpt' is taken instead" in result.stdout + result.stderr
    refused = run("sample.py", "checkpoint=here/checkpoints/last.ckpt", check=False)
    assert "damaged" in refused.stderr
    run("train.py", "resume=here")
    assert differing(state(here), end) == []
    table("fault", f"a checkpoint {damage.__name__.replace('_', ' ')}", outcome="recognised and "
          "named; the one before it is taken", what_is_lost="nothing: the iterations are trained "
          "again")  # fmt: skip


def test_a_copied_checkpoint_is_left_alone(run: Run, tmp_path: Path) -> None:
    run("train.py", *SHORT, "hydra.run.dir=here")
    copies = [tmp_path / "here" / "checkpoints" / f"step-{name}.ckpt" for name in COPIES]
    for copy in copies:
        shutil.copy(checkpoint_at(tmp_path / "here", 6), copy)
    run("train.py", "resume=here", "trainer.max_steps=16")
    assert all(copy.exists() for copy in copies)
    assert read_checkpoint(tmp_path / "here")["global_step"] == 16
    for checkpoint in ("here", *copies):
        run("sample.py", f"checkpoint='{checkpoint}'", "num_samples=4")


def test_all_checkpoints_damaged(run: Run, tmp_path: Path) -> None:
    run("train.py", *SHORT, "hydra.run.dir=here")
    for file in (tmp_path / "here" / "checkpoints").iterdir():
        file.write_bytes(halved(file.read_bytes()))
    before = {p: p.read_bytes() for p in (tmp_path / "here").glob("**/*ckpt*")}
    said(run("train.py", "resume=here", check=False), "last.ckpt' is", "No other checkpoint")
    assert {p: p.read_bytes() for p in (tmp_path / "here").glob("**/*ckpt*")} == before


def test_an_event_file_cut_short(run: Run, table: Table, tmp_path: Path) -> None:
    run("train.py", *SHORT, "hydra.run.dir=straight", "logger=all")
    here = tmp_path / "here"
    run("train.py", *SHORT, "hydra.run.dir=here", "logger=all")
    checkpoint_at(here, 6).unlink()
    (here / "checkpoints" / "last.ckpt").unlink()
    (events,) = here.glob("events.out.tfevents.*")
    events.write_bytes(events.read_bytes()[:-7])
    table_file = here / "csv" / "version_0" / "metrics.csv"
    table_file.write_bytes(table_file.read_bytes()[:-7])
    run("train.py", "resume=here")
    assert_same_end(here, tmp_path / "straight")
    losses = [
        (row["step"], row["train/loss_d"])
        for part in ("version_0", "version_1")
        for row in csv.DictReader((here / "csv" / part / "metrics.csv").open())
        if row["train/loss_d"]
    ]
    rows = csv.DictReader((tmp_path / "straight" / "csv" / "version_0" / "metrics.csv").open())
    assert losses == [(r["step"], r["train/loss_d"]) for r in rows if r["train/loss_d"]]
    assert len(losses) == 6
    table("fault", "an event file or csv cut short", outcome="both are cut back to the checkpoint "
          "that the run is resumed from", what_is_lost="nothing")  # fmt: skip


@pytest.mark.parametrize("place", [0, 7, 9, 12, 30, 41])
def test_an_event_with_a_bit_flipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    with SummaryWriter(tmp_path) as writer:
        for step in range(8):
            writer.add_scalar("loss", step, step)
    (events,) = tmp_path.glob("events.*")
    whole = events.read_bytes()
    # In the fifth last record: its length, the checksum of that, the event or its checksum.
    size = 42
    begin = len(whole) - 5 * size
    damaged = bytearray(whole)
    damaged[begin + place] ^= 1
    events.write_bytes(damaged)
    truncate_logs(tmp_path, 8)
    assert events.read_bytes() == whole[:begin] + whole[begin + size :]
    assert f"'{events}' is damaged: 42 of its {len(whole)} bytes" in caplog.text
    truncate_logs(tmp_path, 8)
    assert caplog.text.count("is damaged") == 1


def test_damaged_lines_of_a_table_are_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "csv" / "version_0" / "metrics.csv"
    table.parent.mkdir(parents=True)
    lines = [b"step,loss\n", b"1,0.5\n", b"\0\xff,0.4\n", b"3\n", b"4,0.3\n"]
    table.write_bytes(b"".join(lines))
    truncate_logs(tmp_path, 8)
    assert table.read_bytes() == b"".join([*lines[:2], lines[4]])
    assert f"'{table}' is damaged: 2 of its lines" in caplog.text


def test_damaged_small_files_cost_nothing(run: Run, table: Table, tmp_path: Path) -> None:
    here = tmp_path / "here"
    run("train.py", *SHORT, "hydra.run.dir=here")
    for steps, damage in enumerate(("", "{cut", "[1, {}]"), 7):
        for name in ("metrics.json", "provenance.json"):
            (here / name).write_text(damage)
        result = run("train.py", "resume=here", f"trainer.max_steps={steps}")
        assert "here/metrics.json' is damaged" in result.stdout + result.stderr
        assert (here / "metrics.json.damaged").read_text() == damage
        assert read_checkpoint(here)["global_step"] == steps
        assert json.loads((here / "metrics.json").read_text())["steps"] == steps
        assert json.loads((here / "provenance.json").read_text())[-1]["seed"] == 0
    (here / "metrics.json").write_text("{cut")
    run("evaluate.py", "checkpoint=here", "num_samples=50", "metrics=[fid]")
    assert "evaluation" in json.loads((here / "metrics.json").read_text())
    table("fault", "metrics.json or provenance.json damaged", outcome="named, set aside and begun "
          "anew", what_is_lost="what was in the file")  # fmt: skip


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of that size at the folder; skips where nobody may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


# What can't be written, as patterns of paths, the error of that, and the file from when on.
_unwritable: list[tuple[str, int, Path]] = []


def _fail_to_write(event: str, arguments: tuple[Any, ...]) -> None:
    for pattern, number, since in _unwritable:
        changes = event != "os.remove" and fnmatch(changed(event, arguments), pattern)
        if changes and since.exists():
            # Of a write the system does not say which file's it was.
            raise OSError(number, os.strerror(number))


sys.addaudithook(_fail_to_write)


@pytest.fixture
def unwritable() -> Iterator[list[tuple[str, int, Path]]]:
    yield _unwritable
    _unwritable.clear()


# Six iterations, whose files are all written at the end of the third and of the sixth.
WRITES = (*SHORT, "callbacks.sample_grid.every_n_steps=3", "callbacks.checkpoint.keep_last=null",
          "callbacks.checkpoint.every_n_train_steps=3", "logger=all")  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of WRITES."""
    folder = tmp_path_factory.mktemp("written")
    with started(folder, *WRITES, "hydra.run.dir=here") as process:
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    return folder / "here"


@pytest.mark.parametrize(
    ("name", "number", "after"),
    slow_but(
        [
            ("provenance.json", errno.ENOSPC, 0),
            ("events.out", errno.ENOSPC, 0),
            ("last.ckpt", errno.ENOSPC, 0),
            ("step-000006.ckpt", errno.ENOSPC, 3),
            ("metrics.csv", errno.ENOSPC, 3),
            ("metrics.json", errno.ENOSPC, 3),
            ("events.out", errno.EDQUOT, 3),
            ("samples", errno.EACCES, 0),
        ],
        [
            *((name, errno.ENOSPC, 0) for name in (
                "provenance.json", ".hydra", "hydra.yaml", "config.yaml", "real.png", "events.out",
                "metrics.csv", "checkpoints", "last.ckpt",
            )),
            *((name, errno.ENOSPC, 3) for name in (
                "step-000006.png", "step-000006.ckpt", "events.out", "last.ckpt", "metrics.csv",
                "metrics.json",
            )),
            ("step-000006.ckpt", errno.EDQUOT, 3),
            ("events.out", errno.EDQUOT, 3),
            ("samples", errno.EACCES, 0),
            ("csv", errno.EACCES, 0),
            ("checkpoints", errno.EACCES, 3),
        ],
    ),
)  # fmt: skip
def test_what_cannot_be_written_is_named(
    run: Run, written: Path, tmp_path: Path, unwritable: list[tuple[str, int, Path]],
    name: str, number: int, after: int,
) -> None:  # fmt: skip
    here = tmp_path / "here"
    since = checkpoint_at(here, after) if after else tmp_path
    unwritable.append((f"{here}*/*{name}*", number, since))
    result = run("train.py", *WRITES, "hydra.run.dir=here", check=False)
    said(result, os.strerror(number), "here")
    unwritable.clear()
    if after:
        assert read_checkpoint(here)["global_step"] >= after
        assert not list(here.rglob("*.ckpt.*"))
    begun = (here / ".hydra" / "config.yaml").exists()
    run("train.py", *(["resume=here"] if begun else [*WRITES, "hydra.run.dir=here"]))
    assert_same_end(here, written)


def test_a_log_that_cannot_be_written_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(handler: logging.FileHandler) -> TextIO:
        return Path("/dev/full").open("w")

    monkeypatch.setattr(logging.FileHandler, "_open", opened)
    result = run("train.py", *SHORT[:-1], "dataset.val_size=0", "callbacks.metrics.every_n_steps=2",
                 "hydra.run.dir=here", check=False)  # fmt: skip
    said(result, "No space left on device", "here/train.log")


@pytest.mark.parametrize("output", ["grid.png", "arrays.npz"])
def test_a_picture_that_cannot_be_written_is_named(
    run: Run, tmp_path: Path, unwritable: list[tuple[str, int, Path]], output: str
) -> None:
    run("train.py", *SHORT, "hydra.run.dir=here")
    unwritable.append((f"{tmp_path}/*{output}*", errno.ENOSPC, tmp_path))
    command = ("sample.py", "checkpoint=here", "num_samples=4", f"output={output}")
    said(run(*command, check=False), "No space left on device", output)
    assert not list(tmp_path.glob(f"*{output}*"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_full_disk(run: Run, table: Table, straight: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    arguments = (*OPTIONS, "hydra.run.dir=disk/here")
    # Each checkpoint takes 30 MB, and one more while it is written.
    with small_disk(disk, "100m"):
        said(run("train.py", *arguments, check=False), "No space left on device",
             "resume=disk/here")  # fmt: skip
        kept = read_checkpoint(disk / "here")["global_step"]
        assert kept >= EVERY
        assert not list((disk / "here" / "checkpoints").glob(".*"))
        said(run("train.py", "resume=disk/here", check=False), "No space left on device")
        assert read_checkpoint(disk / "here")["global_step"] >= kept
        remount(disk, "size=400m")
        run("train.py", "resume=disk/here")
        assert_same_end(disk / "here", straight)
    table("fault", "the disk is full", outcome="the run ends and names the file that could not be "
          "written; it can be resumed once there is room",
          what_is_lost="iterations since the last checkpoint, which are trained again")  # fmt: skip


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_folder_that_cannot_be_written_to(run: Run, table: Table, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "200m"):
        run("train.py", *SHORT, "hydra.run.dir=disk/here")
        remount(disk, "ro")
        said(
            run("train.py", *SHORT, "hydra.run.dir=disk/new", check=False), "disk/new", "Read-only"
        )
        said(run("train.py", "resume=disk/here", "trainer.max_steps=8", check=False), "Read-only")
        said(run("sample.py", "checkpoint=disk/here", "output=disk/x.png", check=False), "x.png")
        remount(disk, "rw")
        run("train.py", "resume=disk/here", "trainer.max_steps=8")
    table("fault", "the folder can't be written to", outcome="said before anything is trained",
          what_is_lost="nothing")  # fmt: skip


@pytest.mark.slow
def test_a_loader_process_is_killed(run: Run, table: Table, straight: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    arguments = (*OPTIONS, "dataset.num_workers=2", "hydra.run.dir=here")
    with started(tmp_path, *arguments, at=checkpoint_at(here, EVERY)) as process:
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(workers[0]), signal.SIGKILL)
        said(process, "DataLoader worker", f"Resume with: python {TRAIN} resume=here")
    allowed = ("dataset.num_workers=0", "resume.allow=[dataset.num_workers]")
    run("train.py", "resume=here", *allowed)
    assert_same_end(here, straight)
    table("fault", "a loader process is killed", outcome="the run ends, says so and how to go on",
          what_is_lost="iterations since the last checkpoint, which are trained again")  # fmt: skip


def test_a_loss_that_is_not_a_number(
    run: Run, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: GAN, batch: Any, fake: Any) -> Any:
        loss, terms = generator_loss(model, batch, fake)
        return loss * (torch.nan if model.trainer.global_step == 4 else 1), terms

    generator_loss = GAN.generator_loss
    monkeypatch.setattr(GAN, "generator_loss", broken)
    result = run("train.py", *SHORT, "hydra.run.dir=here", check=False)
    said(result, "train/loss_g is nan in iteration 5", "last.ckpt")
    assert read_checkpoint(tmp_path / "here")["global_step"] == 4
    monkeypatch.undo()
    table("fault", "a loss becomes NaN", outcome="the run ends and names the iteration and the "
          "term; no checkpoint is written of it", what_is_lost="nothing that was good")  # fmt: skip


@pytest.mark.slow
def test_two_runs_at_the_same_time(run: Run, table: Table, tmp_path: Path) -> None:
    # Without a folder of their own they get two, also within a second.
    with started(tmp_path, *SHORT) as one, started(tmp_path, *SHORT) as two:
        one.communicate(timeout=200)
        two.communicate(timeout=200)
    assert (one.returncode, two.returncode) == (0, 0)
    folders = list(tmp_path.glob("runs/gan/digits/*"))
    assert len(folders) == 2
    assert all((folder / "metrics.json").is_file() for folder in folders)
    assert differing(state(folders[0]), state(folders[1])) == []
    table("fault", "two runs begin in the same second", outcome="each has a folder of its own",
          what_is_lost="nothing")  # fmt: skip


@pytest.mark.slow
def test_two_runs_in_one_folder(run: Run, table: Table, straight: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    with started(tmp_path, at=checkpoint_at(here, EVERY)) as process:
        said(run("train.py", *SHORT, "hydra.run.dir=here", check=False), "'here' is in use")
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert_same_end(here, straight)
    said(run("train.py", *SHORT, "hydra.run.dir=here", check=False), "holds a run already",
         "resume=here")  # fmt: skip
    assert_same_end(here, straight)
    table(
        "fault", "two runs in one folder", outcome="the second is refused", what_is_lost="nothing"
    )


def pictures(folder: Path, blue: int = 10) -> None:
    """Four pictures in each of two domains."""
    for part in ("trainA", "trainB"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for n in range(4):
            Image.new("RGB", (20, 20), (60 * n, 90, blue)).save(folder / part / f"{n}.png")


def test_the_data_is_removed_while_it_is_trained_on(run: Run, table: Table, tmp_path: Path) -> None:
    pictures(tmp_path / "mine")
    options = (
        "model=cyclegan", "dataset=unpaired_folder", "dataset.root=mine", "dataset.image_size=16",
        "trainer=cpu", "trainer.max_steps=20", "model.generator.base_channels=4",
        "model.generator.blocks=1", "model.discriminator.base_channels=4",
        "callbacks.checkpoint.every_n_train_steps=2",
    )  # fmt: skip
    run("train.py", *options, "hydra.run.dir=straight")
    here = tmp_path / "here"
    arguments = (*options, "hydra.run.dir=here")
    with started(tmp_path, *arguments, at=checkpoint_at(here, 2)) as process:
        shutil.rmtree(tmp_path / "mine")
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert differing(state(here), state(tmp_path / "straight")) == []
    more = ("train.py", "resume=here", "trainer.max_steps=30")
    said(run(*more, check=False), "mine")
    assert read_checkpoint(here)["global_step"] == 20
    pictures(tmp_path / "mine", blue=11)
    said(run(*more, check=False), "is not what the run was trained on", "resume.allow=[dataset]")
    shutil.rmtree(tmp_path / "mine")
    pictures(tmp_path / "mine")
    run(*more)
    table("fault", "the data folder is removed", outcome="the run has its data in memory and goes "
          "on; to resume it later is refused, with the folder's name",
          what_is_lost="nothing")  # fmt: skip
