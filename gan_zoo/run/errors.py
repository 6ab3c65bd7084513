"""What went wrong, in a sentence that names the option and what would do."""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
)
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from gan_zoo.files import CONFIG_DIR
from gan_zoo.ranges import UnfitArgument
from gan_zoo.run.configuration import composed, dotted, leader_of, to_paste

# Launchers -> the extra that has them.
_EXTRAS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "slurm"}


def explain(error: Exception, config_name: str, config: DictConfig | None = None) -> str:
    """An error as people read it.

    Args:
        error: as it was raised.
        config_name: of the primary configuration.
        config: composed, where it was composed before the error.
    """
    # The node that was being built.
    where = ""
    while isinstance(error, (InstantiationException, InterpolationResolutionError)):
        # Hydra says it in the text alone.
        key = re.search(r"full_key: (\S+)", str(error))
        if key and isinstance(error, InstantiationException):
            where = key.group(1)
        inner = error.__cause__ or error.__context__
        if not isinstance(inner, Exception):
            break
        error = inner
    logs = re.search("configure handler|you tried to log", str(error))
    if logs and isinstance(error.__cause__, OSError):
        # The run's log or events, in a folder that can't be written to.
        error = error.__cause__
    text = " ".join(str(error).split())
    if isinstance(error, UnfitArgument):
        option = f"{where}.{error.argument}" if where else error.argument
        return f"{_origin(option, config)} {' '.join(error.problem.split())}"
    if isinstance(error, MissingConfigException) and error.options is not None:
        path = str(error.missing_cfg_file)
        given = next((a for a in sys.argv[1:] if a.replace("=", "/", 1) == path), None)
        group, _, choice = given.partition("=") if given else path.rpartition("/")
        if extra := _EXTRAS.get(choice) if group == "hydra/launcher" else None:
            return f"{group}={choice} needs pip install 'gan_zoo[{extra}]', or '.[{extra}]' here."
        known = [*error.options, *_in_subfolders(CONFIG_DIR / group)] if given else error.options
        return f"There is no {group} '{choice}'{nearest(choice, known)}"
    if isinstance(error, OverrideParseException):
        return _explain_unreadable(str(error.override).removeprefix("++"))
    if "group override must be" in text:
        groups = [a for a in sys.argv[1:] if (CONFIG_DIR / a.partition("=")[0]).is_dir()]
        nameless = [a for a in groups if not re.search("=.*[a-z]", a) or a.endswith("=null")]
        return f"{' and '.join(nameless)}: that names no choice of the group; leave it out."
    several = re.search(r"Multiple values for (\S+)\. To override", text)
    if several:
        return f"{several.group(1)} has several choices: give one, without a plus or brackets."
    if isinstance(error, ConfigCompositionException):
        return _explain_override(error, text, config_name)
    if isinstance(error, (ConfigKeyError, ConfigAttributeError, InterpolationKeyError)):
        return _explain_missing(error, text, config_name, config)
    # Two networks that take a value from each other, or whatever networks raise.
    recursive = isinstance(error, InterpolationResolutionError)
    unlike = isinstance(error, (TypeError, AttributeError, RuntimeError))
    if recursive or (unlike and _in_networks(error, where)):
        misfit = _misfit(config_name, text)
        if misfit:
            return misfit
    if isinstance(error, MissingMandatoryValue):
        key = re.search(r"value: (\S+)", text)
        name = error.full_key or (key.group(1) if key else "")
        return f"{name} is missing: give {name}=..." if name else text
    if isinstance(error, MisconfigurationException) or (
        where and isinstance(error, (TypeError, RuntimeError, ArithmeticError, MemoryError))
    ):
        return f"{where}: {text}" if where else text
    if isinstance(error, OSError) and error.filename is not None:
        return _explain_file(error)
    if isinstance(error, KeyError) and " " in text:
        # Which shows its sentence in quotes.
        return str(error.args[0])
    if isinstance(error, (ValueError, RuntimeError, ArithmeticError, HydraException)) and text:
        return text
    return f"{type(error).__name__}: {text}"


def _origin(option: str, config: DictConfig | None) -> str:
    """The option that a user has set where this one only takes its value from it."""
    while config is not None:
        node, _, key = option.rpartition(".")
        parent = OmegaConf.select(config, node) if node else config
        if not isinstance(parent, DictConfig) or key not in parent:
            break
        leader = leader_of(parent._get_node(key)._value())  # type: ignore[union-attr]
        # What a model recommends is the chosen dataset's or trainer's option.
        if leader is None or leader.startswith("recommended."):
            break
        option = leader
    return option


def _explain_file(error: OSError) -> str:
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"'{error.filename}' can't be a folder, a file is in its way: name another place."
    if isinstance(error, IsADirectoryError):
        return f"'{error.filename}' is a folder, and has to be a file: name another place."
    return f"'{error.filename}': {error.strerror}."


def _in_networks(error: Exception, where: str) -> bool:
    """Whether an error is of a model's networks, in building them or in its first iterations."""
    # A run that has saved something has trained them.
    if getattr(error, "__notes__", None) or isinstance(error, torch.OutOfMemoryError):
        return False
    modules = [str(frame.f_globals["__name__"]) for frame, _ in walk_tb(error.__traceback__)]
    return where == "model" or any(
        module.startswith(("gan_zoo.models.", "gan_zoo.training.module")) for module in modules
    )


