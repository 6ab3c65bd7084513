"""What the framework costs: iterations as train.py runs them, against the same in a bare loop."""

import copy
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import TensorBoardLogger

from gan_zoo.callbacks import Health, TrainingProgress
from gan_zoo.console import seconds_since_start, works
from gan_zoo.data import InMemoryDataModule
from gan_zoo.files import CONFIG_DIR, atomic_write
from gan_zoo.ranges import Count, Range, Seed
from gan_zoo.run.checks import (
    bare_trainer,
    refuse_data_that_does_not_fit,
    refuse_unfit_values,
    refuse_what_cannot_work,
)
from gan_zoo.run.configuration import dataset_name
from gan_zoo.run.speed import Speed, mathematics
from gan_zoo.timing import PARTS, BareLoop, Blocks, Stopwatch, Turns
from gan_zoo.training.module import AdversarialModule

_KINDS = {
    "block": Count,
    "rounds": Annotated[int, Range(3, 10**6)],
    "seed": Seed,
    "output": str | None,
    "plot": str | None,
    "speed": Speed,
    "channels_last": bool,
    "cuda_graphs": bool,
}
# Batches that the bare loop has in memory.
_BATCHES = 16
_SIDES = ("framework", "barebones", "bare")
_WIDTHS = ("base_channels", "fc_units", "hidden")
_COSTS: dict[str, Sequence[float]] = {
    "batch size": (16, 32, 64, 128, 256),
    "image size": (28, 32, 64),
    "width": (0.5, 1, 2),
}


class _Framework(Blocks):
    """The framework's turns: each has a block, and another one that a stopwatch watches.

    Attributes:
        first_iteration: seconds from the start of the process to the end of the first iteration.
        memory: peak MB of the process after its first turn, before the other sides begin.
        held: MB that were held after each turn.
    """

    def __init__(self, turns: Turns, block: int) -> None:
        super().__init__(turns, "framework", block)
        self.stopwatch = Stopwatch(turns)
        self.first_iteration = self.memory = 0.0
        self.held: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *unused: Any) -> None:
        step = trainer.global_step
        if step == 1:
            self.turns.now()
            self.first_iteration = seconds_since_start()
        if step % self.block:
            return
        if step % (2 * self.block):
            self.turns.stop(self.side)
            self.stopwatch.begin(trainer, pl_module)
            return
        self.stopwatch.end()
        self.memory = self.memory or peak_memory(self.turns.device)
        self.held.append(held_memory(self.turns.device))
        self.turns.pass_on(self.side)


def benchmark(config: DictConfig) -> None:
    """Prints what an iteration takes under Lightning and bare, and where the difference is.

    The sides run in one process by turns of ``config.block`` iterations, so that what else the
    machine does meets all. The options are conf/benchmark.yaml's.
    """
    refuse_unfit_values(config, _KINDS)
    refuse_what_cannot_work(config)
    refuse_data_that_does_not_fit(config)
    processes = bare_trainer(config).world_size
    if processes > 1:
        raise ValueError(
            f"The bare loop has one process, and this trainer {processes}: take one device "
            "(trainer=default, cpu or gpu)."
        )
    config.dataset.name = dataset_name(config.dataset)
    measured = measure(config)
    print(_in_words(measured))
    if config.output:
        _write(measured, Path(config.output))
    if config.plot:
        measured["costs"] = list(_costs(config))
        _plot(measured, Path(config.plot))
        if config.output:
            _write(measured, Path(config.output))


def measure(config: DictConfig) -> dict[str, Any]:
    """One model's figures, as ``output`` has them."""
    pl.seed_everything(config.seed, verbose=False)
    model: AdversarialModule = instantiate(config.model)
    chosen = mathematics(config, lambda: bare_trainer(config).strategy.root_device)
    chosen.prepare(model)
    copies = {side: copy.deepcopy(model) for side in _SIDES}
    data: InMemoryDataModule = instantiate(config.dataset)
    data.prepare_data()
    data.setup()
    block, rounds = config.block, config.rounds + 1
    with tempfile.TemporaryDirectory() as folder:
        options = {"limit_val_batches": 0, "enable_checkpointing": False, **chosen.trainer}
        framework: pl.Trainer = instantiate(
            config.trainer,
            max_steps=2 * block * rounds,
            default_root_dir=folder,
            logger=TensorBoardLogger(folder, name="", version=""),
            callbacks=[TrainingProgress(), Health()],
            **options,
            _convert_="all",
        )
        device = framework.strategy.root_device
        turns = Turns(_SIDES, rounds, device)
        watched = _Framework(turns, block)
        framework.callbacks.append(watched)  # type: ignore[attr-defined]

        def barebones() -> None:
            kept = ("accelerator", "devices", "precision", "deterministic", "benchmark")
            trainer = pl.Trainer(
                **{name: config.trainer.get(name) for name in kept} | chosen.trainer,
                max_steps=block * rounds,
                max_epochs=-1,
                limit_val_batches=0,
                barebones=True,
                callbacks=[Blocks(turns, "barebones", block)],
            )
            trainer.fit(copies["barebones"], copy.copy(data))

        def bare() -> None:
            batches = _batches(copy.copy(data), copies["bare"], device)
            precision = framework.precision_plugin
            loop = BareLoop(copies["bare"], batches, block * rounds, precision, data)
            for _ in range(rounds):
                for _ in range(block):
                    loop.iterate()
                turns.stop("bare")
                turns.pass_on("bare")

        others = [threading.Thread(target=_take_part, args=(turns, *side), daemon=True)
                  for side in (("barebones", barebones), ("bare", bare))]  # fmt: skip
        for thread in others:
            thread.start()
        _take_part(turns, "framework", lambda: framework.fit(copies["framework"], data))
        for thread in others:
            thread.join()
        turns.raise_error()
    return _figures(config, model, turns, watched) | {"precision": str(framework.precision)}


