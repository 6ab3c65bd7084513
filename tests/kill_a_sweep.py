"""Ends sweeps at random moments until they are over, and compares their end.

``python tests/kill_a_sweep.py FOLDER KILLS SHARE OPTION ...`` prints what it came to as JSON. Four
of five kills come after the jobs have begun, the others from the start of the command, within this
share of the time that an undisturbed sweep takes: 1, or less where many kills are to meet the same
sweep. Sweeps begin as copies of this process, which has loaded torch.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gan_zoo.cli
import gan_zoo.compare
import gan_zoo.train
from tests.kill_and_resume import copy_that_trains
from tests.same_end import assert_same_end

STEPS = 40
OPTIONS = (
    "-m", "model=gan", "dataset=digits", "trainer=cpu", f"trainer.max_steps={STEPS}",
    "trainer.log_every_n_steps=5", "callbacks.checkpoint.every_n_train_steps=4",
    "callbacks.sample_grid.every_n_steps=20", "callbacks.metrics.metrics=[fid]",
    "callbacks.metrics.every_n_steps=20", "callbacks.metrics.num_samples=20",
)  # fmt: skip
ENDED = {-signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGINT}


def attempt(
    folder: Path,
    arguments: list[str],
    number: int = 0,
    seconds: float = 0,
    at_work: bool = False,
) -> int:
    """The exit code of train.py, or minus the signal that ended it, so many seconds after.

    They count from its start, or from that of its jobs.
    """
    log = folder / "log"
    log.write_text("")
    begun = None if at_work else time.time()
    child = copy_that_trains(folder, arguments, os.setsid)
    while not number or begun is None or time.time() < begun + seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if begun is None and "aunching" in log.read_text():
            begun = time.time()
        time.sleep(0.002 if begun else 0.05)
    # As a terminal's Ctrl-C it reaches all processes; other signals are for the sweep's.
    with suppress(ProcessLookupError):
        (os.killpg if number == signal.SIGINT else os.kill)(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def finished(sweep: Path) -> dict[str, int]:
    """Job -> when the result was written of those that are over."""
    return {
        job.name: (job / "metrics.json").stat().st_mtime_ns
        for job in sweep.glob("[!.]*")
        if (job / "metrics.json").is_file()
        and (job / "checkpoints" / f"step-{STEPS:06d}.ckpt").is_file()
        and (job / "checkpoints" / "last.ckpt").samefile(
            job / "checkpoints" / f"step-{STEPS:06d}.ckpt"
        )
    }  # fmt: skip


def leaderboards(sweep: Path) -> tuple[list[list[str]], list[list[str]]]:
    """The cells of leaderboard.csv and leaderboard.md, but for how long runs took."""
    with (sweep / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    told = (sweep / "leaderboard.md").read_text().splitlines()
    lines = [line.split(" | ") for line in told if line.startswith("|")]
    for table in (rows, lines):
        place = next(i for i, name in enumerate(table[0]) if "seconds" in name)
        for line in table:
            del line[place]
    return rows, [*lines, [line for line in told if not line.startswith("|")]]


def assert_same_sweep(sweep: Path, straight: Path) -> None:
    names = sorted(job.name for job in straight.glob("[!.]*") if job.is_dir())
    assert sorted(job.name for job in sweep.glob("[!.]*") if job.is_dir()) == names
    for name in names:
        job, other = sweep / name, straight / name
        if (other / "error.txt").is_file():
            assert (job / "error.txt").read_text() == (other / "error.txt").read_text()
        else:
            assert not (job / "error.txt").exists()
            assert_same_end(job, other)
    assert leaderboards(sweep) == leaderboards(straight)


def main(folder: Path, kills: int, share: float, options: list[str]) -> dict[str, int]:
    """How many ends of which kind there were, of a sweep of which a job fails.

    The last sweep was not disturbed.
    """
    assert gan_zoo.cli.main
    assert gan_zoo.train.train
    assert gan_zoo.compare.write_leaderboard
    torch.set_num_threads(1)
    draw = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    command = [*OPTIONS, *options]
    assert attempt(folder, [*command, "hydra.sweep.dir=straight"]) == 1, (
        folder / "log"
    ).read_text()
    longest = time.time() - begun
    found = {"kills": 0, "sweeps": 0, "jobs finished before": 0}
    while found["kills"] < kills:
        sweep = folder / f"sweep-{found['sweeps']}"
        before: dict[str, int] = {}
        while True:
            kind = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            number = kind if found["kills"] < kills else 0
            moment = draw.uniform(0, share * longest)
            at_work = draw.random() < 0.8
            begun = time.time()
            code = attempt(
                folder, [*command, f"hydra.sweep.dir={sweep.name}"], number, moment, at_work
            )
            if code == 1 and not before:
                # The first one had an evaluator to train.
                longest = min(longest, time.time() - begun)
            now = finished(sweep)
            # What was finished stays so, and is not done again.
            assert before.items() <= now.items()
            found["jobs finished before"] += len(before)
            before = now
            if code == 1:
                break
            assert code in ENDED, f"train.py ended with {code}: {(folder / 'log').read_text()}"
            found["kills"] += 1
        found["sweeps"] += 1
        assert_same_sweep(sweep, folder / "straight")
    return found


if __name__ == "__main__":
    place, number_of_kills, share_of_time, *given = sys.argv[1:]
    print(json.dumps(main(Path(place), int(number_of_kills), float(share_of_time), given)))
