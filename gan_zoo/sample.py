"""Draws images from a checkpoint into a picture or the field's usual sample file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from gan_zoo.checkpoint import load_model
from gan_zoo.models.base import NoiseToImage
from gan_zoo.plotting import image_grid, save_png, to_uint8

_MOST_COLUMNS = 16


def sample(config: DictConfig) -> None:
    """Samples as configured and writes ``config.output``.

    A ``.png`` becomes a grid. A ``.npz`` holds ``arr_0``, uint8 (N, H, W, C), and ``arr_1``: for
    conditional models the int64 labels (N,), for InfoGAN the float32 codes (N, number of codes).
    One seed gives the same images each time.

    Args:
        config: conf/sample.yaml, composed.

    Raises:
        ValueError: for a bad checkpoint, number, condition or kind of output; nothing is
            written then.
    """
    output = Path(config.output)
    if output.suffix not in (".png", ".npz"):
        raise ValueError(f"output={output} has to end in .png (a grid) or .npz (arrays).")
    model = load_model(config.checkpoint)
    if not isinstance(model, NoiseToImage):
        raise ValueError(f"{type(model).__name__} does not draw images from noise.")
    n = config.num_samples
    if n is not None and (not isinstance(n, int) or n < 1):
        raise ValueError(f"num_samples is {n}; it has to be a whole number from 1.")
    if config.ema and not model.ema:
        log_ema = "raw (the run kept no moving average)"
    else:
        log_ema = "moving average" if config.ema else "raw"
    conditions = OmegaConf.to_container(OmegaConf.masked_copy(config, ["labels", "codes"]))
    asked = {name: value for name, value in conditions.items() if value is not None}  # type: ignore[union-attr]
    inputs = model.sample_inputs(asked, n, torch.Generator().manual_seed(config.seed))  # type: ignore[arg-type]
    n = len(inputs["noise"])
    images = model.sample(n, **inputs, ema=config.ema)

    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".png":
        save_png(image_grid(images, _columns(asked) or math.ceil(math.sqrt(n))), output)
    else:
        arrays = [to_uint8(images).permute(0, 2, 3, 1).numpy()]
        arrays += [value.numpy() for name, value in inputs.items() if name != "noise"]
        np.savez_compressed(output, *arrays)
    print(f"{n} images in {output}, from the generator's weights: {log_ema}.")


def _columns(asked: Mapping[Any, Any]) -> int | None:
    """How many of the grid's images go round the last list of what was asked for."""
    lists = [asked.get("labels"), *(asked.get("codes") or [])]
    lengths = [len(values) for values in lists if isinstance(values, list) and len(values) > 1]
    return lengths[-1] if lengths and lengths[-1] <= _MOST_COLUMNS else None