def _take_part(turns: Turns, side: str, work: Callable[[], None]) -> None:
    """Does a side's work from its first turn on; an error ends all sides."""
    try:
        turns.begin(side)
        work()
    except BaseException as error:
        turns.fail(error)
        if threading.current_thread() is threading.main_thread():
            turns.raise_error()


def _batches(data: InMemoryDataModule, model: AdversarialModule, device: torch.device) -> list[Any]:
    data.trainer = None
    batches = []
    for batch in data.train_dataloader():
        batch = model.on_before_batch_transfer(batch, 0)
        batches.append(data.transfer_batch_to_device(batch, device, 0))
        if len(batches) == _BATCHES:
            break
    return batches


def peak_memory(device: torch.device) -> float:
    """MB: on a GPU what tensors held there at most, else what the process had resident at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def held_memory(device: torch.device) -> float:
    """MB: on a GPU what tensors hold there now, else what the process has resident.

    Where the system does not tell the latter, its peak.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 1e6
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return peak_memory(device)
    return int(pages.read_text().split()[1]) * resource.getpagesize() / 1e6


def _figures(
    config: DictConfig, model: AdversarialModule, turns: Turns, watched: _Framework
) -> dict[str, Any]:
    # The first round warms all sides up.
    ms = {
        side: [1000 * seconds / config.block for seconds in turns.seconds[side][1:]]
        for side in _SIDES
    }
    batch_size = config.dataset.batch_size
    sides = {}
    for side in _SIDES:
        ratios = [b / s for b, s in zip(ms["bare"], ms[side], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        sides[side] = {
            "ms": statistics.median(ms[side]),
            "images_per_second": 1000 * batch_size / statistics.median(ms[side]),
            "efficiency": median,
            "efficiency_quartiles": [low, high],
        }
    device = turns.device
    total = sum(watched.stopwatch.seconds.values())
    return {
        "model": type(model).__module__.rpartition(".")[2],
        "dataset": config.dataset.name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch_size": batch_size,
        "image_size": config.dataset.get("image_size"),
        "speed": config.speed,
        "block": config.block,
        "rounds": config.rounds,
        "sides": sides,
        "parts": {part: watched.stopwatch.seconds[part] / total for part in PARTS},
        "peak_memory_mb": watched.memory,
        "peak_memory_at_end_mb": peak_memory(device),
        "held_memory_mb": watched.held,
        "first_iteration_seconds": watched.first_iteration,
    }


def _in_words(measured: dict[str, Any]) -> str:
    lines = [
        f"{measured['model']} on {measured['dataset']}: {measured['device']}, batch "
        f"{measured['batch_size']}, {measured['precision']}, {measured['threads']} threads, "
        f"{measured['rounds']} rounds of {measured['block']} iterations",
        f"{'':12}{'ms':>9}{'images/s':>11}{'efficiency':>12}  quartiles",
    ]
    for side, figures in measured["sides"].items():
        low, high = figures["efficiency_quartiles"]
        lines.append(
            f"{side:12}{figures['ms']:9.2f}{figures['images_per_second']:11,.0f}"
            f"{figures['efficiency']:12.3f}  {low:.3f} to {high:.3f}"
        )
    parts = ", ".join(f"{part} {100 * share:.1f}" for part, share in measured["parts"].items())
    lines += [
        f"% of the framework's iteration: {parts}",
        f"{measured['first_iteration_seconds']:.1f} s from the start to the first iteration; peak "
        f"memory {measured['peak_memory_mb']:,.0f} MB, {measured['peak_memory_at_end_mb']:,.0f} MB "
        "after all sides",
        # The other sides' first turns follow on the framework's first.
        f"held memory {measured['held_memory_mb'][1]:,.0f} MB after the framework's second turn, "
        f"{measured['held_memory_mb'][-1]:,.0f} MB after its last",
    ]
    return "\n".join(lines)


def _write(measured: Any, file: Path) -> None:
    with atomic_write(file) as aside:
        aside.write_text(json.dumps(measured, indent=2) + "\n")


def _costs(config: DictConfig) -> Iterator[dict[str, Any]]:
    """The figures of other batch sizes, image sizes and widths than the one that was measured."""
    for axis, values in _COSTS.items():
        for value in values:
            other = _changed(config, axis, value)
            if other is None:
                continue
            try:
                refuse_what_cannot_work(other)
                figures = measure(other)
            except (ValueError, RuntimeError, InstantiationException) as error:
                print(f"{axis} {value}: left out, as {error}")
                continue
            yield {"axis": axis, "value": value, "sides": figures["sides"]}


def _changed(config: DictConfig, axis: str, value: float) -> DictConfig | None:
    """The configuration with another batch size, image size, or multiple of its widths.

    None where it has no such option.
    """
    other = copy.deepcopy(config)
    if axis != "width":
        name = axis.replace(" ", "_")
        if name not in other.dataset:
            return None
        other.dataset[name] = value
        return other
    widths = list(_widths(other.model))
    for node, name in widths:
        width = node[name]
        node[name] = (
            [max(1, int(w * value)) for w in width]
            if OmegaConf.is_list(width)
            else max(1, int(width * value))
        )
    return other if widths else None


def _widths(node: DictConfig) -> Iterator[tuple[DictConfig, str]]:
    for name in list(node):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        if OmegaConf.is_dict(node[name]):
            yield from _widths(node[name])
        elif name in _WIDTHS and node[name]:
            yield node, str(name)


def _plot(measured: dict[str, Any], file: Path) -> None:
    """Images per second of the framework and the bare loop, along each axis."""
    from matplotlib.figure import Figure

    axes = [a for a in _COSTS if any(c["axis"] == a for c in measured["costs"])]
    figure = Figure(figsize=(4 * len(axes), 3.5), layout="constrained")
    for number, axis in enumerate(axes, start=1):
        panel = figure.add_subplot(1, len(axes), number)
        points = [c for c in measured["costs"] if c["axis"] == axis]
        for side, marker in (("framework", "o-"), ("bare", "x--")):
            rates = [p["sides"][side]["images_per_second"] for p in points]
            panel.plot([p["value"] for p in points], rates, marker, label=side)
        label = axis if axis != "width" else "width, in the default's"
        panel.set(xlabel=label, xscale="log", ylabel="images/s", ylim=(0, None))
        panel.set_xticks([p["value"] for p in points], [str(p["value"]) for p in points])
        panel.minorticks_off()
        panel.legend()
    figure.suptitle(f"{measured['model']}, {measured['device']}, {measured['threads']} threads")
    with atomic_write(file) as aside:
        figure.savefig(aside, format=file.suffix.lstrip(".") or "png")


def benchmark_all(arguments: Sequence[str]) -> int:
    """Measures every model, each in a process of its own, and prints and writes one table.

    Args:
        arguments: the command line's, with ``model=all``.

    Returns:
        0, or 1 if one could not be measured.
    """
    output = next((a.removeprefix("output=") for a in arguments if a.startswith("output=")), None)
    rest = [a for a in arguments if a != "model=all" and not a.startswith("output=")]
    models = sorted(file.stem for file in (CONFIG_DIR / "model").glob("*.yaml"))
    if not works(rest):
        # What such a flag prints is alike for all.
        return subprocess.run([sys.executable, sys.argv[0], f"model={models[0]}", *rest]).returncode
    results, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            file = Path(folder) / f"{model}.json"
            command = [sys.executable, sys.argv[0], f"model={model}", f"output={file}", *rest]
            failed |= subprocess.run(command).returncode != 0
            if file.exists():
                results.append(json.loads(file.read_text()))
    print(table(results))
    if output:
        _write(results, Path(output))
    return int(failed)


def table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of several models' figures."""
    lines = [
        "| model | framework ms | bare ms | images/s | efficiency (quartiles) | barebones | "
        "peak MB | first iteration |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        framework, bare = r["sides"]["framework"], r["sides"]["bare"]
        low, high = framework["efficiency_quartiles"]
        lines.append(
            f"| `{r['model']}` | {framework['ms']:.1f} | {bare['ms']:.1f} | "
            f"{framework['images_per_second']:,.0f} | {framework['efficiency']:.3f} "
            f"({low:.3f} to {high:.3f}) | {r['sides']['barebones']['efficiency']:.3f} | "
            f"{r['peak_memory_mb']:,.0f} | {r['first_iteration_seconds']:.1f} s |"
        )
    return "\n".join(lines)
