"""Options on the command line, checked by the signatures that they are for, and named as typed."""

import functools
import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_type_hints

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from gan_zoo.ranges import (
    Count,
    Decay,
    Natural,
    NonNegative,
    Positive,
    Range,
    Share,
    fits,
    in_words,
    refuse_unfit,
)
from gan_zoo.run.configuration import composed

# Ranges of other packages' options: they accept impossible values, or their errors name no option.
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
        raise ValueError(
            f"{key}._target_ is {target}, which can't be imported: {reason}."
        ) from error
    for name in map(str, config):
        # What follows from another option is looked at there.
        if OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, name):
            continue
        value, option = config[name], f"{key}.{name}" if key else name
        if OmegaConf.is_dict(value):
            refuse_unfit_options(value, option)
        elif name in kinds:
            plain = OmegaConf.to_container(value) if OmegaConf.is_list(value) else value
            kind = kinds[name]
            if isinstance(plain, str) and not fits(plain, kind) and "_target_" in in_words(kind):
                raise ValueError(
                    f"{option} is {plain}; it has to be {in_words(kind)}: "
                    f"{_group(option)}={plain} chooses such options."
                )
            refuse_unfit(option, plain, kind)
        if complete and name not in kinds and not name.startswith("_"):
            near = get_close_matches(name, kinds, n=1)
            hint = f"; did you mean {key}.{near[0]}?" if near else "."
            raise ValueError(f"There is no option '{option}' of {target}{hint}")


def _group(option: str) -> str:
    """The group whose choice an option's node is, as the command line takes it."""
    group = option.replace(".", "/")
    # Without a command line those of the default model, which has the same groups as most.
    node = HydraConfig.get() if HydraConfig.initialized() else composed("train", hydra=True).hydra
    choices = map(str, node.runtime.choices)
    return next((choice for choice in choices if choice.endswith(f"@{option}")), group)


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
