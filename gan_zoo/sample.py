"""Writes images that a checkpoint generates, walks between them, or pictures that it translates."""

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from gan_zoo.console import progress
from gan_zoo.data.base import normalised
from gan_zoo.data.pictures import files_in, load_pictures
from gan_zoo.files import atomic_write
from gan_zoo.metrics import Report
from gan_zoo.metrics.evaluator import images_of
from gan_zoo.metrics.neighbours import nearest
from gan_zoo.models.noise_to_image import NoiseToImage
from gan_zoo.models.text_to_image import TextToImage
from gan_zoo.models.translation import DIRECTIONS, Translator
from gan_zoo.plotting import (
    captioned,
    enlarged,
    ffmpeg,
    image_grid,
    interleaved,
    save_gif,
    save_mp4,
    save_png,
    to_uint8,
)
from gan_zoo.ranges import Count, Positive, Range, UnfitArgument
from gan_zoo.run.checks import refuse_unfit_values
from gan_zoo.run.folder import opened

_MOST_COLUMNS = 16
# Cells of a walk where nothing says how many, and the noises that each visits.
_CELLS, _STOPS = 16, 4
# Frames of a walk from one stop to the next, each of which stands for so many seconds.
_FRAMES, _SECONDS = 24, 0.05
# Of noise that is drawn again until it is near enough to 0.
_MOST_DRAWS = 10_000
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
    "truncation": Positive | None,
    "nearest": bool,
    "walk": bool,
    "frames": Count | None,
    "scale": Annotated[int, Range(1, 64)],
    "root": str | None,
}
_DRAWN = (".png", ".npz", "")
_WALKED = (".gif", ".mp4", "")


