"""The configuration: where its files are, how it is composed, and what its names are made of."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig, OmegaConf

from gan_zoo.data import InMemoryDataModule
from gan_zoo.files import CONFIG_DIR
from gan_zoo.ranges import UnfitArgument, refuse_unfit, within

VERSION_BASE = "1.3"
_OF_OPTIMIZER = re.compile(r"(?:^|\.)optimizer_(\w+)\.(\w+)$")
_LONGEST_NAME = 80
# What a run's name does not tell: the folders around it do, or it changes nothing that is learned.
_UNTOLD = re.compile(
    r"[+~]*(model|dataset|trainer|tags|trust|print_config)(=|$)"
    r"|[+~]*(callbacks|health|logger|paths|debug|resume|trainer\.(log_every|enable|accel|devices))"
)


def composed(name: str, overrides: Sequence[str] = (), hydra: bool = False) -> DictConfig:
    """A configuration as the command of that name would compose it.

    Args:
        name: of the primary file, such as "train".
        overrides: as on the command line.
        hydra: keep Hydra's own node.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_DIR), version_base=VERSION_BASE):
        return compose(name, overrides=list(overrides), return_hydra_config=hydra)


def dotted(node: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested dicts, dotted, with its value."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}", value
            yield from dotted(value, f"{prefix}{key}.")


def leader_of(written: Any) -> str | None:
    """The option that one takes its value from, of its value as it is written."""
    reference = re.fullmatch(r"\$\{(?:oc\.select:)?([\w.]+)(?:,\w+)?\}", str(written))
    return reference.group(1) if reference else None


def names_in(option: Any) -> list[str]:
    """An option that is a name, a list of names, or null, as a list."""
    single = isinstance(option, (str, int, float))
    return [str(name) for name in ([option] if single else option or [])]


@contextmanager
def looking_in(config: DictConfig) -> Iterator[None]:
    """Has what names folders look its values up in this configuration, with Hydra's node."""
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(config)
    try:
        yield
    finally:
        hydra.cfg = before


def constant_overrides(arguments: Sequence[str]) -> list[str]:
    """The keys of a command line's overrides that sweep nothing."""
    parsed = [(argument, _parsed(argument)) for argument in arguments]
    return [a.partition("=")[0] for a, o in parsed if o and not o.is_sweep_override()]


def readable(argument: str) -> str:
    """An argument as Hydra reads it: its value in quotes where it would be refused without.

    So paths and sentences need no quotes but the shell's. What begins as a list, a dict or a quoted
    text, or has such a part after a comma, is left as it is.

    Raises:
        ValueError: for no option, and for a run's folder without a name, which would be the working
            folder.
    """
    key, _, value = argument.partition("=")
    if not key:
        raise ValueError(f"'{argument}' names no option, as in trainer.max_steps=100.")
    folders = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
    if key in folders and value.strip("'\" ") in ("", "null"):
        raise ValueError(f"{argument} names no folder: give {key}=FOLDER, or leave it out.")
    if not value or re.search(r"""(^|,) *[\[{'"]""", value) or _parsed(argument):
        return argument
    if _parsed(f"{key}={value.replace('=', '-')}"):
        # Paths of runs, perhaps several to sweep.
        parts = (in_quotes(part) if "=" in part else part for part in value.split(","))
        return f"{key}={','.join(parts)}"
    quoted = f"{key}={in_quotes(value)}"
    return quoted if _parsed(quoted) else argument


def text_of(argument: str) -> str:
    """The value of an argument that is a text, whatever it looks like, such as a path."""
    override = _parsed(readable(argument))
    value = override.value() if override else None
    return value if isinstance(value, str) else argument.partition("=")[2]


def to_paste(key: str, text: str) -> str:
    """An override of that value as people can paste it into a shell."""
    return shlex.quote(argument_of(key, text))


def argument_of(key: str, text: str) -> str:
    """An override of that value."""
    argument = f"{key}={text}"
    override = _parsed(readable(argument))
    plain = override and override.value() == text
    return argument if plain else f"{key}={in_quotes(text)}"


def as_listed(overrides: DictConfig | ListConfig) -> list[str]:
    """Overrides as they are listed: what one refers to is not looked up."""
    plain: Any = OmegaConf.to_container(overrides, resolve=False)
    return list(map(str, plain))


def as_typed(override: str) -> str:
    """An override that Hydra has got, as people can paste it into a shell."""
    parsed = _parsed(override)
    value = parsed and not parsed.is_sweep_override() and parsed.value()
    key = override.partition("=")[0]
    return to_paste(key, value) if isinstance(value, str) else shlex.quote(override)


def in_quotes(text: str) -> str:
    """A text as Hydra reads it back."""
    return QuotedString(text, Quote.double).with_quotes()


def _parsed(argument: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


# What was asked for -> the name of what there is; looked up once, also for a sweep's processes.
known_datasets: dict[tuple[type[InMemoryDataModule], str, str, str], str] = {}


def dataset_name(dataset: DictConfig) -> str:
    """The name of what a run with this configuration trains on, a stand-in's if it falls back.

    Looked up once.
    """
    # Where pictures' root is missing, it is said when they are read.
    root = "" if OmegaConf.is_missing(dataset, "root") else dataset.get("root", "")
    refuse_unfit("dataset.root", root, str)
    kind: Any = get_class(dataset._target_)
    if not issubclass(kind, InMemoryDataModule):
        what = f"is {dataset._target_}, which is no dataset; dataset=mnist and others choose one."
        raise UnfitArgument("dataset._target_", what)
    with within("dataset"):
        asked = (kind, dataset.name, root, dataset.get("when_unavailable", "error"))
        if asked not in known_datasets:
            known_datasets[asked] = kind.available(*asked[1:])
        return known_datasets[asked]


def dataset_title(dataset: DictConfig) -> str:
    """What people call that: its name, and the task where there is one."""
    return "_".join(filter(None, (dataset_name(dataset), dataset.get("task"))))


def run_name(overrides: Sequence[str], config: DictConfig) -> str:
    """The name of a new run's folder: its options as far as they are given, and the minute."""
    told = [o for o in overrides if not _UNTOLD.match(o)]
    # First what runs are compared by: in a narrow column of TensorBoard the rest is cut off.
    told.sort(key=lambda override: not re.match(r"[+~]*(experiment=|model[./])", override))
    return "_".join([*_words(told, config), f"{datetime.now():%Y%m%d-%H%M}"])


def _job_name(
    overrides: ListConfig, constant: ListConfig, dataset: DictConfig, *, _root_: DictConfig
) -> str:
    """What a sweep's job differs in from the others, as a folder's name that needs no quoting."""
    typed = as_listed(overrides)
    swept = [o for o in typed if o.partition("=")[0] not in constant] or typed
    words = _words(swept, _root_)
    if dataset_name(dataset) != dataset.name:
        words.append(dataset_title(dataset))
    return "_".join(words) or "default"


def _words(overrides: Sequence[str], config: DictConfig) -> list[str]:
    """Overrides as words of a file's name; the longest are cut where it would be too long."""
    known = _leading(config)
    words = [_word(override, known) for override in overrides]
    while len("_".join(words)) > _LONGEST_NAME and (longest := max(words, key=len)):
        words[words.index(longest)] = longest[:-1].rstrip("-_.")
    return [word for word in words if word]


def _word(override: str, known: Sequence[str]) -> str:
    """model.optimizer_g.lr=0.123456 as lr_g=0.1235, in characters that no shell takes apart."""
    key, equals, value = override.partition("=")
    name = short_name(key.lstrip("+~"), known)
    value = re.sub(r"^[^\w.+-]+", "", value.rstrip(" '\"[](){}"))
    if "," not in value:
        # Of a path its end.
        value = value.rstrip("/").rpartition("/")[2]
    value = re.sub(r"\d+\.\d{5,}(e-\d+)?", lambda number: f"{float(number[0]):.4g}", value)
    word = f"no-{name}" if key.startswith("~") else f"{name}{equals}{value}"
    return re.sub(r"[^A-Za-z0-9_=.+-]+", "-", word).rstrip("-_.")


def column_name(key: str) -> str:
    """An option in a table: model.optimizer_g.lr is lr_g, model.pool_size is pool_size."""
    found = _OF_OPTIMIZER.search(key)
    return f"{found[2]}_{found[1]}" if found else key.partition(".")[2] or key


def short_name(option: str, known: Sequence[str]) -> str:
    """The shortest end of an option that is the end of no other.

    Args:
        option: as on the command line, a group too; an optimizer's is called as lr_g.
        known: all options, dotted.
    """
    key = option.rpartition("@")[2].replace("/", ".")
    if _OF_OPTIMIZER.search(key):
        return column_name(key)
    parts = key.split(".")
    ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
    others = [f".{other}" for other in known if other != key]
    return next((e for e in ends if not any(o.endswith(f".{e}") for o in others)), key)


def _leading(config: DictConfig) -> list[str]:
    """The options that do not take another's value."""
    written = dotted(OmegaConf.to_container(config, resolve=False))
    own = ((k, v) for k, v in written if k.partition(".")[0] not in ("hydra", "recommended"))
    return [key for key, value in own if not leader_of(value)]


def _run_name(overrides: ListConfig, *, _root_: DictConfig) -> str:
    return run_name(as_listed(overrides), _root_)


OmegaConf.register_new_resolver("dataset_title", dataset_title, replace=True)
OmegaConf.register_new_resolver("job_name", _job_name, replace=True)
OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
