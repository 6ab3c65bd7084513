"""Makes the tables and pictures of docs/ and README.md from default runs of three seeds.

    python scripts/results.py            # trains and measures what is missing: half a day
    python scripts/results.py --only gan cgan --jobs 2

Runs are sweeps below runs/default, which are resumed when this is started again. How long an
iteration takes is measured afterwards, alone, with all cores.
"""

import argparse
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from PIL import Image

from gan_zoo.callbacks.metrics import LEVELS
from gan_zoo.comparison.leaderboard import Spread, over
from gan_zoo.comparison.runs import Run
from gan_zoo.files import atomic_write, read_json
from gan_zoo.run.report import METRICS_FILE

ROOT = Path(__file__).resolve().parent.parent
PAPERS = {
    "gan": ("Goodfellow et al. 2014", "1406.2661"),
    "cgan": ("Mirza and Osindero 2014", "1411.1784"),
    "dcgan": ("Radford et al. 2015", "1511.06434"),
    "infogan": ("Chen et al. 2016", "1606.03657"),
    "wgan": ("Arjovsky et al. 2017", "1701.07875"),
    "wgan_gp": ("Gulrajani et al. 2017", "1704.00028"),
    "r3gan": ("Huang et al. 2024", "2501.05441"),
    "began": ("Berthelot et al. 2017", "1703.10717"),
    "hdcgan": ("Curto et al. 2017", "1711.06491"),
    "cogan": ("Liu and Tuzel 2016", "1606.07536"),
    "discogan": ("Kim et al. 2017", "1703.05192"),
    "cyclegan": ("Zhu et al. 2017", "1703.10593"),
    "stackgan": ("Zhang et al. 2016", "1612.03242"),
    "stackgan_pp": ("Zhang et al. 2017", "1710.10916"),
}
SEEDS = (0, 1, 2)
MEASURED = "fid,score,prdc,modes"
# Of an iteration's time.
TIMED_STEPS = 200
# Pixels of a side of a digit in the pictures, and images in a row of the small ones.
SCALE, THUMBNAIL = 3, 4


def _short(value: float) -> str:
    """Three digits at most, without a leading zero."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return re.sub(r"^0(?=\.)", "", f"{value:.{digits}f}")


def _in_words(spread: Spread | None) -> str:
    if spread is None:
        return ""
    median, low, high = map(_short, spread)
    return f"{median} ({low}-{high})"


def command(script: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / script), *arguments], check=True)


def train(model: str, folder: Path, jobs: int) -> None:
    seeds = ",".join(map(str, SEEDS))
    side_by_side = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []
    command("train.py", "-m", f"model={model}", f"seed={seeds}", f"hydra.sweep.dir={folder}",
            *side_by_side)  # fmt: skip


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = read_json(run / METRICS_FILE, dict)
    return result


def measured(run: Path) -> dict[str, Any]:
    """``result_of`` a run whose 10,000 images are measured against the test set."""
    result = result_of(run)
    evaluation = result.get("evaluation", {}).get("last.ckpt", {})
    if evaluation.get("step") == result["steps"]:
        return result
    # Models that are asked for a class have it measured in training too.
    names = f"{MEASURED},accuracy" if "metrics/accuracy" in result else MEASURED
    command("evaluate.py", f"checkpoint={run}", f"metrics=[{names}]")
    return result_of(run)


def iteration_ms(model: str, folder: Path) -> float:
    """The median time of an iteration of the default run, alone on this machine."""
    run = folder / model
    if not (run / METRICS_FILE).is_file():
        command("train.py", f"model={model}", f"trainer.max_steps={TIMED_STEPS}",
                "trainer.log_every_n_steps=10", "callbacks.metrics=null",
                f"hydra.run.dir={run}")  # fmt: skip
    return float(result_of(run)["iteration_ms"])


class Model(NamedTuple):
    """What the default runs of a model came to.

    Attributes:
        folders: of its runs, by seed.
        results: ``measured`` of each.
        ms: the median time of an iteration.
    """

    name: str
    folders: list[Path]
    results: list[dict[str, Any]]
    ms: float

    def figure(self, key: str) -> Spread | None:
        """Over seeds; of two domains the worse one's."""
        worse = max if key in ("fid", "commonest") else min
        sets = [result["evaluation"]["last.ckpt"]["figures"] for result in self.results]
        values = [
            [figures[k]["value"] for k in (key, f"{key}_a", f"{key}_b") if k in figures]
            for figures in sets
        ]
        return over(worse(found, default=None) for found in values)

    @property
    def steps(self) -> int:
        return int(self.results[0]["steps"])

    @property
    def batch_size(self) -> float:
        return float(self.results[0]["images_seen"] / self.steps)

    def minutes(self, steps: float) -> float:
        return steps * self.ms / 60_000

    def minutes_to(self, level: int) -> str:
        """Median time to a distance; where fewer than half of the seeds reached it, a dash."""
        images = [r.get(f"reached/fid_{level}_images", math.inf) for r in self.results]
        median = self.minutes(statistics.median(images) / self.batch_size)
        return "-" if median == math.inf else _short(median)