def sample(config: DictConfig) -> None:
    """Samples as conf/sample.yaml says and writes ``config.output``.

    A ``.png`` is a grid. A ``.npz`` holds ``arr_0``, uint8 (N, H, W, C), and ``arr_1``: for
    conditional models the int64 labels (N,), for InfoGAN the float32 codes (N, number of codes),
    for StackGAN and StackGAN++ the captions (N,). CoGAN's ``arr_0`` has pairs, (N, 2, H, W, C). A
    folder gets a PNG for each image, and ``conditions.csv``. The same seed gives the same images.

    With ``config.walk`` a ``.gif``, a ``.mp4`` or a folder of PNGs shows a grid whose cells go
    round: between the conditions that were asked for, or between four noises.

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
        written = _walk(model, config) if config.walk else _draw(model, config)
    else:
        raise ValueError(f"sample.py can't sample from a {type(model).__name__}.")
    print(f"{written}, by {path.name}; weights: {weights}.")


def _output(model: NoiseToImage, config: DictConfig, default: str, known: Sequence[str]) -> Path:
    """Where to write to; ValueError for options that do not suit."""
    if config.input is not None or config.direction is not None:
        name = type(model).__name__
        raise ValueError(f"{name} draws from noise: it takes no input and no direction.")
    output = Path(config.output or default)
    if output.suffix not in known:
        words = {
            ".png": ".png (a grid)", ".npz": ".npz (arrays)", ".gif": ".gif", ".mp4": ".mp4",
            "": "no dot (a folder)",
        }  # fmt: skip
        raise ValueError(
            f"output={output} has to end in {', '.join(words[k] for k in known[:-1])}, or "
            f"{words[known[-1]]}{' for a walk' if config.walk else ''}."
        )
    return output


def _draw(model: NoiseToImage, config: DictConfig) -> str:
    output = _output(model, config, "samples.png", _DRAWN)
    if config.frames is not None:
        raise UnfitArgument("frames", "is for a walk: give walk=true too.")
    if config.nearest and output.suffix != ".png":
        raise UnfitArgument("nearest", f"is shown in a grid: output={output} has to end in .png.")
    asked = _conditions(config)
    inputs = _inputs(model, config, asked, config.num_samples)
    n = len(inputs["noise"])
    with progress() as stage:
        images = _sampled(model, inputs, config.ema, stage("drawing images"))
        beside = _nearest(model, images, config, stage("searching neighbours"))
    columns = _columns(asked) or math.ceil(math.sqrt(n))
    if output.suffix == ".npz":
        arrays = [to_uint8(images).movedim(-3, -1).numpy()]
        arrays += [np.asarray(value) for name, value in inputs.items() if name != "noise"]
        with atomic_write(output) as aside, aside.open("wb") as file:
            np.savez_compressed(file, *arrays)
    elif output.suffix == ".png":
        if beside is not None:
            images = interleaved(torch.stack((images, beside), 1), columns)
        if "captions" in inputs:
            images, columns = captioned(images, inputs["captions"], columns), 1
        save_png(_grid(images, columns, config.scale), output)
    else:
        names = _numbered(n)
        for name, image in zip(names, images, strict=True):
            parts = image if image.dim() == 4 else image[None]
            save_png(_grid(parts, len(parts), config.scale, padding=0), output / name)
        _write_conditions(output / "conditions.csv", names, inputs)
    what = "images and their nearest training images" if beside is not None else "images"
    return f"{n} {what} in {output}"


def _walk(model: NoiseToImage, config: DictConfig) -> str:
    output = _output(model, config, "walk.gif", _WALKED)
    if config.nearest:
        raise UnfitArgument("nearest", "is for images, not for a walk.")
    if output.suffix == ".mp4":
        ffmpeg(output)
    asked = _conditions(config)
    n = config.num_samples or _CELLS
    stops = [_inputs(model, config, conditions, n) for conditions in _one_by_one(asked)]
    if len(stops) > 1:
        # What is not walked along stays.
        stops = [{**stop, "noise": stops[0]["noise"]} for stop in stops]
    else:
        others = [_inputs(model, config, asked, n, place) for place in range(1, _STOPS)]
        stops += [{**stops[0], "noise": other["noise"]} for other in others]
    if isinstance(model, TextToImage) and "captions" in stops[0]:
        # Once, not for each frame.
        stops = [{**stop, "captions": model.encode(stop["captions"])} for stop in stops]
    total = config.frames or _FRAMES * len(stops)
    columns = math.ceil(math.sqrt(n))
    pictures = []
    with progress() as stage:
        report = stage("drawing frames")
        for number in range(total):
            stop, share = divmod(number * len(stops) / total, 1)
            start, end = stops[int(stop)], stops[(int(stop) + 1) % len(stops)]
            inputs = model.between(start, end, share)
            images = model.sample(n, **inputs, ema=config.ema)
            pictures.append(_grid(images, columns, config.scale))
            report((number + 1) / total)
    if output.suffix:
        write = save_gif if output.suffix == ".gif" else save_mp4
        frames = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
        write(frames, output, _SECONDS * total)
    else:
        for name, picture in zip(_numbered(total), pictures, strict=True):
            save_png(picture, output / name)
    return f"{total} frames of {n} images, between {len(stops)} stops, in {output}"


def _inputs(
    model: NoiseToImage,
    config: DictConfig,
    asked: Mapping[str, Any],
    n: int | None,
    place: int = 0,
) -> dict[str, Any]:
    """``model.sample``'s arguments, with noise by the seed, its place, and ``truncation``."""
    random = torch.Generator().manual_seed(config.seed)
    for _ in range(place):
        model.draw_noise(n or 1, random)
    inputs = model.sample_inputs(asked, n, random)
    if config.truncation is not None:
        # Images of one noise keep one.
        rows, which = inputs["noise"].unique(dim=0, return_inverse=True)
        for _ in range(_MOST_DRAWS):
            far = rows.abs() > config.truncation
            if not far.any():
                break
            rows = torch.where(far, model.draw_noise(len(rows), random), rows)
        else:
            raise UnfitArgument(
                "truncation",
                f"is {config.truncation:g}, and hardly any of this model's noise is as near to 0.",
            )
        inputs["noise"] = rows[which]
    return inputs


