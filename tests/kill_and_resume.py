"""Kills runs at random moments until they are over, and compares their end.

``python tests/kill_and_resume.py FOLDER KILLS [SEED]`` prints what it came to as JSON; with 0 for
KILLS, one run is killed at each change that it makes to its folder. Runs begin as copies of this
process, so that most kills meet them at work and not while they load torch.
"""

from __future__ import annotations

import json
import os
import random
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gan_zoo.train
from tests.same_end import assert_same_end

TRAIN = Path(__file__).resolve().parent.parent / "scripts" / "train.py"
# About 3 s of training in which a checkpoint of 30 MB is written every tenth of one.
OPTIONS = (
    "model=gan", "dataset=digits", "dataset.val_size=20", "dataset.batch_size=32", "trainer=cpu",
    "trainer.max_steps=300", "trainer.log_every_n_steps=5", "callbacks.metrics=null",
    "callbacks.checkpoint.every_n_train_steps=10", "callbacks.sample_grid.every_n_steps=50",
)  # fmt: skip
# Two iterations with a checkpoint at each.
SHORTEST = (
    *(a for a in OPTIONS if "max_steps" not in a and "every_n" not in a), "trainer.max_steps=2",
    "trainer.log_every_n_steps=1", "callbacks.checkpoint.every_n_train_steps=1",
)  # fmt: skip
# When kills come: within seconds of the start, of the session's first checkpoint, or while a
# checkpoint is being written.
MOMENTS = ("start", "training", "training", "writing")
LONGEST = 1.5


def copy_that_trains(folder: Path, arguments: list[str], prepare: Callable[[], None]) -> int:
    """The number of a copy of this process that runs train.py in a folder, which has its log."""
    child = os.fork()
    if child:
        return child
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    sys.argv = [str(TRAIN), *arguments]
    code = 1
    try:
        prepare()
        runpy.run_path(str(TRAIN), run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def attempt(
    folder: Path, arguments: list[str], moment: str = "", seconds: float = 0, write: int = 0
) -> int:
    """The exit code of train.py, or minus the signal that ended it, at that moment or write."""
    begun = time.time()

    def prepare() -> None:
        if write:
            die_at_write(folder / "killed", write)

    child = copy_that_trains(folder, arguments, prepare)
    deadline = begun + seconds if moment == "start" else None
    while deadline is None or time.time() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if moment == "training" and deadline is None and written(folder, "last.ckpt", begun):
            deadline = time.time() + seconds
        if moment == "writing" and written(folder, ".*.ckpt.*", begun):
            break
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if written(folder, ".*.ckpt.*", begun):
        found["while a checkpoint was written"] += 1
    return code


def kill_at_each_write(folder: Path) -> int:
    """Kills runs before each time that they open, make, rename or remove something in their folder.

    The same command or a resume has to bring each to its end. Returns how many were killed.
    """
    assert gan_zoo.train.train
    torch.set_num_threads(1)
    arguments = [*SHORTEST, "hydra.run.dir=killed"]
    assert attempt(folder, [*SHORTEST, "hydra.run.dir=straight"]) == 0
    number = 0
    while True:
        run = folder / "killed"
        shutil.rmtree(run, ignore_errors=True)
        number += 1
        code = attempt(folder, arguments, write=number)
        if code == 0:
            return number - 1
        assert code == -signal.SIGKILL, (folder / "log").read_text()
        begun = (run / ".hydra" / "config.yaml").exists()
        code = attempt(folder, ["resume=killed"] if begun else arguments)
        assert code == 0, (folder / "log").read_text()
        assert_same_end(run, folder / "straight")


def die_at_write(folder: Path, number: int) -> None:
    """Ends this process by SIGKILL at that many changes within the folder."""
    left = number

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if changed(event, arguments).startswith(str(folder)):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def changed(event: str, arguments: tuple[Any, ...]) -> str:
    """The path that an audit event of Python's is about to change; "" for other events."""
    if event in ("os.mkdir", "os.rename", "os.link", "os.remove"):
        changes = True
    else:
        flags = arguments[2] if event == "open" else 0
        changes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    if not changes or isinstance(arguments[0], int):
        return ""
    return os.path.abspath(os.fsdecode(arguments[0]))


def written(folder: Path, pattern: str, since: float) -> bool:
    """Whether the run has such a file of that time or later among its checkpoints."""
    for file in (folder / "killed" / "checkpoints").glob(pattern):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime > since:
                return True
    return False


def main(folder: Path, kills: int, seed: int) -> None:
    assert gan_zoo.train.train
    torch.set_num_threads(1)
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    assert attempt(folder, [*OPTIONS, "hydra.run.dir=straight"]) == 0
    while found["kills"] < kills:
        run = folder / "killed"
        shutil.rmtree(run, ignore_errors=True)
        arguments = [*OPTIONS, "hydra.run.dir=killed"]
        while True:
            moment = draw.choice(MOMENTS) if found["kills"] < kills else ""
            code = attempt(folder, arguments, moment, draw.uniform(0, LONGEST))
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise SystemExit(f"train.py ended with {code}: {(folder / 'log').read_text()}")
            found["kills"] += 1
            if (run / ".hydra" / "config.yaml").exists():
                arguments = ["resume=killed"]
        found["runs"] += 1
        assert_same_end(run, folder / "straight")


found = {"kills": 0, "while a checkpoint was written": 0, "runs": 0}
if __name__ == "__main__":
    rest = [int(number) for number in sys.argv[2:]]
    if rest[0]:
        main(Path(sys.argv[1]), rest[0], rest[1] if len(rest) > 1 else 0)
    else:
        found["kills"] = kill_at_each_write(Path(sys.argv[1]))
    print(json.dumps(found))
