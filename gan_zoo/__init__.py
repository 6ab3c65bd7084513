"""Thirteen classic GANs, each trained by one command, or from a notebook.

    run = gan_zoo.build("dcgan", "mnist", ["model.latent_dim=64", "trainer.max_steps=1000"])
    run.trainer.fit(run.model, run.data)

    images = gan_zoo.load(run.folder).sample(64)

To import this imports neither torch nor Lightning: both functions do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gan_zoo.models.protocols import Sampled
    from gan_zoo.run.build import Run

__version__ = "0.1.0"


def build(
    model: str,
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    folder: str | Path | None = None,
) -> Run:
    """The model, data and trainer that the command line would build.

    Args:
        model: its name, as in ``model=dcgan``.
        dataset: its name; None for the model's own.
        overrides: as on the command line: "model.latent_dim=64", "trainer=cpu".
        folder: where checkpoints, logs and samples are written; None for a new one in runs/, as
            the command line's.

    Returns:
        (model, data, trainer, about, folder, mathematics), of which
        ``run.trainer.fit(run.model, run.data)`` trains.

    Raises:
        ValueError: for a choice that can't work.
    """
    from gan_zoo.run.build import build
    from gan_zoo.run.checks import check
    from gan_zoo.run.configuration import composed, dataset_title, run_name
    from gan_zoo.run.errors import explain
    from gan_zoo.run.folder import RUNS, new_folder, remove_folder
    from gan_zoo.training.lightning_state import silence_known_warnings

    silence_known_warnings()
    chosen = [f"model={model}", *([f"dataset={dataset}"] if dataset else []), *overrides]
    config = made = None
    try:
        config = composed("train", chosen)
        check(config)
        place = folder and Path(folder)
        if not place:
            title = dataset_title(config.dataset)
            place = made = new_folder(RUNS / model / title / run_name(overrides, config))
        return build(config, place)
    except Exception as error:
        if made:
            remove_folder(made)
        raise ValueError(explain(error, "train", config)) from error


def load(
    path: str | Path, which: Literal["last", "best"] = "last", trust: Sequence[str] = ()
) -> Sampled:
    """The model of a run's checkpoint, in eval mode on the CPU.

    Args:
        path: a run's folder, or a checkpoint.
        which: of a folder, "last" or "best".
        trust: full names, or packages, that its configuration may have built beside this
            package's.

    Raises:
        ValueError: if there is no checkpoint, or it is damaged, or would run code.
    """
    from gan_zoo.run.folder import find_checkpoint
    from gan_zoo.training.checkpoints import model_of

    return model_of(find_checkpoint(path, which)[1], trust)
