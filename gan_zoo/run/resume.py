"""Resuming: a run's own configuration, what the command line changes of it, and what it may."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gan_zoo.console import works
from gan_zoo.files import CONFIG_DIR
from gan_zoo.run.configuration import (
    argument_of,
    dotted,
    in_quotes,
    leader_of,
    names_in,
    text_of,
)
from gan_zoo.run.errors import nearest
from gan_zoo.run.folder import find_checkpoint, latest_run, saved_in
from gan_zoo.training.untrusted import vouched

# Beside the resolved configuration: option -> the option that it takes its value from.
FOLLOWS_FILE = "follows.yaml"
# Not of the run, but of this session.
_OF_A_SESSION = ("resume", "trust", "init_from", "paths", "print_config")
_LARGEST_FILE = 10**6


# Option -> what the run that its value "latest" means has to have.
_LATEST = {"resume": ".hydra", "checkpoint": "checkpoints", "init_from": "checkpoints"}


def with_latest(arguments: Sequence[str]) -> list[str]:
    """A command line in which a run takes the place of ``latest``, and is named to the user.

    Raises:
        ValueError: if there is no run.
    """
    if Path("latest").exists():
        return list(arguments)
    found = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if value == "latest" and key in _LATEST:
            try:
                run = latest_run(_LATEST[key])
            except ValueError as error:
                raise ValueError(f"{argument}: {error} Give {key}=RUN_FOLDER.") from None
            if works(arguments):
                print(f"{argument} is {run}", flush=True)
            argument = argument_of(key, str(run))
        found.append(argument)
    return found


class Resumed(NamedTuple):
    """A run to resume.

    Attributes:
        folder: the run's.
        overrides: of its options, as typed.
    """

    folder: Path
    overrides: list[str]


def resumed(arguments: Sequence[str]) -> tuple[list[str], Resumed | None]:
    """Takes ``resume=RUN_FOLDER``, and the run's options with it, out of a command line.

    Returns:
        what is left for Hydra, and what the run is resumed with; None if nothing is resumed.

    Raises:
        ValueError: if it is no run's folder, leads out of itself, or the other arguments can't go
            with it.
    """
    typed = [text_of(a) for a in arguments if a.startswith("resume=")]
    rest = [a for a in arguments if not a.startswith("resume=")]
    for argument in rest:
        if argument.lstrip("+").startswith("resume.folder="):
            raise ValueError(f"{argument}: a run is resumed by resume=RUN_FOLDER.")
    if not typed or typed[-1] in ("", "null"):
        return rest, None
    folder = Path(typed[-1]).resolve()
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise ValueError(f"resume={typed[-1]}: that is not the folder of a run.")
    if "${" in str(folder):
        raise ValueError(f"resume={typed[-1]}: Hydra would look up what is in its name; rename it.")
    refuse_ways_out(folder)
    if {"-m", "--multirun"} & set(rest):
        raise ValueError("resume takes one run: leave -m out.")
    for argument in rest:
        elsewhere = argument.startswith("hydra.run.dir=") and text_of(argument)
        if elsewhere and Path(elsewhere).resolve() != folder:
            raise ValueError(f"{argument}: a run is resumed in its own folder; leave it out.")
        if (CONFIG_DIR / argument.partition("=")[0].partition("@")[0]).is_dir():
            raise ValueError(
                f"A run is resumed with its own configuration, which {argument} would replace; "
                "change single options instead, such as trainer.max_steps."
            )
    quoted = in_quotes(str(folder))
    own = re.compile(r"-|\+*(hydra[./]|paths\.|trust=|print_config=|resume\.)")
    return [
        *(a for a in rest if own.match(a)),
        *(f"hydra.run.dir={quoted}", "hydra.output_subdir=null", f"resume.folder={quoted}"),
    ], Resumed(folder, [a for a in rest if not own.match(a)])


def refuse_ways_out(folder: Path) -> None:
    """Raises ValueError for a link in a run's folder that leads out of it, and what is no file."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            inside = path.resolve().is_relative_to(folder)
            if not inside or not (path.is_dir() or path.is_file() or path.is_symlink()):
                raise ValueError(
                    f"'{path}' is not a file of this run: it leads to '{path.resolve()}'. Nothing "
                    "is written there; remove it to resume the run."
                )