def _misfit(config_name: str, reason: str) -> str:
    """What to say where the networks that were chosen are not the model's own; "" otherwise."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    chosen, model = _networks(choices), choices.get("model")
    with suppress(HydraException):
        own = _networks(composed(config_name, [f"model={model}"], hydra=True).hydra.runtime.choices)
        others = [f"{group}={name}" for group, name in chosen.items() if own.get(group) != name]
        if model and others:
            its = ", ".join(f"{group}={name}" for group, name in own.items())
            return (
                f"{' and '.join(others)} can't be trained as model={model}, whose own are {its}: "
                f"{reason}."
            )
    return ""


def _networks(choices: Mapping[str, Any]) -> dict[str, str]:
    """Group -> what was chosen of it, of those that are networks."""
    return {
        str(group): str(choice)
        for group, choice in choices.items()
        if re.match("model/(generator|discriminator)", str(group))
    }


def _explain_unreadable(argument: str) -> str:
    if argument.partition("=")[2]:
        return (
            f"'{argument}' can't be read: brackets and quotes have to close, and a text in them "
            "that is more than a word needs quotes, as in 'captions=[\"it's a three\"]'."
        )
    return f"'{argument}' is not an override such as model=cgan or trainer.max_steps=100."


def _in_subfolders(group: Path) -> list[str]:
    """Choices such as paper/gan of the group experiment; other subfolders are groups themselves."""
    files = [file for file in group.glob("*/*.yaml") if "@package _global_" in file.read_text()]
    return [file.relative_to(group).with_suffix("").as_posix() for file in files]


def _explain_missing(
    error: Exception, text: str, config_name: str, config: DictConfig | None
) -> str:
    """An option that is not there, which code or another option has asked for."""
    found = re.search(r"nterpolation key '([^']+)' not found", text)
    key = found.group(1) if found else str(getattr(error, "full_key", None) or "")
    if not key:
        return text
    for argument in sys.argv[1:]:
        deleted = re.split("[@=]", argument[1:])[0].replace("/", ".")
        if argument.startswith("~") and f"{key}.".startswith(f"{deleted}."):
            return f"{key} is needed: leave {argument} out."
    options = dotted({} if config is None else OmegaConf.to_container(config, resolve=False))
    readers = [name for name, value in options if str(value) == f"${{{key}}}"]
    if not found or not readers:
        return f"{key} is needed, and is missing: give +{key}=..."
    reason = f"{readers[0]} takes its value from {key}, which there is not in this configuration"
    return _misfit(config_name, reason) or f"{reason}: give +{key}=..."


def _explain_override(error: Exception, text: str, config_name: str) -> str:
    cause = " ".join(str(error.__cause__ or text).partition("full_key")[0].split())
    several = re.search(r"Ambiguous value for argument '(.*)' 1\. To use it as a list", text)
    if several:
        option, _, value = several.group(1).partition("=")
        return (
            f"{option} has several values, which -m tries one by one; as one text it is "
            f"{to_paste(option, value)}, as one list {option}=[{value}]."
        )
    key = getattr(error.__cause__, "full_key", None)
    if not key:
        found = re.search(r"Could not (?:override|delete[^']*|append[^']*) '([^']+)'", text)
        if found is None:
            return text
        key = found.group(1)
    if key.startswith("hydra."):
        return f"{key}: {cause}"
    known = _known_keys(config_name)
    if key in known:
        # Hydra finds nothing to delete where an option is null.
        is_null, misfit = "delete" in text, f"{key} does not take what it was given: {cause}."
        return f"{key} is null already: leave ~{key} out." if is_null else misfit
    return f"There is no option '{key}'{nearest(key, known)}"


def _known_keys(config_name: str) -> list[str]:
    """Every group and dotted key of the configuration, with the groups that were chosen."""
    choices = composed(config_name, hydra=True).hydra.runtime.choices
    groups = [str(g) for g in choices if not str(g).startswith("hydra")]
    chosen = [
        argument.partition(",")[0]
        for argument in sys.argv[1:]
        if argument.partition("=")[0] in groups
    ]
    keys = dotted(OmegaConf.to_container(composed(config_name, chosen), resolve=False))
    return list(dict.fromkeys([*groups, *(key for key, _ in keys)]))


def nearest(unknown: str, known: Sequence[str]) -> str:
    """The rest of the sentence that there is no such name: what was meant, or what there is."""
    last = unknown.rpartition(".")[2]
    near = [key for key in known if key.rpartition(".")[2] == last]
    near = near or get_close_matches(unknown, known, n=1)
    hint = f"; did you mean {' or '.join(near[:3])}?" if near else "."
    listed = set(known)
    if len(listed) > 20:
        listed = {f"{key.partition('/')[0]}/NAME" if "/" in key else key for key in known}
    if len(listed) <= 20:
        hint += f" There are: {', '.join(sorted(listed))}."
    return hint
