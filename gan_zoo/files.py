"""Where this package's files are; files written whole or not at all, and read though damaged."""

import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parent
# Next to the package in a checkout, inside it when installed from a wheel.
CONFIG_DIR = next(
    (place for place in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if place.is_dir()),
    _PACKAGE / "conf",
)


def cache_dir() -> Path:
    """The folder of evaluators, floors and text encoders, which are made once and kept.

    ~/.cache/gan_zoo, or what the environment variable GAN_ZOO_CACHE_DIR names.
    """
    return Path(os.environ.get("GAN_ZOO_CACHE_DIR") or "~/.cache/gan_zoo").expanduser()


@contextmanager
def made_by_one(file: Path) -> Iterator[None]:
    """Has one process make a file that is to be kept; others wait for it here.

    So that a sweep's jobs do not all do the same work, each looks for the file within. Nobody waits
    where it is there at the start.

    Args:
        file: of several, the one that is written last.
    """
    if file.is_file():
        yield
        return
    with one_at_a_time(file):
        yield


@contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Has others that want to write the file wait here; nobody waits where it can't be locked."""
    lock = FileLock(file.with_name(f".{file.name}.lock"))
    with ExitStack() as held:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(lock.acquire(blocking=False))
            except Timeout:
                log.info("Another process writes '%s': this one waits for it.", file)
                held.enter_context(lock)
            held.callback(_remove, Path(lock.lock_file))
        except (OSError, NotImplementedError):
            log.debug("'%s' can't be locked.", file, exc_info=True)
        yield


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """A place beside the file to write to, which takes the file's once nothing has failed.

    What is written is on the disk before it takes the place, so that neither the end of the process
    nor that of the machine leaves a part of it.

    OSError where it can't be written; what the file held is still there.
    """
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        _sync(aside)
        os.replace(aside, file)
        with suppress(OSError):
            # Some systems know no sync of a folder.
            _sync(file.parent)
    except OSError as error:
        if error.filename in (None, str(aside), aside):
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise
    finally:
        _remove(aside)


def remove_partial_files(folder: Path) -> None:
    """Takes away what ``atomic_write`` left there when its process was killed."""
    for aside in folder.glob(".*." + 8 * "[0-9a-f]"):
        aside.unlink(missing_ok=True)


def link(file: Path, name: Path) -> None:
    """Has ``name`` be the file too, whatever it was; a copy where there are no links."""
    with atomic_write(name) as aside:
        try:
            os.link(file, aside)
        except OSError:
            aside.write_bytes(file.read_bytes())


def read_json(file: Path, kind: type) -> Any:
    """What a JSON file holds, or an empty ``kind`` if there is none.

    A file that is damaged, or holds something else, is renamed to ``*.damaged`` with a warning.
    """
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return kind()
    except ValueError:
        found = None
    if isinstance(found, kind):
        return found
    damaged = file.with_name(f"{file.name}.damaged")
    file.replace(damaged)
    log.warning("'%s' is damaged: it is kept as '%s' and begun anew.", file, damaged.name)
    return kind()


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