def resumed_configuration(session: DictConfig, run: Resumed) -> DictConfig:
    """A run's own configuration, with this session's paths and trust, and what was typed.

    Args:
        session: conf/train.yaml, composed with what the command line says of this session.
        run: to resume.

    Raises:
        ValueError: if the folder's configuration is not as train.py writes it, or would run code;
            or if there is no such option.
    """
    saved = _read(run.folder / ".hydra" / "config.yaml")
    plain = vouched(saved, "The run's configuration", names_in(session.trust))
    if "model" not in plain or "hydra" in plain:
        raise ValueError(f"'{run.folder}/.hydra/config.yaml' is not as train.py writes it.")
    # Options that the version which began the run did not have.
    new: Any = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "train.yaml"))
    new = {key: value for key, value in new.items() if key not in ("hydra", "defaults")}
    config = OmegaConf.create({**new, **plain})
    for name in ("resume", "trust", "paths", "print_config"):
        config[name] = session[name]
    follows = followers(run.folder)

    def put(key: str, value: Any) -> None:
        for name in (key, *(name for name, leader in follows.items() if leader == key)):
            OmegaConf.update(config, name, value)

    for key, value in session.paths.items():
        put(f"paths.{key}", value)
    for override in OverridesParser.create().parse_overrides(run.overrides):
        key = str(override.key_or_group)
        parent, _, name = key.rpartition(".")
        holder = OmegaConf.select(config, parent) if parent else config
        adds = override.is_add() or override.is_force_add()
        if not adds and (not isinstance(holder, DictConfig) or name not in holder):
            known = [name for name, _ in dotted(OmegaConf.to_container(config))]
            raise ValueError(f"There is no option '{key}'{nearest(key, known)}")
        if override.is_sweep_override():
            raise ValueError(f"{override.input_line}: resume takes one value of an option.")
        if override.is_delete():
            del holder[name]
        else:
            put(key, override.value())
    # What the user typed may refer to something.
    OmegaConf.resolve(config)
    if "when_unavailable" in config.dataset and config.dataset.root != config.paths.data_dir:
        # Only the user says where something may be written to.
        config.dataset.when_unavailable = "offline"
    return config


def followers(folder: Path) -> dict[str, str]:
    """Option -> the option that it takes its value from, as a run's folder has it."""
    file = folder / ".hydra" / FOLLOWS_FILE
    content = _read(file) if file.is_file() else {}
    pairs = content.items() if isinstance(content, dict) else ()
    # Nothing else of what is vouched for may change: no target, and nothing of this session.
    option = re.compile(rf"(?!({'|'.join(_OF_A_SESSION)})\b)[a-z]\w*(\.[a-z]\w*)*")
    return {k: v for k, v in pairs if option.fullmatch(str(k)) and isinstance(v, str)}


class Begun(NamedTuple):
    """How a run was begun, as its folder has it.

    Attributes:
        overrides: as typed.
        own: those that are not the same for all jobs of its sweep; all, if it is of none.
        swept: whether it is a job of a sweep.
    """

    overrides: list[str]
    own: list[str]
    swept: bool


def begun(folder: Path) -> Begun:
    """Reads it; ValueError for what is not as train.py writes it."""
    saved = folder / ".hydra"
    overrides, hydra = _read(saved / "overrides.yaml"), dict(dotted(_read(saved / "hydra.yaml")))
    constant = hydra.get("hydra.job.config.override_dirname.exclude_keys")
    if not isinstance(constant, list) or not isinstance(overrides, list):
        raise ValueError(f"'{saved}' is not as train.py writes it.")
    overrides = [str(override) for override in overrides]
    own = [override for override in overrides if override.partition("=")[0] not in constant]
    return Begun(overrides, own, hydra.get("hydra.mode") == RunMode.MULTIRUN.name)


