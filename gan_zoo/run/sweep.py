"""A sweep: what its jobs are named by, and which of them failed."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from gan_zoo.files import atomic_write
from gan_zoo.run.configuration import constant_overrides
from gan_zoo.run.folder import remove_folder

# In the folder of a job that failed.
REASON_FILE = "error.txt"


class Sweep(Callback):
    """Hydra's callback in conf/hydra, which is called before the first job.

    Attributes:
        folder: of the sweep that this process runs; None where there is none.
    """

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Sweep.folder = Path(config.hydra.sweep.dir)
        constant = ",".join(f"'{key}'" for key in constant_overrides(config.hydra.overrides.task))
        # Each job is composed with these overrides again.
        overrides = config.hydra.overrides.hydra
        with read_write(overrides):
            overrides.append(f"hydra.job.config.override_dirname.exclude_keys=[{constant}]")


def write_reason(folder: Path, reason: str) -> None:
    """Leaves the reason why a job failed in its folder."""
    with atomic_write(folder / REASON_FILE) as aside:
        aside.write_text(f"{reason}\n")


def failures() -> str:
    """The jobs of the sweep that failed, a line each; "" where none did, or there is no sweep.

    A sweep of which nothing else is left is removed.
    """
    if Sweep.folder is None:
        return ""
    jobs = [path for path in Sweep.folder.glob("*") if path.is_dir()]
    # By number.
    jobs.sort(key=lambda job: (len(job.name.partition("-")[0]), job.name))
    reasons = [(job.name, job / REASON_FILE) for job in jobs if (job / REASON_FILE).is_file()]
    lines = [f"{name}: {' '.join(file.read_text().split())}" for name, file in reasons]
    files = {path.name for path in Sweep.folder.rglob("*") if path.is_file()}
    if files <= {REASON_FILE, "multirun.yaml"}:
        remove_folder(Sweep.folder)
    return "\n  ".join([f"{len(lines)} of {len(jobs)} jobs failed:", *lines]) if lines else ""
