"""What options may be: looked at before anything is built, and named as people type them."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_LARGEST = torch.finfo(torch.float32).max


class Range(NamedTuple):
    """Where a number has to lie, as a mark of its type: ``Annotated[float, Range(0, 1)]``.

    Attributes:
        low, high: the ends.
        above, below: whether the low, the high one is left out.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether the number lies there."""
        return (
            self.low <= value <= self.high
            and not (self.above and value == self.low)
            and not (self.below and value == self.high)
        )

    def __str__(self) -> str:
        low = f" {'above' if self.above else 'from'} {self.low}" if self.low > -math.inf else ""
        if self.high == math.inf:
            return low
        if self.below:
            return f"{low}{' and' if low else ''} below {self.high}"
        if self.above or not low:
            return f"{low}{' and' if low else ''} at most {self.high}"
        return f"{low} to {self.high}"


Count = Annotated[int, Range(1, 10**6)]
Natural = Annotated[int, Range(0, 10**9)]
Few = Annotated[int, Range(0, 100)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, below=True)]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]

# Options of other packages, which take what can't be, or refuse it without saying where.
_ELSEWHERE: dict[str, dict[str, Any]] = {
    "torch.optim": {
        **dict.fromkeys(("lr", "weight_decay", "eps", "min_lr", "threshold"), NonNegative),
        **dict.fromkeys(("momentum", "alpha"), Decay),
        "betas": tuple[Decay, Decay],
        "gamma": Annotated[float, Range(0, 1, above=True)],
        "factor": Annotated[float, Range(0, 1, above=True, below=True)],
        "patience": Natural,
        "step_size": Annotated[int, Range(1, 10**9)],
        "total_iters": Annotated[int, Range(1, 10**9)],
        "start_factor": Annotated[float, Range(0, 1, above=True)],
        "end_factor": Share,
    },
    "torch.nn": {"std": Positive},
    "pytorch_lightning": {
        "max_steps": Annotated[int, Range(-1, 10**9)],
        "max_epochs": Annotated[int, Range(-1)] | None,
        "log_every_n_steps": Natural,
        "check_val_every_n_epoch": Count | None,
        "num_nodes": Count,
        "precision": Literal[
            *("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"),
            *("transformer-engine", "transformer-engine-float16"),
            *("32", "16", "bf16", "64", 32, 16, 64),
        ],
        "overfit_batches": NonNegative,
        "limit_train_batches": NonNegative | None,
        "limit_val_batches": NonNegative | None,
    },
}


def refuse_unfit(option: str, value: object, kind: Any) -> None:
    """Raises ValueError unless the option's value is of the kind.

    Args:
        option: as people type it.
        value: plain.
        kind: a type, as of a signature. A boolean is no number, nor is nan or infinity; a whole
            number is a number.
    """
    if fits(value, kind):
        return
    hint = ""
    if isinstance(value, str) and "_target_" in _words(kind):
        hint = f": {option.replace('.', '/')}={value} chooses a group of such"
    raise ValueError(f"{option} is {_shown(value)}; it has to be {_words(kind)}{hint}.")


def refuse_unless_whole(option: str, value: object, low: int, high: int = 2**32 - 1) -> None:
    """Raises ValueError unless the option's value is a whole number in the range."""
    refuse_unfit(option, value, Annotated[int, Range(low, high)])


def refuse_unfit_options(config: DictConfig, key: str = "") -> None:
    """Raises ValueError for the first option that what it is for does not take.

    Looks up, and so imports, every ``_target_``: what comes from a file has to be vouched for.

    Args:
        config: composed, not resolved.
        key: where in the whole configuration it is.
    """
    target = None if OmegaConf.is_missing(config, "_target_") else config.get("_target_")
    try:
        kinds, complete = _kinds(target) if isinstance(target, str) else ({}, False)
    except ImportError as error:
        reason = error.__cause__ or error
        raise ValueError(f"{key}._target_ is {target}, which can't be had: {reason}.") from error
    for name in map(str, config):
        # What follows from another option is looked at there.
        if OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, name):
            continue
        value, option = config[name], f"{key}.{name}" if key else name
        if OmegaConf.is_dict(value):
            refuse_unfit_options(value, option)
        elif name in kinds:
            plain = OmegaConf.to_container(value) if OmegaConf.is_list(value) else value
            refuse_unfit(option, plain, kinds[name])
        if complete and name not in kinds and not name.startswith("_"):
            near = get_close_matches(name, kinds, n=1)
            hint = f"; did you mean {key}.{near[0]}?" if near else "."
            raise ValueError(f"There is no option '{option}' of {target}{hint}")


@functools.cache
def _kinds(target: str) -> tuple[Mapping[str, Any], bool]:
    """Option -> its kind, of a class or function, and whether those are all."""
    found: Any = get_object(target)
    functions: list[Callable[..., Any]] = [found]
    if isinstance(found, type):
        functions = [vars(c)["__init__"] for c in found.__mro__ if "__init__" in vars(c)]
    elsewhere = next((o for place, o in _ELSEWHERE.items() if target.startswith(f"{place}.")), {})
    kinds: dict[str, Any] = {}
    for function in functions:
        try:
            parameters = inspect.signature(function).parameters.values()
            hints = get_type_hints(function, include_extras=True)
        except (TypeError, ValueError, NameError):
            return kinds, False
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                known = elsewhere.get(parameter.name, hints.get(parameter.name, Any))
                kinds.setdefault(parameter.name, known)
        # With them it hands the rest on to the next class.
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters):
            return kinds, True
    return kinds, False


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of a kind, as ``refuse_unfit`` says."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        ranges = [mark for mark in parts[1:] if isinstance(mark, Range)]
        return fits(value, parts[0]) and all(r.holds(value) for r in ranges)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if (origin or kind) in _LISTS:
        if isinstance(value, str) or not isinstance(value, collections.abc.Sequence):
            return False
        if origin is tuple and parts[1:] != (...,):
            return len(value) == len(parts) and all(map(fits, value, parts))
        return not parts or all(fits(item, parts[0]) for item in value)
    if kind in (int, float):
        number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        return number and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]
    if isinstance(value, str):
        return kind not in (bool, types.NoneType) and not _built(kind)
    if isinstance(value, (bool, int, float, types.NoneType)):
        return isinstance(value, kind) if isinstance(kind, type) else origin is None
    # What is built, or a list for what takes anything.
    return kind not in (bool, str, types.NoneType)


def _built(kind: Any) -> bool:
    """Whether it is something that a node with a ``_target_`` builds."""
    if get_origin(kind) is collections.abc.Callable:
        return True
    return isinstance(kind, type) and kind is not str and not issubclass(kind, Path)


def _words(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(parts[0]) + "".join(str(mark) for mark in parts[1:])
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(_words(part) for part in parts))
    if origin is Literal:
        return ", ".join(dict.fromkeys(map(str, parts[:-1]))) + f" or {parts[-1]}"
    if (origin or kind) in _LISTS:
        many = f"a list of {len(parts)}" if origin is tuple and parts[1:] != (...,) else "a list"
        return f"{many}, each {_words(parts[0])}" if parts else many
    plain = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        types.NoneType: "null",
    }
    if kind in plain:
        return plain[kind]
    return "options with a _target_" if _built(kind) else "text"


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
