"""Measures what a checkpoint generates, and trains evaluators."""

import ctypes
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from errno import EISDIR
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich import box
from rich.table import Table
from torch import Tensor

from gan_zoo.console import print_table, progress
from gan_zoo.data import GaussianMixtureDataModule, InMemoryDataModule
from gan_zoo.data.captions import CaptionDataModule
from gan_zoo.files import atomic_write, cache_dir, one_at_a_time, read_json
from gan_zoo.metrics import evaluator as evaluators
from gan_zoo.metrics.agreement import covered_modes
from gan_zoo.metrics.inception import Inception
from gan_zoo.metrics.measures import MEASURES, Figure, available, floor_of
from gan_zoo.metrics.reference import ImageSet, Reference, image_sets, in_domain, reference_for
from gan_zoo.models.protocols import Sampled
from gan_zoo.plotting import image_grid, interleaved, save_png
from gan_zoo.ranges import Count, Range, Seed, UnfitArgument
from gan_zoo.run.checks import refuse_unfit_options, refuse_unfit_values
from gan_zoo.run.folder import opened, run_of
from gan_zoo.run.report import METRICS_FILE

# Of glibc's malloc.h, and bytes.
_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 2**20
# Columns of each half of the picture of nearest neighbours.
_SHOWN = 10
_KINDS: dict[str, Any] = {
    "checkpoint": str,
    "which": Literal["last", "best"],
    "metrics": str | list[str] | None,
    "num_samples": Annotated[int, Range(2, 10**7)] | None,
    "evaluator": str | None,
    "inception_weights": str | None,
    "seed": Seed,
    "ema": bool,
    "root": str | None,
}
_TRAINING_KINDS: dict[str, Any] = {
    "domain": str,
    "epochs": Count,
    "seed": Seed,
    "output": str | None,
}


class Row(NamedTuple):
    """A line of the table: a figure, the same one of real images, and the paper's, if there are."""

    figure: Figure
    floor: Figure | None
    paper: str = ""


def evaluate(config: DictConfig) -> None:
    """Measures as conf/evaluate.yaml says, prints a table and writes figures into the run's folder.

    Images are measured against the test set. ``metrics.json`` gets, under ``evaluation`` and the
    checkpoint's name, each figure with its floor: the same measure of real training images. For
    ``memorisation`` a picture of generated images over their nearest training and test images is
    written into the same folder. After an error (an unfit checkpoint, option or metric, or data
    other than the run's) nothing is written.
    """
    refuse_unfit_values(config, _KINDS)
    _known_names(config.metrics)
    _give_memory_back()
    path, checkpoint, model = opened(config)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    pl.seed_everything(config.seed, verbose=False)
    data = data_of(model, config.root)
    inception = Inception(Path(config.inception_weights)) if config.inception_weights else None
    judged = data.has_classes or bool(config.evaluator)
    names = _names(config.metrics, model, data, judged, bool(inception))
    n = config.num_samples or data.measured_images
    weights = "moving average" if config.ema and model.ema else "raw"
    random = torch.Generator().manual_seed(config.seed)
    step = checkpoint["global_step"]
    about: dict[str, Any] = {"step": step, "weights": weights, "seed": config.seed}
    rows: dict[str, Row] = {}
    pictures: dict[str, Tensor] = {}
    with progress() as stage:
        if isinstance(data, GaussianMixtureDataModule):
            rows = _of_points(model, data, n, random, config.ema)
        else:
            given = evaluators.load_evaluator(Path(config.evaluator)) if config.evaluator else None
            references, judges = {}, {}
            for domain in data.domains:
                report = stage(in_domain("evaluator", domain))
                reference = reference_for(
                    data, domain, "test", cache_dir(), report, given, inception
                )
                references[domain] = reference
                if e := reference.evaluator:
                    judges[domain] = {"name": e.name, "hash": e.hash, "accuracy": e.accuracy}
            about |= {"resize": reference.resize, "evaluators": judges}
            about |= {"inception": inception.hash} if inception else {}
            chunks = model.generated_images(n, data.source(), random, config.ema)
            pixels = any("pixels" in MEASURES[name].needs for name in names)
            sets = image_sets(chunks, references, n, pixels, stage("drawing images"))
            for domain, generated in sets.items():
                reference = references[domain]
                for name in names:
                    report = stage(in_domain(name, domain))
                    figures = MEASURES[name].function(generated, reference, config.seed, report)
                    floors = floor_of(name, reference, len(generated), config.seed)
                    for figure, value in figures.items():
                        paper = model.published.get((data.title, figure), "")
                        rows[in_domain(figure, domain)] = Row(value, floors.get(figure), paper)
                if "memorisation" in names:
                    file = f"{in_domain('nearest', domain)}.png"
                    pictures[file] = _neighbours(generated, reference, config.seed)

    folder = run_of(path)
    for file, picture in pictures.items():
        save_png(picture, folder / file)
    key = path.name if weights != "raw" or not model.ema else f"{path.name} (raw)"
    _write(folder / METRICS_FILE, key, about, rows)
    _print(f"{type(model).__name__} on {data.title}", about, rows)
    print(f"Written to {folder / METRICS_FILE}", *(f"and {folder / file}" for file in pictures))


