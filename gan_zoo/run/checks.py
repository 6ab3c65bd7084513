"""What can't work is refused before anything is built: options, devices, data for a model.

Options are checked by the signatures that they are for, and named as they are typed.
"""

import functools
import os
import re
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from gan_zoo.ranges import (
    Count,
    Decay,
    Natural,
    NonNegative,
    Positive,
    PositiveShare,
    Range,
    Seed,
    Share,
    UnfitArgument,
    fits,
    hands_on,
    in_words,
    kinds_of,
    refuse_unfit,
    shown,
    takers_of,
    within,
)
from gan_zoo.run.configuration import CONFIG_DIR, composed, dataset_name, leader_of
from gan_zoo.run.speed import Speed, mathematics

_MaxSteps = Annotated[int, Range(1, 10**9)] | Literal[-1]
# Batches: a number of them, or a share.
_AtMostAll = Natural | Share
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
        "max_steps": _MaxSteps,
        "max_epochs": Annotated[int, Range(1)] | Literal[-1] | None,
        "log_every_n_steps": Natural,
        "check_val_every_n_epoch": Count | None,
        "num_nodes": Count,
        "accumulate_grad_batches": Annotated[
            Literal[1], " (model.accumulate_grad_batches does it)"
        ],
        "gradient_clip_val": Annotated[None, " (model.gradient_clip_val does it)"],
        "precision": Annotated[
            Literal[
                "32-true", "16-mixed", "bf16-mixed", "64-true", "32", "16", "bf16", "64", 32, 16, 64
            ],
            ": weights are float32 or float64",
        ],
        # Its form is looked at by _refuse_no_time.
        "max_time": Any,
        "overfit_batches": _AtMostAll,
        "limit_train_batches": Count | PositiveShare | None,
        "limit_val_batches": _AtMostAll | None,
    },
}

_OF_A_RUN: dict[str, Any] = {
    "init_from": str | None,
    "print_config": Literal["short", "full"],
    "speed": Speed,
    "channels_last": bool,
    "cuda_graphs": bool,
}


def check(config: DictConfig) -> None:
    """Raises ValueError for what can't work; has the configuration name the available dataset."""
    refuse_unfit_values(config, _OF_A_RUN)
    refuse_what_cannot_work(config)
    refuse_data_that_does_not_fit(config)
    use_available_dataset(config)


def refuse_what_cannot_work(config: DictConfig) -> None:
    """Raises ValueError for options that can't be, devices that are not there, and strategies that
    do not suit a game.
    """
    refuse_unfit("seed", config.seed, Seed)
    refuse_unfit_options(config)
    for group in ("callbacks", "logger"):
        for name, item in (config.get(group) or {}).items():
            if item is not None and not (OmegaConf.is_dict(item) and "_target_" in item):
                what = f"is {item}; it has to be options with a _target_, or null."
                raise UnfitArgument(f"{group}.{name}", what)
    # It may be what a model recommends, which is of no class that would be looked at.
    refuse_unfit("trainer.max_steps", config.trainer.max_steps, _MaxSteps)
    _refuse_no_time(config.trainer.get("max_time"))
    trainer, asked = bare_trainer(config), config.trainer
    strategy = trainer.strategy
    mathematics(config, lambda: strategy.root_device)
    if trainer.precision == "bf16-mixed" and str(asked.precision).startswith("16"):
        raise UnfitArgument(
            "trainer.precision",
            f"is {asked.precision}, in which no CPU trains; bf16-mixed or 32-true would do.",
        )
    alone = isinstance(getattr(strategy, "cluster_environment", None), LightningEnvironment)
    if trainer.num_nodes > 1 and alone and not {"NODE_RANK", "GROUP_RANK"} & os.environ.keys():
        raise ValueError(
            f"trainer.num_nodes={trainer.num_nodes} waits for the processes of other machines, and "
            "no launcher has started this one: start it with torchrun or SLURM, or by hand with "
            "MASTER_ADDR, MASTER_PORT and NODE_RANK set on each machine; for this machine alone "
            "leave trainer.num_nodes out."
        )
    if not isinstance(strategy, DDPStrategy):
        return
    if not strategy._ddp_kwargs.get("find_unused_parameters"):
        raise ValueError(
            f"trainer.strategy={asked.strategy} with trainer.devices={asked.devices} and "
            f"trainer.num_nodes={asked.num_nodes} fails for a GAN, whose players take turns: use "
            "ddp_find_unused_parameters_true, as trainer=multi_gpu and ddp_cpu do."
        )
    starts_scripts = strategy._start_method == "popen" and trainer.world_size > 1
    sweeps = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if starts_scripts and sweeps:
        raise ValueError(
            f"Under a multirun, the processes that trainer.strategy={asked.strategy} starts would "
            "each begin the sweep again: use ddp_spawn_find_unused_parameters_true, or one device "
            "a job."
        )


