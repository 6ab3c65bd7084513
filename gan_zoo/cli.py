"""Runs a task under Hydra and says in a sentence what went wrong."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from yaml import YAMLError

from gan_zoo.data import InMemoryDataModule

_FULL_ERROR = "HYDRA_FULL_ERROR"
# What Lightning and torch warn of though it is meant so here.
_KNOWN_WARNINGS = (
    ".*LeafSpec.*is deprecated",
    ".*does not have many workers",
    ".*Total length of `list` across ranks is zero",
    ".*Checkpoint directory .* exists and is not empty",
    ".*ModelCheckpoint with manual optimization and every_n_train_steps",
    ".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`",
    # Ours goes on at the iteration that the run has come to.
    ".*your dataloader is not resumable",
    ".*number of training batches .* is smaller than the logging interval",
    ".*Initializing zero-element tensors is a no-op",
)
_LABEL_LENGTH = 80

Task = Callable[[DictConfig], object]


class _Failed(BaseException):
    """Takes a task's error past Hydra, which would print the overrides, ours among them."""


def main(task: Task, config_dir: Path, config_name: str) -> int:
    """Composes the configuration from the command line and runs the task with it.

    Args:
        task: called with the composed configuration, once a job in a multirun.
        config_dir: folder of the configuration files.
        config_name: the primary one, without its ending.

    Returns:
        0, or 1 after an error, which is printed in a line or two; HYDRA_FULL_ERROR=1 in the
        environment raises it instead.
    """
    full_error = os.environ.get(_FULL_ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in _KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message)
    run = hydra.main(version_base="1.3", config_path=str(config_dir), config_name=config_name)
    sweeps: set[Path] = set()

    # Hydra names the job, and its log, by the task.
    @functools.wraps(task)
    def noted(config: DictConfig) -> object:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            sweeps.add(Path(HydraConfig.get().sweep.dir))
        try:
            return task(config)
        except Exception as error:
            raise _Failed(error) from error

    try:
        sys.argv[1:] = _resumed(sys.argv[1:], config_dir, config_name)
        # Hydra raises what it would print itself; the task, and what it starts, see what the user
        # set.
        with _environment(_FULL_ERROR, "1"):
            run(_environment(_FULL_ERROR, full_error)(noted))()
    except KeyboardInterrupt:
        return 130
    except (_Failed, Exception) as raised:
        error: Exception = raised.args[0] if isinstance(raised, _Failed) else raised
        for folder in sweeps:
            # Hydra's own file alone: no job has left anything.
            if [file.name for file in folder.rglob("*") if file.is_file()] == ["multirun.yaml"]:
                shutil.rmtree(folder)
        if full_error == "1":
            raise error from error.__cause__
        notes = getattr(error, "__notes__", [])
        print(
            f"error: {_explain(error, config_dir, config_name)}", *notes, sep="\n", file=sys.stderr
        )
        return 1
    return 0


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    def put(value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    before = os.environ.get(name)
    put(value)
    try:
        yield
    finally:
        put(before)


def _resumed(arguments: list[str], config_dir: Path, config_name: str) -> list[str]:
    """Turns ``resume=RUN_FOLDER`` into that run's own configuration, in that folder."""
    resumes = [a.removeprefix("resume=") for a in arguments if a.startswith("resume=")]
    rest = [a for a in arguments if not a.startswith("resume=")]
    # Lightning has started this process, for a run that was resumed already.
    if "--config-path" in arguments or not resumes or resumes[-1] in ("", "null"):
        return rest
    folder = Path(resumes[-1].strip("'\"")).resolve()
    try:
        text = (folder / ".hydra" / "config.yaml").read_text()
        saved = OmegaConf.create(text)
    except (OSError, YAMLError, UnicodeDecodeError):
        raise ValueError(f"resume={resumes[-1]}: that is not the folder of a run.") from None
    keys = {str(key) for key in saved} if OmegaConf.is_dict(saved) else set()
    # What Hydra reads of these could run code before anybody has looked at it.
    if "model" not in keys or keys & {"hydra", "defaults"} or "@package" in text:
        raise ValueError(f"resume={resumes[-1]}: its .hydra/config.yaml is not as a run leaves it.")
    if {"-m", "--multirun"} & set(rest):
        raise ValueError("resume goes on with one run: leave -m out.")
    for argument in rest:
        if (config_dir / argument.partition("=")[0].partition("@")[0]).is_dir():
            raise ValueError(
                f"resume goes on with the run's own configuration, which {argument} would replace; "
                "change single options instead, such as trainer.max_steps."
            )
    # Options of which the version that began the run knew nothing.
    primary = OmegaConf.to_container(OmegaConf.load(config_dir / f"{config_name}.yaml"))
    new = {k: v for k, v in primary.items() if k not in (*keys, "hydra", "defaults")}  # type: ignore[union-attr]
    return [
        *("--config-path", str(folder / ".hydra"), "--config-name", "config"),
        *(f"++{k}={json.dumps(v)}" for k, v in dotted(new) if not isinstance(v, dict)),
        # Not what the folder itself says is to be trusted.
        "++trust=[]",
        *(f"++{a}" if a.startswith(("resume.", "trust=")) else a for a in rest),
        f"++resume.folder='{folder}'",
        f"hydra.run.dir='{folder}'",
        "hydra.output_subdir=null",
    ]


def names_in(option: Any) -> list[str]:
    """An option that is a name, a list of such, or null."""
    return [str(name) for name in ([option] if isinstance(option, str) else option or [])]


@functools.cache
def _available(kind: type[InMemoryDataModule], name: str, root: str, when_unavailable: str) -> str:
    return kind.available(name, root, when_unavailable)


def dataset_name(dataset: DictConfig) -> str:
    """The name of what a run with this configuration will train on; looked up once a process."""
    # Pictures of one's own need no root yet: that it is missing is said where it is read.
    root = "" if OmegaConf.is_missing(dataset, "root") else str(dataset.get("root", ""))
    kind = get_class(dataset._target_)
    return _available(kind, dataset.name, root, dataset.get("when_unavailable", "error"))


def dataset_title(dataset: DictConfig) -> str:
    """What a run calls that: its name, and the task where two domains are made from it."""
    return "_".join(filter(None, (dataset_name(dataset), dataset.get("task"))))


def _run_label(overrides: ListConfig, dataset: DictConfig) -> str:
    """A job's overrides as part of a folder's name that needs no quoting."""
    words = [re.sub(r"[^\w.+-]+", "-", override).strip("-") for override in overrides]
    if dataset_name(dataset) != dataset.name:
        words.append(dataset_title(dataset))
    return "_".join(words)[:_LABEL_LENGTH].rstrip("-_.") or "default"


OmegaConf.register_new_resolver("available", dataset_title)
OmegaConf.register_new_resolver("run_label", _run_label)


def _explain(error: Exception, config_dir: Path, config_name: str) -> str:
    # What was being built.
    where = ""
    while isinstance(error, (InstantiationException, InterpolationResolutionError)):
        key = re.search(r"full_key: (\S+)", str(error))
        if key and isinstance(error, InstantiationException):
            where = key.group(1)
        inner = error.__cause__ or error.__context__
        if not isinstance(inner, Exception):
            break
        error = inner
    if "configure handler" in str(error) and isinstance(error.__cause__, OSError):
        # The run's log, in a folder that can't be written to.
        error = error.__cause__
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"There is no {group} '{choice}'{_nearest(choice, error.options)}"
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not an override such as model=cgan or trainer.max_steps=100."
    if isinstance(error, ConfigCompositionException):
        return _explain_override(text, config_dir, config_name)
    if isinstance(error, MissingMandatoryValue):
        key = re.search(r"full_key: (\S+)|value: (\S+)", text)
        name = next((part for part in key.groups() if part), "") if key else ""
        return f"{name} is missing: give {name}=..." if name else text
    if isinstance(error, MisconfigurationException) or (
        where and isinstance(error, (TypeError, RuntimeError, ArithmeticError, MemoryError))
    ):
        return f"{where}: {text}" if where else text
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.filename is not None:
        return f"'{error.filename}' can't be a folder, a file is in its way: name another place."
    if isinstance(error, IsADirectoryError) and error.filename is not None:
        return f"'{error.filename}' is a folder, and a file is wanted there: name another place."
    if isinstance(error, OSError) and error.filename is not None:
        return f"'{error.filename}': {error.strerror}."
    if isinstance(error, (ValueError, RuntimeError, ArithmeticError)) and text:
        return text
    return f"{type(error).__name__}: {text}"


def _explain_override(text: str, config_dir: Path, config_name: str) -> str:
    key = re.search(r"Could not (?:override|delete[^']*|append[^']*) '([^']+)'", text)
    if key is None:
        return text
    known = _known_keys(config_dir, config_name)
    return f"There is no option '{key.group(1)}'{_nearest(key.group(1), known)}"


def _known_keys(config_dir: Path, config_name: str) -> list[str]:
    """Every group and dotted key of the configuration, with the groups that were chosen."""

    def composed(overrides: list[str]) -> DictConfig:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_dir), version_base="1.3"):
            return compose(config_name, overrides=overrides, return_hydra_config=True)

    groups = [g for g in composed([]).hydra.runtime.choices if not str(g).startswith("hydra/")]
    chosen = [
        argument.partition(",")[0]
        for argument in sys.argv[1:]
        if argument.partition("=")[0] in groups
    ]
    keys = dotted(OmegaConf.to_container(composed(chosen), resolve=False))
    return [*map(str, groups), *(key for key, _ in keys if key.partition(".")[0] != "hydra")]


def dotted(node: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested dicts, dotted, with its value."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}", value
            yield from dotted(value, f"{prefix}{key}.")


def _nearest(unknown: str, known: Sequence[str]) -> str:
    last = unknown.rpartition(".")[2]
    near = [key for key in known if key.rpartition(".")[2] == last]
    near = near or get_close_matches(unknown, known, n=1, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near[:3])}?" if near else "."
    if len(known) <= 20:
        hint += f" There are: {', '.join(sorted(known))}."
    return hint
