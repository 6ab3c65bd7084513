"""What can't work is refused before anything is built."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import DDPStrategy

from gan_zoo.ranges import Seed, refuse_unfit
from gan_zoo.run.configuration import CONFIG_DIR, dataset_name
from gan_zoo.run.options import refuse_unfit_options


def check(config: DictConfig) -> None:
    """Raises ValueError for what can't work; has the configuration name the available dataset."""
    refuse_what_cannot_work(config)
    refuse_data_that_does_not_fit(config)
    use_available_dataset(config)


def refuse_what_cannot_work(config: DictConfig) -> None:
    """Raises ValueError for options that can't be, devices that are not there, and strategies that
    do not suit a game.
    """
    refuse_unfit("seed", config.seed, Seed)
    refuse_unfit_options(config)
    trainer, asked = bare_trainer(config), config.trainer
    strategy = trainer.strategy
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


def bare_trainer(config: DictConfig) -> pl.Trainer:
    """A trainer on the devices that the configuration asks for, with nothing else.

    Raises:
        ValueError: if they are not there, or the options can't be.
    """
    try:
        return instantiate(
            config.trainer, logger=False, enable_checkpointing=False, _convert_="all"
        )
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())
        asked = config.trainer
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
    """Puts the name of the dataset that will be trained on into the configuration.

    Raises:
        ValueError: if a resumed run's dataset is not available any more.
    """
    name = dataset_name(config.dataset)
    if name == config.dataset.name:
        return
    if config.resume.folder:
        raise ValueError(
            f"The run was trained on {config.dataset.name}, which is not available now; it is not "
            f"resumed with {name}."
        )
    config.dataset.name = name