def table(models: list[Model]) -> str:
    """The README's: a line a model."""
    lines = [
        "| | `model=` | paper | minutes | Frechet distance | coverage | own label "
        f"| minutes to {', '.join(map(str, LEVELS))} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for m in models:
        authors, number = PAPERS[m.name]
        link = f"[{authors}](https://arxiv.org/abs/{number})"
        accuracy, minutes = m.figure("accuracy"), m.minutes(m.steps)
        cells = [
            f"![](docs/pictures/{m.name}_small.png)", f"`{m.name}`", link, f"{minutes:.0f}",
            _in_words(m.figure("fid")), _short(c.median) if (c := m.figure("coverage")) else "",
            f"{100 * accuracy.median:.1f} %" if accuracy else "",
            ", ".join(m.minutes_to(level) for level in LEVELS),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def details(models: list[Model]) -> str:
    """The table of docs/results.md: each figure as median and range over the seeds."""
    keys = ("fid", "precision", "recall", "density", "coverage", "rarest", "commonest", "accuracy")
    lines = [
        f"| `model=` | iterations | ms | {' | '.join(keys)} |",
        "|---|---|---|" + "---|" * len(keys),
    ]
    for m in models:
        figures = [_in_words(m.figure(key)) for key in keys]
        lines.append(f"| `{m.name}` | {m.steps:,} | {_short(m.ms)} | {' | '.join(figures)} |")
    return "\n".join(lines)


def replace(file: Path, mark: str, text: str) -> None:
    """Puts the text between a file's lines ``<!-- mark -->`` and ``<!-- /mark -->``."""
    before = file.read_text()
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
    if not re.search(pattern, before, re.DOTALL):
        raise SystemExit(f"{file} has no lines '<!-- {mark} -->' and '<!-- /{mark} -->'.")
    after = re.sub(pattern, lambda m: f"{m[1]}{text}\n{m[2]}", before, flags=re.DOTALL)
    with atomic_write(file) as aside:
        aside.write_text(after)


def draw(model: Model, folder: Path) -> None:
    """The last grid of the first seed, as the run drew it, and its first images for the table."""
    run = Run(model.folders[0], model.name)
    grids = run.grids()
    last = max(grids)
    with Image.open(grids[last]) as picture:
        grid = picture.convert("RGB")
    # Of a cell with the line around it.
    side = run.config["dataset.image_size"] + 2
    first = grid.crop((0, 0, THUMBNAIL * side, 2 * side))
    if grid.width > 600:
        # With captions, which a cell would cut.
        first = grid.reduce(4)
    for name, part, scale in ((model.name, grid, SCALE), (f"{model.name}_small", first, 1)):
        scale = 1 if part.width > 600 else scale
        size = (scale * part.width, scale * part.height)
        with atomic_write(folder / f"{name}.png") as aside:
            part.resize(size, Image.Resampling.NEAREST).save(aside, "PNG", optimize=True)


def draw_curves(models: list[Model], file: Path) -> None:
    """Frechet distance over images seen: each seed's, of each model."""
    rows = -(-len(models) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(13, 2.8 * rows), sharey=True, squeeze=False)
    for axis in axes.flat[len(models) :]:
        axis.set_visible(False)
    for axis, model in zip(axes.flat, models, strict=False):
        for seed, folder in zip(SEEDS, model.folders, strict=False):
            curve = Run(folder, model.name).logged.get("metrics/fid", {})
            seen = [step * model.batch_size / 1e6 for step in curve]
            axis.plot(seen, list(curve.values()), label=f"seed {seed}")
        for level in LEVELS:
            axis.axhline(level, color="grey", linewidth=0.5)
        axis.set(yscale="log", title=model.name)
    for axis in axes[-1]:
        axis.set_xlabel("million images seen")
    for axis in axes[:, 0]:
        axis.set_ylabel("Frechet distance")
    axes[0, 0].legend()
    figure.tight_layout()
    with atomic_write(file) as aside:
        figure.savefig(aside, format="png", dpi=80)


def main() -> None:
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--runs", type=Path, default=Path("runs/default"), help="where runs are")
    parser.add_argument("--only", nargs="+", choices=PAPERS, default=list(PAPERS), metavar="MODEL")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, one core each")
    asked = parser.parse_args()
    for name in asked.only:
        train(name, asked.runs / name, asked.jobs)
    models = []
    for name in asked.only:
        finished = (file.parent for file in (asked.runs / name).glob(f"*/{METRICS_FILE}"))
        runs = {run: measured(run) for run in finished}
        folders = sorted(runs, key=lambda run: int(runs[run]["seed"]))
        ms = iteration_ms(name, asked.runs / "speed")
        models.append(Model(name, folders, [runs[run] for run in folders], ms))
    pictures = ROOT / "docs" / "pictures"
    pictures.mkdir(exist_ok=True)
    for model in models:
        draw(model, pictures)
    draw_curves(models, pictures / "curves.png")
    print(table(models), details(models), sep="\n\n")
    if len(models) == len(PAPERS):
        replace(ROOT / "README.md", "models", table(models))
        replace(ROOT / "docs" / "results.md", "models", details(models))


if __name__ == "__main__":
    main()
