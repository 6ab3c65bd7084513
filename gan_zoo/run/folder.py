"""A run's folder: who may write to it, what is saved there, and what is left when a run ends."""

import errno
import functools
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread

from gan_zoo.console import keep, say
from gan_zoo.run.configuration import looking_in, names_in, to_paste
from gan_zoo.training.checkpoints import DamagedCheckpoint, model_of, numbered, read_checkpoint

log = logging.getLogger(__name__)

RUNS = Path("runs")
LOCK_FILE = ".lock"
# Of a write, as Python says it without the file's name.
_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO)
_SIGNALS = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class NewFolder(Callback):
    """Hydra's callback in conf/hydra, which is called before a run."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if _is_typed(config.hydra) or _begun_by_another():
            return
        # Of an error Hydra would only warn here; the run that begins then raises it again.
        with suppress(Exception), looking_in(config), read_write(config.hydra.run):
            config.hydra.run.dir = str(new_folder(Path(config.hydra.run.dir)))


def refuse_folders_apart(hydra: Any) -> None:
    """Raises ValueError where torchrun or srun has begun processes that each name a folder."""
    if _begun_by_another() and not _is_typed(hydra):
        raise ValueError(
            "Several processes of one run were started together, each of which would make a folder "
            "of its own: give hydra.run.dir=FOLDER, which is then the same for all."
        )


def _is_typed(hydra: Any) -> bool:
    return any(re.match(r"\+*hydra\.run\.dir=", o) for o in hydra.overrides.hydra)


def _begun_by_another() -> bool:
    """Whether this is one of several processes that torchrun or srun has started."""
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    return by_torchrun or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def new_folder(path: Path) -> Path:
    """Makes a folder of that name, or with a number after it where another run has it."""
    for n in count(1):
        folder = path if n == 1 else path.with_name(f"{path.name}-{n}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not os.path.lexists(folder):
                raise
        else:
            return folder
    raise AssertionError


class RunFolder:
    """The folder of a run, for one session, which may resume the run that is there.

    ``log_name`` is the file that Hydra has begun there; ``swept`` says that the run is a sweep's
    job, and that the sweep's command goes on with it. ``first_process`` says whether this process
    is the one that writes; ``trainer`` is set once there is one.
    """

    def __init__(self, path: Path, resumed: bool, log_name: str, swept: bool = False) -> None:
        self.path = path
        self.resumed = resumed
        self.swept = swept
        self.first_process = os.environ.get("LOCAL_RANK", "0") == "0"
        self.trainer: pl.Trainer | None = None
        self._is_new = {file.name for file in path.iterdir()} <= {LOCK_FILE, log_name}

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keeps other runs out of the folder, and leaves it in order however the run ends.

        A run that is interrupted says how it is resumed. The folder of a new run that fails before
        its first iteration is removed.

        Raises:
            ValueError: if another run is writing there, or a new one would mix with what is there.
            SystemExit: after Ctrl-C or SIGTERM, with 128 and the signal's number.
        """
        lock = self._locked() if self.first_process else None
        try:
            with _failing_logs_told_once(), _warnings_kept():
                yield
        except (KeyboardInterrupt, SystemExit) as interruption:
            if not self.first_process:
                # What ends the first process ends the others; they have nothing to add.
                raise SystemExit(0) from interruption
            if saved_in(self.path) and not self.swept:
                say(f"Interrupted. Resume with: {self.resume_command}")
            elif self._is_new and not saved_in(self.path):
                self.remove()
            code = getattr(interruption, "code", None)
            # Lightning itself exits with 1 on Ctrl-C.
            raise SystemExit(code if code in _SIGNALS else _SIGNALS[0]) from interruption
        except Exception as raised:
            error = self._named(raised)
            if self.first_process:
                self._keep_or_remove(error)
            if error is raised:
                raise
            raise error from raised
        finally:
            if lock:
                lock.release()

    def _keep_or_remove(self, error: Exception) -> None:
        if self.trainer and saved_in(self.path):
            # A run that diverged would diverge again.
            error.add_note(
                f"The last good checkpoint is {shown(saved_in(self.path)[0])}."
                if isinstance(error, ArithmeticError)
                else f"What was saved is kept. Resume with: {self.resume_command}"
            )
        elif self._is_new and (self.trainer is None or self.trainer.global_step == 0):
            self.remove()

    def _named(self, error: Exception) -> Exception:
        """An error that comes of a write to a file without a name, with the folder's."""
        cause: BaseException | None = error
        while cause and getattr(cause, "filename", None) is None:
            if isinstance(cause, OSError) and cause.errno in _UNWRITTEN:
                return OSError(cause.errno, cause.strerror, shown(self.path))
            cause = cause.__cause__ or cause.__context__
        return error

    def remove(self) -> None:
        """Removes the folder, and lets go of the logs in it."""
        for logger in self.trainer.loggers if self.trainer else ():
            # Its thread would write there again.
            with suppress(OSError):
                logger.finalize("failed")
        logging.shutdown()
        remove_folder(self.path)

    @property
    def resume_command(self) -> str:
        """What resumes the run."""
        return f"{this_command()} {to_paste('resume', shown(self.path))}"

    def _locked(self) -> FileLock:
        # Without its configuration nothing has been trained.
        marks = (Path(".hydra", "config.yaml"), "checkpoints")
        holds_a_run = any((self.path / mark).exists() for mark in marks)
        # Loader processes of a killed run hold its lock until they notice that it has gone.
        lock = FileLock(self.path / LOCK_FILE, timeout=10 if self.resumed else 0)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(
                f"'{shown(self.path)}' is in use by another run: wait for its end, or give another "
                "hydra.run.dir."
            ) from None
        if holds_a_run and not self.resumed:
            lock.release()
            raise ValueError(
                f"'{shown(self.path)}' holds a run already: "
                f"{to_paste('resume', shown(self.path))} resumes it, another hydra.run.dir begins "
                "a new one."
            )
        return lock


