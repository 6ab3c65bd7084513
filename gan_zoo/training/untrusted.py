"""What a configuration from a file may build: plain data, and the constructors listed here.

Checkpoints and runs' folders are passed on from hand to hand, so that their configurations may be
made to do harm. SECURITY.md says what is promised of them.
"""

import functools
import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydra.utils import get_object

from gan_zoo.files import CONFIG_DIR
from gan_zoo.ranges import takers_of

# Part of a configuration -> folders of conf/ whose files say what it is built of.
_FOLDERS = {
    "model": ("model",),
    "dataset": ("dataset",),
    "trainer": ("trainer",),
    "callbacks": ("callbacks", "health", "search"),
    "logger": ("logger",),
}
PARTS = tuple(_FOLDERS)
# What users choose besides. Nothing here takes a function, reads or writes a file, or imports by
# a name that it is given.
_BESIDES: dict[str, dict[str, tuple[str, ...]]] = {
    "model": {
        "torch.nn": (
            *("CELU", "ELU", "GELU", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "Mish"),
            *("PReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Tanh"),
        ),
        "torch.nn.init": (
            *("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_"),
            *("xavier_normal_", "xavier_uniform_"),
        ),
        "torch.optim": (
            *("ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
            *("RMSprop", "Rprop", "SGD"),
        ),
        "torch.optim.lr_scheduler": (
            *("ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR"),
            *("ExponentialLR", "LinearLR", "MultiStepLR", "OneCycleLR", "PolynomialLR"),
            *("ReduceLROnPlateau", "StepLR"),
        ),
    },
    "callbacks": {
        "pytorch_lightning.callbacks": ("DeviceStatsMonitor", "LearningRateMonitor", "Timer"),
    },
}
# Listed, but not for a file to name: the models of sentence-transformers are folders that may hold
# code, and the package that runs it is what has to be trusted.
_RUNS_CODE_OF = {"gan_zoo.networks.text.SentenceTransformerEncoder": "sentence_transformers"}
# Lightning would send checkpoints there. Where its files are written build() decides.
_NOT_FROM_FILES = {"model_registry"}
_SPECIAL = {"_target_", "_partial_", "_convert_"}
# Far more than any run has. YAML's and pickle's references could make a small file endless.
_MOST_VALUES = 20_000
_DEEPEST = 40


@functools.cache
def listed(part: str) -> frozenset[str]:
    """The full names of what that part of a configuration may build."""
    files = [file for folder in _FOLDERS[part] for file in (CONFIG_DIR / folder).rglob("*.yaml")]
    named = [re.findall(r"^ *_target_: ([\w.]+)$", file.read_text(), re.M) for file in files]
    besides = _BESIDES.get(part, {}).items()
    return frozenset(name for names in named for name in names) | {
        f"{module}.{name}" for module, names in besides for name in names
    }


def vouched(
    config: Any, origin: str, trust: Sequence[str] = (), built: Collection[str] = PARTS
) -> dict[str, Any]:
    """A plain copy of a configuration from a file, which can be resolved and built without harm.

    Args:
        config: as read.
        origin: what it is, for the message.
        trust: what the user trusts: full names, or packages all of whose classes and functions may
            be called.
        built: the parts that will be built.

    Returns:
        dicts, lists, text, numbers, booleans and None; nothing in them refers to anything else.

    Raises:
        ValueError: if it is anything else, or would build what is neither listed nor trusted.
    """
    count = 0

    def plain(node: Any, key: str, names: Collection[str] | None) -> Any:
        nonlocal count
        count += 1
        if count > _MOST_VALUES or key.count(".") > _DEEPEST:
            raise ValueError(f"{origin} is not as train.py writes it: it has too many values.")
        if isinstance(node, Mapping):
            if not all(type(name) is str for name in node):
                raise ValueError(f"{origin} has names in {key} that are no text.")
            if names is not None:
                _refuse_target(node, key, names, trust, origin)
            for name in node:
                plain(name, key, None)
            return {name: plain(value, f"{key}.{name}", names) for name, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [plain(value, f"{key}.{place}", names) for place, value in enumerate(node)]
        if type(node) not in (str, int, float, bool, type(None)):
            raise ValueError(f"{origin} is not plain data: {key} is of type {type(node).__name__}.")
        if isinstance(node, str) and not node.isprintable():
            # Terminals take such characters for commands.
            raise ValueError(f"{origin} has {node[:60]!r} ({key}), which is no line of text.")
        if isinstance(node, str) and "${" in node:
            raise ValueError(
                f"{origin} has {node[:60]} ({key}), which would be looked up; train.py writes "
                "values alone."
            )
        return node

    if not isinstance(config, Mapping):
        raise ValueError(f"{origin} is not as train.py writes it.")
    return {
        key: plain(node, str(key), listed(key) if key in built else None)
        for key, node in config.items()
    }


def _refuse_target(
    node: Mapping[str, Any], key: str, names: Collection[str], trust: Sequence[str], origin: str
) -> None:
    """Raises ValueError for a node that would build what it may not, or with what it may not."""
    special = {name for name in node if name.startswith("_")}
    if "_target_" not in node and not special:
        return
    target = node.get("_target_")
    if not isinstance(target, str):
        raise ValueError(f"{origin} has {sorted(special)[0]} in {key}, which train.py never has.")
    package = _RUNS_CODE_OF.get(target)
    if target in trust or package in trust or _defined_in(target, trust):
        return
    if target not in names or package:
        raise ValueError(
            f"{origin} would run {target} ({key}), which is not among what a file may have built. "
            f"If you know it to be harmless, trust={package or target} allows it."
        )
    if others := sorted(special - _SPECIAL):
        raise ValueError(f"{origin} has {others[0]} in {key}, which train.py never has.")
    options = keywords_of(get_object(target)) - _NOT_FROM_FILES
    for name in node:
        if name not in options and name not in _SPECIAL:
            raise ValueError(
                f"{origin} gives {target} the option {key}.{name}, which a file may not give it."
            )


def keywords_of(function: Any) -> set[str]:
    """The names of a class's or function's arguments, those of the classes that it extends too."""
    names: set[str] = set()
    for taker in takers_of(function):
        parameters = inspect.signature(taker).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return names - {"self"}


def _defined_in(target: str, packages: Sequence[str]) -> bool:
    """Whether a name is that of something which one of the packages defines.

    The name alone tells nothing: my_gans.os.system is what a module of a package imports.
    """

    def inside(name: str) -> bool:
        return any(name == package or name.startswith(f"{package}.") for package in packages)

    # To look something up imports its package.
    return inside(target) and inside(getattr(get_object(target), "__module__", None) or "")