def _give_memory_back() -> None:
    """Has freed tensors' memory returned to the system, which keeps 400 MB less of 50,000 images.

    By default, glibc learns from what is freed to keep blocks of up to 32 MB for later.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def train_evaluator(config: DictConfig) -> None:
    """Trains an evaluator as conf/train_evaluator.yaml says, and writes it."""
    refuse_unfit_values(config, _TRAINING_KINDS)
    refuse_unfit_options(config)
    data: InMemoryDataModule = instantiate(config.dataset)
    if config.domain not in data.domains:
        expected = " or ".join(d or "empty" for d in data.domains)
        raise UnfitArgument("domain", f"is '{config.domain}'; for this dataset it is {expected}.")
    data.prepare_data()
    data.setup()
    name = data.evaluator_name(config.domain)
    output = Path(config.output or f"{name}.safetensors")
    if output.suffix != ".safetensors":
        raise ValueError(f"output={output} has to end in .safetensors.")
    # Before time is spent on what can't be written.
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.is_dir():
        raise IsADirectoryError(EISDIR, "Is a directory", str(output))
    train, test = (data.evaluator_images(config.domain, part) for part in (True, False))
    if int(train.labels.min()) < 0:
        raise ValueError(f"{name} has no classes for an evaluator to learn.")
    with progress() as stage:
        report = stage(f"training the evaluator of {name}")
        evaluator = evaluators.train_evaluator(
            train, test, name, config.epochs, config.seed, data.framed_from, report
        )
    evaluators.save_evaluator(evaluator, output)
    print(
        f"{output}: right on {100 * evaluator.accuracy:.2f} % of {len(test):,} test images, "
        f"{output.stat().st_size / 1e6:.2f} MB, hash {evaluator.hash}"
    )


def data_of(model: Any, root: str | None = None) -> InMemoryDataModule:
    """The data that a checkpoint's model was trained on, set up.

    Args:
        root: the data folder, or that of the user's own pictures; None for the folder that
            GAN_ZOO_DATA_DIR names, or else the run's.
    """
    options = dict(model.config["dataset"])
    if "when_unavailable" not in options:
        options |= {"root": root} if root and "root" in options else {}
    else:
        # Only the user says where something may be written to.
        root = root or os.environ.get("GAN_ZOO_DATA_DIR")
        options |= (
            {"root": root, "when_unavailable": "error"} if root else {"when_unavailable": "offline"}
        )
    data: InMemoryDataModule = instantiate(options)
    encoder = getattr(model, "text_encoder", None)
    if isinstance(data, CaptionDataModule) and encoder is not None:
        # The model's own one, which is trained already.
        data.text_encoder = encoder
    data.prepare_data()
    data.setup()
    return data


def _known_names(asked: Any) -> list[str]:
    names = [asked] if isinstance(asked, str) else list(MEASURES if asked is None else asked)
    if not names:
        raise UnfitArgument("metrics", "is an empty list; null measures all that apply.")
    for name in names:
        if name not in MEASURES:
            known = ", ".join(MEASURES)
            raise UnfitArgument("metrics", f"has no metric '{name}'. There are: {known}.")
    return names


def _names(
    asked: Any, model: Sampled, data: InMemoryDataModule, judged: bool, inception: bool
) -> list[str]:
    """The metrics to measure: those asked for, or all that this model and its data allow."""
    names = _known_names(asked)
    has = available(model.real_images(data.source().__getitems__([0])), judged, inception)
    for name in names if asked is not None else ():
        if isinstance(data, GaussianMixtureDataModule) and name != "modes":
            raise ValueError(f"{name} is measured of images; of points, modes is.")
        lacking = MEASURES[name].needs - has
        what = f"the classes of the images, and {data.name} has none"
        if "labels" in lacking:
            what = f"a model that is asked for a class, and this {type(model).__name__} is not"
        if "inception" in lacking:
            what = "Inception's weights, which inception_weights=FILE gives"
            raise ValueError(f"{name} needs {what} (docs/metrics.md): give them, or leave it out.")
        if lacking:
            raise ValueError(f"{name} needs {what}: leave it out.")
    return [name for name in names if MEASURES[name].needs <= has]


def _of_points(
    model: Sampled, data: GaussianMixtureDataModule, n: int, random: torch.Generator, ema: bool
) -> dict[str, Row]:
    """The only measure of points: which modes of the mixture they cover."""
    parts = list(model.generated_images(n, data.source(), random, ema))
    rows: dict[str, Row] = {}
    for domain, centres in (("a", data.centres_a), ("b", data.centres_b)):
        fake = torch.cat([part[domain].image.cpu() for part in parts])
        modes, near = [], []
        for points in (fake, getattr(data.test, domain).data):
            count, share = covered_modes(points, centres, data.std)
            detail = f"of {len(centres)}, 1 % of the points or more"
            modes.append(Figure(count, None, len(points), 0, detail))
            near.append(Figure(share, None, len(points), 0, "share within 3 deviations"))
        rows[f"modes_{domain}"] = Row(modes[0], modes[1])
        rows[f"near_a_mode_{domain}"] = Row(near[0], near[1])
    return rows


def _neighbours(generated: ImageSet, reference: Reference, seed: int) -> Tensor:
    """Generated images over their nearest training and test images.

    On the left those with the smallest ratio of the distances to the nearest training and the
    nearest test image; on the right the first ones.
    """
    rows, found = generated.nearest_real(reference, seed)
    train, test = found.nearest_train, found.nearest_test
    closest = (train.distance / test.distance.clamp(min=1e-6)).argsort()[:_SHOWN]
    shown = torch.cat([closest, torch.arange(len(closest))])
    sets = (
        generated.pixels[rows[shown]],
        torch.cat(list(reference.training_pixels(train.place[shown]))),
        reference.real.pixels[test.place[shown]],
    )
    return image_grid(interleaved(torch.stack(sets, 1), len(shown)), len(shown))


def _write(file: Path, key: str, about: Mapping[str, Any], rows: Mapping[str, Row]) -> None:
    """Adds the figures to the file; those of another state of the checkpoint are replaced."""
    added = {
        name: {
            **figure._asdict(),
            "floor": floor and floor.value,
            "floor_spread": floor and floor.spread,
            **({"paper": paper} if paper else {}),
        }
        for name, (figure, floor, paper) in rows.items()
    }
    with one_at_a_time(file):
        metrics = read_json(file, dict)
        evaluation = metrics.setdefault("evaluation", {})
        before = evaluation.get(key, {})
        same = all(before.get(name) == value for name, value in about.items())
        kept = before.get("figures", {}) if same else {}
        evaluation[key] = {**about, "figures": kept | added}
        with atomic_write(file) as aside:
            aside.write_text(json.dumps(metrics, indent=2) + "\n")


def _print(what: str, about: Mapping[str, Any], rows: Mapping[str, Row]) -> None:
    judges = "\n".join(
        f"evaluator: {e['name']} {e['hash']}, accuracy {100 * e['accuracy']:.2f} %"
        for e in about.get("evaluators", {}).values()
    )
    table = Table(
        title=f"{what}, iteration {about['step']:,}\n"
        f"weights: {about['weights']}, seed {about['seed']}",
        caption=f"{judges or 'evaluator: none'}\nresizing: {about.get('resize', 'none')}",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        min_width=64,
    )
    papers = any(row.paper for row in rows.values())
    table.add_column("figure", no_wrap=True)
    for column in ("value", "floor", *(["paper"] if papers else []), "of"):
        is_text = column == "paper"
        table.add_column(column, justify="left" if is_text else "right", no_wrap=not is_text)
    table.add_column("detail")
    for name, (figure, floor, paper) in rows.items():
        numbers = _number(figure), _number(floor) if floor else "", *([paper] if papers else [])
        of = f"{figure.n_fake:,}" + (f"/{figure.n_real:,}" if figure.n_real else "")
        table.add_row(name, *numbers, of, figure.detail)
    print_table(table)


def _number(figure: Figure) -> str:
    value, spread = figure.value, figure.spread
    if spread is not None:
        places = max(0, 1 - math.floor(math.log10(spread))) if spread > 0 else 4
        return f"{value:.{places}f} ± {spread:.{places}f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