@contextmanager
def _failing_logs_told_once() -> Iterator[None]:
    """Has what can't be logged end the run, without a traceback of its own."""

    def raise_named(handler: logging.FileHandler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            return logging.Handler.handleError(handler, record)
        raise OSError(error.errno, error.strerror, shown(Path(handler.baseFilename))) from error

    def tell_of_thread(failure: threading.ExceptHookArgs) -> None:
        # tensorboard raises its thread's error in the main thread too.
        if not isinstance(failure.thread, _AsyncWriterThread):
            before(failure)

    handlers = [h for h in logging.root.handlers if isinstance(h, logging.FileHandler)]
    for handler in handlers:
        vars(handler)["handleError"] = functools.partial(raise_named, handler)
    before, threading.excepthook = threading.excepthook, tell_of_thread
    try:
        yield
    finally:
        threading.excepthook = before
        for handler in handlers:
            del vars(handler)["handleError"]


@contextmanager
def _warnings_kept() -> Iterator[None]:
    """Has the log keep the warnings of libraries, which go to the terminal."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        before(message, category, *where, **more)
        keep(f"{category.__name__}: {message}", logging.WARNING)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def remove_folder(path: Path) -> None:
    """Removes a folder, and those around it within the working folder that are empty then."""
    shutil.rmtree(path, ignore_errors=True)
    if path.absolute().is_relative_to(Path.cwd()):
        with suppress(OSError):
            os.removedirs(os.path.relpath(path.parent))


def saved_in(folder: str | Path) -> list[Path]:
    """A run folder's checkpoints to resume from, the latest first."""
    checkpoints = Path(folder) / "checkpoints"
    files = (checkpoints / "last.ckpt", *reversed(numbered(checkpoints)))
    return [file for file in files if file.is_file()]


def latest_run(needs: str) -> Path:
    """The run below ``runs`` that was last written, those of sweeps included.

    Args:
        needs: what it has to have, "checkpoints" or ".hydra".

    Raises:
        ValueError: if there is none.
    """
    written: dict[Path, int] = {}
    for place, folders, _ in os.walk(RUNS):
        run = Path(place)
        files = [*run.glob(".hydra/config.yaml"), *run.glob("checkpoints/*.ckpt")]
        if any(file.parent.name == needs for file in files):
            written[run] = max(file.stat().st_mtime_ns for file in files)
        if files:
            folders.clear()
    if not written:
        what = "checkpoint" if needs == "checkpoints" else "run"
        raise ValueError(f"There is no {what} below '{RUNS}' here, so none is the latest.")
    return max(written, key=lambda run: (written[run], run))


def find_checkpoint(
    path: str | Path, which: Literal["last", "best"] = "last"
) -> tuple[Path, dict[str, Any]]:
    """The file that a path means, and the checkpoint in it, on the CPU.

    Args:
        path: a checkpoint, or a run's folder.
        which: of a folder, "last" for its latest checkpoint that is whole (damaged ones are warned
            of), or "best" for its best.ckpt.

    Raises:
        ValueError: if there is none, if it is not one of this project's checkpoints, is damaged, or
            holds what would run code.
    """
    path = Path(path)
    if which == "best":
        if path.is_file():
            raise ValueError(f"which=best chooses in a run's folder, and '{path}' is a file.")
        best = path / "checkpoints" / "best.ckpt"
        if not best.is_file():
            raise ValueError(
                f"There is no '{best}': the run was not measured (callbacks.metrics). which=last "
                "takes its last checkpoint."
            )
        return best, read_checkpoint(best)
    files = saved_in(path) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        path = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
        raise ValueError(
            f"There is no checkpoint '{path}': give a run's folder (RUN_FOLDER), or a file in its "
            "folder checkpoints."
        )
    damages: list[DamagedCheckpoint] = []
    for file in files:
        try:
            checkpoint = read_checkpoint(file)
        except DamagedCheckpoint as error:
            damages.append(error)
            continue
        for damage in damages:
            log.warning("%s '%s' is taken instead.", damage, file)
        return file, checkpoint
    if path.is_dir():
        raise DamagedCheckpoint(
            f"{damages[0]} No other checkpoint there is whole: the run has to begin again."
        )
    raise DamagedCheckpoint(
        f"{damages[0]} A run's folder in its place takes its latest checkpoint that is whole."
    )


def run_of(checkpoint: Path) -> Path:
    """The folder of a checkpoint's run; of one that is kept elsewhere, the folder it is in."""
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder


def opened(config: DictConfig) -> tuple[Path, dict[str, Any], Any]:
    """A command's checkpoint: its path, its content and its model."""
    if not config.checkpoint:
        raise ValueError("checkpoint is empty: give checkpoint=RUN_FOLDER.")
    path, checkpoint = find_checkpoint(str(config.checkpoint), config.which)
    return path, checkpoint, model_of(checkpoint, names_in(config.trust))


def look(folder: Path) -> str:
    """How to look at runs: all their pictures, where TensorBoard by default drops most."""
    place = shlex.quote(shown(folder))
    return f"Look    tensorboard --logdir {place} --samples_per_plugin images=1000"


def this_command() -> str:
    """This command without its arguments, as it was begun."""
    return command_of(Path(sys.argv[0]))


def command_of(script: Path) -> str:
    """How people begin a script, or what is installed."""
    if script.name.startswith("gan-zoo-"):
        return f"gan-zoo {script.name.removeprefix('gan-zoo-')}"
    return f"python {shlex.quote(shown(script))}"


def shown(path: Path) -> str:
    """A path as it is shortest to type from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
