"""Writes images that a checkpoint generates, or pictures that it translates."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from gan_zoo.data.base import normalised
from gan_zoo.data.pictures import files_in, load_pictures
from gan_zoo.files import atomic_write
from gan_zoo.models.noise_to_image import NoiseToImage
from gan_zoo.models.translation import DIRECTIONS, Translator
from gan_zoo.plotting import captioned, image_grid, interleaved, save_png, to_uint8
from gan_zoo.ranges import Range
from gan_zoo.run.checks import refuse_unfit_values
from gan_zoo.run.folder import opened

_MOST_COLUMNS = 16
_KINDS: dict[str, Any] = {
    "checkpoint": str,
    "which": Literal["last", "best"],
    "output": str | None,
    "input": str | None,
    "direction": str | None,
    "when_broken": str,
    "num_samples": Annotated[int, Range(1, 10**7)] | None,
    "seed": Annotated[int, Range(0, 2**63 - 1)],
    "labels": list | None,
    "codes": list | None,
    "captions": str | list[str] | None,
    "ema": bool,
}


def sample(config: DictConfig) -> None:
    """Samples as conf/sample.yaml says and writes ``config.output``.

    A ``.png`` is a grid. A ``.npz`` holds ``arr_0``, uint8 (N, H, W, C), and ``arr_1``: for
    conditional models the int64 labels (N,), for InfoGAN the float32 codes (N, number of codes),
    for StackGAN and StackGAN++ the captions (N,). CoGAN's ``arr_0`` has pairs, (N, 2, H, W, C). The
    same seed gives the same images.

    Models that translate take ``config.input``, a picture or a folder of pictures, and write a PNG
    of the same name for each into the folder ``config.output``. After an error (an unfit
    checkpoint, option, condition, input or output) nothing is written.
    """
    refuse_unfit_values(config, _KINDS)
    path, _, model = opened(config)
    weights = "moving average" if config.ema else "raw"
    if config.ema and not model.ema:
        weights = "raw (the run kept no moving average)"
    if isinstance(model, Translator):
        written = _translate(model, config)
    elif isinstance(model, NoiseToImage):
        written = _draw(model, config)
    else:
        raise ValueError(f"sample.py can't sample from a {type(model).__name__}.")
    print(f"{written}, by {path.name}; weights: {weights}.")


def _draw(model: NoiseToImage, config: DictConfig) -> str:
    name = type(model).__name__
    if config.input is not None or config.direction is not None:
        raise ValueError(f"{name} draws from noise: it takes no input and no direction.")
    output = Path(config.output or "samples.png")
    if output.suffix not in (".png", ".npz"):
        raise ValueError(f"output={output} has to end in .png (a grid) or .npz (arrays).")
    asked = _conditions(config)
    random = torch.Generator().manual_seed(config.seed)
    inputs = model.sample_inputs(asked, config.num_samples, random)
    n = len(inputs["noise"])
    images = model.sample(n, **inputs, ema=config.ema)

    if output.suffix == ".png":
        columns = _columns(asked) or math.ceil(math.sqrt(n))
        if "captions" in inputs:
            images, columns = captioned(images, inputs["captions"], columns), 1
        elif images.dim() == 5:
            images = interleaved(images, columns)
        save_png(image_grid(images, columns), output)
    else:
        arrays = [to_uint8(images).movedim(-3, -1).numpy()]
        arrays += [np.asarray(value) for name, value in inputs.items() if name != "noise"]
        with atomic_write(output) as aside, aside.open("wb") as file:
            np.savez_compressed(file, *arrays)
    return f"{n} images in {output}"


def _translate(model: Translator, config: DictConfig) -> str:
    name, dataset = type(model).__name__, model.config["dataset"]
    if config.input is None:
        raise ValueError(f"{name} translates pictures: give input=, a picture or a folder.")
    for option in [*_conditions(config), *(["num_samples"] if config.num_samples else [])]:
        raise ValueError(f"{name} translates the input and takes no {option}.")
    if "channels" not in dataset:
        raise ValueError("This checkpoint's model translates points, not pictures.")
    output = Path(config.output or "translated")
    if output.is_file() or output.suffix in (".png", ".npz"):
        raise ValueError(f"output={output} has to be a folder.")
    source = Path(config.input)
    files = [source] if source.is_file() else files_in(source, "input")
    shape = dataset["image_size"], dataset["channels"]
    read, pixels = load_pictures(files, *shape, config.when_broken)
    names = [f"{path.stem}.png" for path in read]
    ((most, times),) = Counter(names).most_common(1)
    if times > 1:
        raise ValueError(f"Several pictures would become '{output / most}': rename them.")
    direction = config.direction or DIRECTIONS[0]
    images = model.sample(len(read), source=normalised(pixels), direction=direction, ema=config.ema)

    for name, image in zip(names, to_uint8(images), strict=True):
        save_png(image.expand(3, -1, -1), output / name)
    return f"{len(read)} pictures in {output}, {direction}"


def _conditions(config: DictConfig) -> dict[str, Any]:
    asked = OmegaConf.to_container(OmegaConf.masked_copy(config, ["labels", "codes", "captions"]))
    return {str(k): v for k, v in asked.items() if v is not None}  # type: ignore[union-attr]


def _columns(asked: Mapping[Any, Any]) -> int | None:
    """The length of the last list that was asked for: a row of the grid shows it once."""
    lists = [asked.get("labels"), asked.get("captions"), *(asked.get("codes") or [])]
    lengths = [len(values) for values in lists if isinstance(values, list) and len(values) > 1]
    return lengths[-1] if lengths and lengths[-1] <= _MOST_COLUMNS else None