def _read(file: Path) -> Any:
    """What a YAML file has; ValueError for what is not as train.py writes it."""
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"'{file}' is larger than train.py writes it.")
        return yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"'{file}' is not as train.py writes it.") from error


def checkpoint_to_resume(config: DictConfig, folder: Path) -> tuple[Path | None, int]:
    """A run's latest whole checkpoint and its iteration; None and -1 where it begins again.

    Raises:
        ValueError: if all its checkpoints are damaged, or its configuration differs from what the
            checkpoint was trained with.
    """
    if saved_in(folder):
        file, checkpoint = find_checkpoint(folder)
        before, step = checkpoint["config"], checkpoint["global_step"]
    else:
        file, step = None, -1
        before = _read(folder / ".hydra" / "config.yaml")
    changed = _changed(before, config, followers(folder))
    if is_longer(changed):
        del changed["trainer.max_steps"]
    allowed = names_in(config.resume.allow)
    refused = [
        key for key in changed if not any(key == a or key.startswith(f"{a}.") for a in allowed)
    ]
    if refused:
        changes = ", ".join(f"{key} from {changed[key][0]} to {changed[key][1]}" for key in refused)
        raise ValueError(
            f"A run is resumed as it was configured, which this would change: {changes}. "
            f"resume.allow=[{','.join(refused)}] permits it; trainer.max_steps may be raised."
        )
    return file, step


def kept_configuration(folder: Path) -> dict[str, Any] | None:
    """What a run's folder says of how it was configured; None where no run has begun.

    Raises:
        ValueError: if it is not as train.py writes it.
    """
    file = folder / ".hydra" / "config.yaml"
    if not file.is_file():
        return None
    kept = _read(file)
    if not isinstance(kept, dict) or not isinstance(kept.get("trainer"), dict):
        raise ValueError(f"'{file}' is not as train.py writes it.")
    return kept


def changes_of(
    kept: Mapping[str, Any], config: DictConfig, folder: Path
) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value kept, value now) of what tells another run from the one in a folder.

    Args:
        kept: the folder's configuration.
        config: another one, resolved.
    """
    changed = _changed(kept, config, followers(folder))
    if kept.get("init_from") != config.init_from:
        changed["init_from"] = (kept.get("init_from"), config.init_from)
    return changed


def is_longer(changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether a change has more iterations, which a run may be trained for."""
    old, new = changed.get("trainer.max_steps", (0, 0))
    return isinstance(new, int) and (new == -1 or new > old >= 0)


def _changed(
    before: Mapping[str, Any], config: DictConfig, follows: Mapping[str, str]
) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value before, value now) of the options that were set and differ.

    What follows from another option is left out, and what is of a session.
    """

    def flat(node: Any) -> dict[str, Any]:
        return {
            key: value
            for key, value in dotted(node)
            if not isinstance(value, dict) and key.partition(".")[0] not in _OF_A_SESSION
        }

    old, now = flat(before), flat(OmegaConf.to_container(config))
    # Not options that an older version of this package did not have.
    roots = set(before)
    return {
        key: (old.get(key), now.get(key))
        for key in sorted(old.keys() | now.keys())
        if old.get(key) != now.get(key)
        and key.partition(".")[0] in roots
        and (key not in follows or now.get(key) != OmegaConf.select(config, follows[key]))
        and key != "dataset.when_unavailable"
    }


def leaders(config: DictConfig) -> dict[str, str]:
    """Option -> the option that it takes its value from, of a configuration as composed."""
    written = dotted(OmegaConf.to_container(config, resolve=False))
    found = {key: leader_of(value) for key, value in written}
    return {key: leader for key, leader in found.items() if leader}