def _one_by_one(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conditions that a walk stops at: each label, caption, or combination of codes."""
    stops: list[dict[str, Any]] = []
    for name, values in asked.items():
        if name == "codes":
            lists = [v if isinstance(v, list) else [v] for v in values]
            stops += [{name: list(choice)} for choice in itertools.product(*lists)]
        elif isinstance(values, list):
            stops += [{name: [value]} for value in values]
    return stops if len(stops) > 1 else [dict(asked)]


def _sampled(model: NoiseToImage, inputs: Mapping[str, Any], ema: bool, report: Report) -> Tensor:
    parts, done = [], 0
    for part, images in model.sample_in_parts(inputs, ema):
        parts.append(images)
        done += len(part["noise"])
        report(done / len(inputs["noise"]))
    return torch.cat(parts)


def _nearest(
    model: NoiseToImage, images: Tensor, config: DictConfig, report: Report
) -> Tensor | None:
    """The training image nearest to each image, by Euclidean distance, if that is asked for."""
    if not config.nearest:
        return None
    from gan_zoo.evaluate import data_of

    data = data_of(model, config.root)
    if data.domains != ("",):
        raise UnfitArgument("nearest", f"needs one domain of images, and {data.title} has others.")
    train = data.labelled("", "train")
    found = nearest(images.cpu(), images_of(train), len(train), report)
    return train.__getitems__(found.place.tolist())[0]


def _numbered(n: int) -> list[str]:
    """The names of so many pictures, in the order of the alphabet too."""
    digits = len(str(n - 1))
    return [f"{i:0{digits}}.png" for i in range(n)]


def _grid(images: Tensor, columns: int, scale: int, padding: int = 2) -> Tensor:
    """Images (N, C, H, W), or pairs (N, 2, C, H, W) one over the other, as one picture."""
    if images.dim() == 5:
        images = interleaved(images, columns)
    return image_grid(enlarged(images, scale), columns, padding)


def _write_conditions(file: Path, names: Sequence[str], inputs: Mapping[str, Any]) -> None:
    """A table of the images' files and what was asked for."""
    columns: dict[str, Sequence[Any]] = {"file": names}
    for name, values in inputs.items():
        if name == "codes":
            columns |= {f"code_{i}": code.tolist() for i, code in enumerate(values.unbind(1))}
        elif name != "noise":
            plain = values.tolist() if isinstance(values, Tensor) else values
            columns[name.removesuffix("s")] = plain
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    with atomic_write(file) as aside:
        aside.write_text(text.getvalue(), newline="")


def _translate(model: Translator, config: DictConfig) -> str:
    name, dataset = type(model).__name__, model.config["dataset"]
    if config.input is None:
        raise ValueError(f"{name} translates pictures: give input=, a picture or a folder.")
    unused = ("num_samples", "truncation", "nearest", "walk", "frames")
    for option in [*_conditions(config), *(option for option in unused if config[option])]:
        raise ValueError(f"{name} translates the input and takes no {option}.")
    if "channels" not in dataset:
        raise ValueError("This checkpoint's model translates points, not pictures.")
    output = Path(config.output or "translated")
    if output.is_file() or (output.suffix and not output.is_dir()):
        raise ValueError(f"output={output} has to be a folder, without a dot in its name.")
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
        save_png(enlarged(image.expand(3, -1, -1), config.scale), output / name)
    return f"{len(read)} pictures in {output}, {direction}"


def _conditions(config: DictConfig) -> dict[str, Any]:
    asked = OmegaConf.to_container(OmegaConf.masked_copy(config, ["labels", "codes", "captions"]))
    return {str(k): v for k, v in asked.items() if v is not None}  # type: ignore[union-attr]


def _columns(asked: Mapping[Any, Any]) -> int | None:
    """The length of the last list that was asked for: a row of the grid shows it once."""
    lists = [asked.get("labels"), asked.get("captions"), *(asked.get("codes") or [])]
    lengths = [len(values) for values in lists if isinstance(values, list) and len(values) > 1]
    return lengths[-1] if lengths and lengths[-1] <= _MOST_COLUMNS else None
