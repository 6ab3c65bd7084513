"""What went wrong, in a sentence that names the option and what would do."""

import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from hydra.errors import (
    ConfigCompositionException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from gan_zoo.ranges import UnfitArgument
from gan_zoo.run.configuration import composed, dotted


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
    if "configure handler" in str(error) and isinstance(error.__cause__, OSError):
        # The run's log, in a folder that can't be written to.
        error = error.__cause__
    text = " ".join(str(error).split())
    if isinstance(error, UnfitArgument):
        option = f"{where}.{error.argument}" if where else error.argument
        return f"{_origin(option, config)} {' '.join(error.problem.split())}"
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"There is no {group} '{choice}'{nearest(choice, error.options)}"
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not an override such as model=cgan or trainer.max_steps=100."
    if isinstance(error, ConfigCompositionException):
        return _explain_override(error, text, config_name)
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
    if isinstance(error, (ValueError, RuntimeError, ArithmeticError)) and text:
        return text
    return f"{type(error).__name__}: {text}"


def _origin(option: str, config: DictConfig | None) -> str:
    """The option that a user has set where this one only takes its value from it."""
    while config is not None:
        node, _, key = option.rpartition(".")
        parent = OmegaConf.select(config, node) if node else config
        if not isinstance(parent, DictConfig) or key not in parent:
            break
        written = parent._get_node(key)
        reference = re.fullmatch(r"\$\{(?:oc\.select:)?([\w.]+)(?:,\w+)?\}", str(written._value()))  # type: ignore[union-attr]
        # What a model recommends is the chosen dataset's or trainer's option.
        if reference is None or reference.group(1).startswith("recommended."):
            break
        option = reference.group(1)
    return option


def _explain_file(error: OSError) -> str:
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"'{error.filename}' can't be a folder, a file is in its way: name another place."
    if isinstance(error, IsADirectoryError):
        return f"'{error.filename}' is a folder, and has to be a file: name another place."
    return f"'{error.filename}': {error.strerror}."


def _explain_override(error: Exception, text: str, config_name: str) -> str:
    key = getattr(error.__cause__, "full_key", None)
    if not key:
        found = re.search(r"Could not (?:override|delete[^']*|append[^']*) '([^']+)'", text)
        if found is None:
            return text
        key = found.group(1)
    return f"There is no option '{key}'{nearest(key, _known_keys(config_name))}"


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
    return [*groups, *(key for key, _ in keys)]


def nearest(unknown: str, known: Sequence[str]) -> str:
    """The rest of the sentence that there is no such name: what was meant, or what there is."""
    last = unknown.rpartition(".")[2]
    near = [key for key in known if key.rpartition(".")[2] == last]
    near = near or get_close_matches(unknown, known, n=1, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near[:3])}?" if near else "."
    if len(known) <= 20:
        hint += f" There are: {', '.join(sorted(known))}."
    return hint
