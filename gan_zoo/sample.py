"""Draws images from a checkpoint into a picture or the field's usual sample file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from gan_zoo.checkpoint import load_model
from gan_zoo.models.base import ImageGAN
from gan_zoo.plotting import image_grid, save_png, to_uint8


def sample(config: DictConfig) -> None:
    """Samples as configured and writes ``config.output``.

    A ``.png`` becomes a grid. A ``.npz`` holds ``arr_0``, uint8 (N, H, W, C), and for conditional
    models ``arr_1``, the int64 labels (N,). One seed gives the same images each time.

    Args:
        config: conf/sample.yaml, composed.

    Raises:
        ValueError: for a bad checkpoint, number, label or kind of output; nothing is written then.
    """
    output = Path(config.output)
    if output.suffix not in (".png", ".npz"):
        raise ValueError(f"output={output} has to end in .png (a grid) or .npz (arrays).")
    model = load_model(config.checkpoint)
    if not isinstance(model, ImageGAN):
        raise ValueError(f"{type(model).__name__} does not draw images from noise.")
    n = config.num_samples if config.num_samples is not None else len(config.labels or [0] * 64)
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"num_samples is {n}; it has to be a whole number from 1.")
    if config.ema and not model.ema:
        log_ema = "raw (the run kept no moving average)"
    else:
        log_ema = "moving average" if config.ema else "raw"
    labels = _labels(model, n, config.labels)
    generator = torch.Generator().manual_seed(config.seed)
    images = model.sample(n, labels=labels, generator=generator, ema=config.ema)

    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".png":
        columns = len(config.labels) if config.labels and len(config.labels) <= 16 else None
        save_png(image_grid(images, columns or math.ceil(math.sqrt(n))), output)
    else:
        arrays = [to_uint8(images).permute(0, 2, 3, 1).numpy()]
        if labels is not None:
            arrays.append(labels.numpy())
        np.savez_compressed(output, *arrays)
    print(f"{n} images in {output}, from the generator's weights: {log_ema}.")


def _labels(model: ImageGAN, n: int, asked: list[int] | None) -> torch.Tensor | None:
    """n labels that go round those asked for, or round all classes; None if unconditional."""
    if asked is None:
        asked = list(range(model.num_classes or 0))
    if model.num_classes is None:
        if asked:
            raise ValueError("This checkpoint's model is unconditional: it takes no labels.")
        return None
    if not asked or not all(isinstance(x, int) and 0 <= x < model.num_classes for x in asked):
        raise ValueError(
            f"labels={asked}: they have to be whole numbers from 0 to {model.num_classes - 1}."
        )
    return torch.tensor(asked, dtype=torch.int64).repeat(-(-n // len(asked)))[:n]