def _refuse_no_time(max_time: Any) -> None:
    plain: Any = OmegaConf.to_container(max_time) if OmegaConf.is_config(max_time) else max_time
    if plain is None:
        return
    try:
        seconds = Timer(plain).time_remaining()
    except (MisconfigurationException, TypeError, AttributeError):
        seconds = None
    if not seconds or seconds < 0:
        raise UnfitArgument(
            "trainer.max_time",
            f"is {shown(max_time)}; it has to be days:hours:minutes:seconds above 0, such as "
            "00:01:30:00, or null.",
        )


def bare_trainer(config: DictConfig) -> pl.Trainer:
    """A trainer on the devices that the configuration asks for, with nothing else.

    Raises:
        ValueError: if they are not there, or the options can't be.
    """
    try:
        with warnings.catch_warnings():
            # The trainer of the run warns again.
            warnings.simplefilter("ignore")
            return instantiate(
                config.trainer, logger=False, enable_checkpointing=False, _convert_="all"
            )
    except InterpolationResolutionError:
        raise
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())
        asked = config.trainer
        # As Lightning quotes its options.
        named = [n for n in re.findall(r"[`(, ](\w+)[`=]", reason) if n in asked]
        if named and not {"accelerator", "devices", "strategy"} & set(named):
            options = " and ".join(f"trainer.{name}={shown(asked[name])}" for name in named)
            raise ValueError(f"{options}: {reason}") from error
        raise ValueError(
            f"trainer.accelerator={asked.accelerator} with trainer.devices={asked.devices} and "
            f"trainer.strategy={asked.strategy}: {reason} trainer=default takes one device of what "
            "is there; trainer.devices can be a number from 1, -1 for all, a list, or auto."
        ) from error


def refuse_data_that_does_not_fit(config: DictConfig) -> None:
    """Raises ValueError if the model does not train on the dataset's batches."""
    model: Any = get_class(config.model._target_)
    takes = getattr(model, "batch_types", None)
    gives = getattr(get_class(config.dataset._target_), "batch_type", None)
    if takes is None or gives is None or gives in takes:
        return
    fitting = [
        file.stem
        for file in sorted((CONFIG_DIR / "dataset").glob("*.yaml"))
        if getattr(get_class(_target(file)), "batch_type", None) in takes
    ]
    raise ValueError(
        f"{model.__name__} does not train on {gives.__name__} batches, which this dataset has: "
        f"dataset={', '.join(fitting)} would do."
    )


def _target(file: Path) -> str:
    """The class that a configuration file, or the first of its defaults, names."""
    config: Any = OmegaConf.to_container(OmegaConf.load(file))
    return config.get("_target_") or _target(file.with_name(f"{config['defaults'][0]}.yaml"))


def use_available_dataset(config: DictConfig) -> None:
    """Puts the name of the dataset that will be trained on, and the number of its classes where
    only the data tells it, into the configuration.

    Raises:
        ValueError: if a resumed run's dataset is not available any more.
    """
    name = dataset_name(config.dataset)
    if hasattr(get_class(config.dataset._target_), "class_count"):
        _count_classes(config)
    if name == config.dataset.name:
        return
    if config.resume.folder:
        raise ValueError(
            f"The run was trained on {config.dataset.name}, which is not available now; it is not "
            f"resumed with {name}."
        )
    config.dataset.name = name


def _count_classes(config: DictConfig) -> None:
    """Puts the number of a folder's classes into the configuration."""
    dataset: Any = config.dataset
    kind: Any = get_class(dataset._target_)
    with within("dataset"):
        count = kind.class_count(dataset.root, dataset.num_classes)
    model: Any = OmegaConf.to_container(config.model)
    if leader_of(model.get("num_classes")) and not count:
        raise UnfitArgument(
            "dataset.root",
            f"is '{dataset.root}', which has no classes, and this model needs some: put the "
            "pictures of each class into a folder of its own, or take another model (model=dcgan).",
        )
    dataset.num_classes = count


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


def refuse_unfit_values(config: DictConfig, kinds: Mapping[str, Any]) -> None:
    """Raises UnfitArgument for the first option that is not of its type."""
    for option, kind in kinds.items():
        value = config[option]
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if isinstance(plain, (int, float)) and not fits(plain, kind) and fits("", kind):
            words = f"{in_words(kind)}; in quotes it is text, '{option}=\"...\"'"
            raise UnfitArgument(option, f"is {shown(plain)}; it has to be {words}.")
        refuse_unfit(option, plain, kind)


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
    elsewhere = next((o for place, o in _ELSEWHERE.items() if target.startswith(f"{place}.")), {})
    kinds: dict[str, Any] = {}
    complete = False
    for function in takers_of(found):
        try:
            own = kinds_of(function)
        except (TypeError, ValueError, NameError):
            return kinds, False
        kinds = {name: elsewhere.get(name, kind) for name, kind in own.items()} | kinds
        complete = not hands_on(function)
    return kinds, complete
