"""Makes the tables and pictures of README.md and docs/ from default runs.

    python scripts/results.py                        # trains and measures what is missing: a day
    python scripts/results.py --only gan cgan --jobs 2
    python scripts/results.py --only gan --finished  # measures finished runs, trains nothing
    python scripts/results.py --pages                # pages from the records that there are

Runs are sweeps below runs/default, which are resumed when this is started again. How long an
iteration takes is measured afterwards, alone, with all cores. What a model's runs came to is kept
in docs/results/MODEL.json; the pages are made of these records and of the pictures.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image, ImageDraw, ImageFont

import gan_zoo
from gan_zoo.callbacks.metrics import LEVELS
from gan_zoo.claims.domains import pairs_agree
from gan_zoo.claims.images import digit_categories
from gan_zoo.comparison.leaderboard import Spread, over
from gan_zoo.comparison.runs import Run
from gan_zoo.evaluate import data_of
from gan_zoo.files import atomic_write, read_json
from gan_zoo.models.translation import Translator
from gan_zoo.plotting import image_grid, interleaved, read_png, save_gif, widened
from gan_zoo.reproduce import sweep
from gan_zoo.run.report import METRICS_FILE

ROOT = Path(__file__).resolve().parent.parent
RECORDS, PICTURES = ROOT / "docs" / "results", ROOT / "docs" / "pictures"
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
# The claim, its arm and its figure that stand beside the paper's, and what the figure is.
CLAIMS: dict[str, tuple[str, str | None, str, str]] = {
    "gan": ("gan_parzen", "gan", "parzen", "Parzen likelihood"),
    "cgan": ("cgan_parzen", "cgan", "parzen", "Parzen likelihood"),
    "dcgan": ("dcgan_nearest", "dcgan", "one_nn", "nearest neighbour's error"),
    "infogan": ("infogan_codes", "infogan", "category_error", "outside the category's digit"),
    "wgan": ("wgan_correlation", "convolutional", "correlation", "loss and distance correlate"),
    "wgan_gp": ("stacked_mnist", "wgan_gp", "modes", "stacked modes"),
    "r3gan": ("stacked_mnist", "r3gan", "modes", "stacked modes"),
    "began": ("began_balance", "gamma .75", "off_balance", "balance off gamma"),
    "hdcgan": ("hdcgan_selu", None, "fid_ratio", "distance over DCGAN's"),
    "cogan": ("cogan_agreement", "edges", "binary", "pixels that agree"),
    "discogan": ("discogan_modes", "discogan", "modes", "modes of the toy"),
    "cyclegan": ("cyclegan_ablation", "coloured", "label_kept", "digits kept"),
    "stackgan": ("stackgan_stages", "stackgan", "stages", "score over Stage I's"),
    "stackgan_pp": ("stackgan_pp_frechet", "stackgan_pp", "digit", "digit as asked for"),
}
MEASURED = "fid,score,prdc,modes"
SHOWN = ("fid", "precision", "recall", "density", "coverage", "rarest", "commonest", "accuracy")
# Of an iteration's time.
TIMED_STEPS = 200
# Images of a tile and of its rows, and frames of an animation.
TILE, TILE_ROW, FRAMES = 16, 4, 10


def _short(value: float) -> str:
    """Three digits at most, without a leading zero."""
    digits = 3 if abs(value) < 0.2 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return re.sub(r"^0(?=\.)", "", f"{value:.{digits}f}")


def _in_words(spread: Spread | None) -> str:
    if spread is None:
        return ""
    median, low, high = map(_short, spread)
    return median if low == high else f"{median} ({low}-{high})"


class Record(NamedTuple):
    """What the default runs of a model came to; docs/results/MODEL.json has the same.

    Attributes:
        iteration_ms: the median time of an iteration, alone on the machine, with all cores.
        provenance: command, versions and evaluators of one of the runs.
        seeds: seed -> its ``figures`` on the test images, the ``images`` seen when it first
            ``reached`` a level of the Frechet distance to validation images, the ``curve`` of
            that distance over the images seen, and the code's ``git_commit``.
    """

    model: str
    iterations: int
    batch_size: int
    iteration_ms: float
    provenance: dict[str, Any]
    seeds: dict[str, dict[str, Any]]

    def figure(self, key: str) -> Spread | None:
        """Over seeds; of two domains the worse one's."""
        worse = max if key in ("fid", "commonest") else min
        names = (key, f"{key}_a", f"{key}_b")
        sets = [seed["figures"] for seed in self.seeds.values()]
        values = [[figures[k] for k in names if k in figures] for figures in sets]
        return over(worse(found, default=None) for found in values)

    def minutes(self, iterations: float) -> float:
        return iterations * self.iteration_ms / 60_000

    def minutes_to(self, level: int) -> str:
        """Median time to a distance; where fewer than half of the seeds reached it, a dash."""
        images = [seed["reached"].get(str(level), math.inf) for seed in self.seeds.values()]
        median = self.minutes(statistics.median(images) / self.batch_size)
        return "-" if median == math.inf else _short(median)


def command(script: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / script), *arguments], check=True)


def train(model: str, seeds: Sequence[int], folder: Path, jobs: int) -> None:
    if code := sweep(ROOT / "scripts" / "train.py", [f"model={model}"], seeds, folder, jobs):
        raise SystemExit(code)


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
    asked = any(key.startswith("metrics/accuracy") for key in result)
    names = f"{MEASURED},accuracy" if asked else MEASURED
    command("evaluate.py", f"checkpoint={run}", f"metrics=[{names}]")
    return result_of(run)


def also_measured(model: str, run: Path) -> dict[str, float]:
    """Figures of what a paper claims, which evaluate.py does not measure; kept in the run's folder.

    Of InfoGAN how well its categories know digits, of CoGAN how far its pairs correspond.
    """
    protocol = {"infogan": digit_categories, "cogan": pairs_agree}.get(model)
    file = run / "also.json"
    if protocol is None or file.is_file():
        return read_json(file, dict)
    found = dict(protocol(run).figures)
    with atomic_write(file) as aside:
        aside.write_text(json.dumps(found))
    return found


def iteration_ms(model: str, folder: Path) -> float:
    """The median time of an iteration of the default run, alone on this machine."""
    run = folder / model
    if not (run / METRICS_FILE).is_file():
        command("train.py", f"model={model}", f"trainer.max_steps={TIMED_STEPS}",
                "trainer.log_every_n_steps=10", "callbacks.metrics=null",
                f"hydra.run.dir={run}")  # fmt: skip
    return float(result_of(run)["iteration_ms"])


def by_seed(folder: Path) -> dict[int, Path]:
    """The finished runs of a sweep."""
    runs = [file.parent for file in folder.glob(f"*/{METRICS_FILE}")]
    return dict(sorted((int(result_of(run)["seed"]), run) for run in runs))


def record_of(model: str, runs: dict[int, Path], ms: float) -> Record:
    """Of these runs, and of other seeds that were recorded after as many iterations."""
    results = {seed: measured(run) for seed, run in runs.items()}
    first = next(iter(results.values()))
    evaluation = first["evaluation"]["last.ckpt"]
    begun = {seed: read_json(run / "provenance.json", list)[-1] for seed, run in runs.items()}
    batch_size = round(first["images_seen"] / first["steps"])
    before = read_json(RECORDS / f"{model}.json", dict)
    seeds = before["seeds"] if before.get("iterations") == first["steps"] else {}
    for seed, result in results.items():
        figures = result["evaluation"]["last.ckpt"]["figures"]
        reached = {str(level): result.get(f"reached/fid_{level}_images") for level in LEVELS}
        logged = Run(runs[seed], model).logged
        curve = next((v for k, v in logged.items() if k.startswith("metrics/fid")), {})
        seeds[str(seed)] = {
            "figures": {key: round(row["value"], 4) for key, row in figures.items()}
            | {key: round(v, 4) for key, v in also_measured(model, runs[seed]).items()},
            "reached": {level: images for level, images in reached.items() if images},
            "curve": {str(step * batch_size): round(fid, 4) for step, fid in curve.items()},
            "git_commit": begun[seed]["git_commit"],
        }
    seeds = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
    provenance = {
        "command": f"python scripts/train.py -m model={model} seed={','.join(seeds)}",
        "evaluators": {key: judge["hash"] for key, judge in evaluation["evaluators"].items()},
        **{key: next(iter(begun.values()))[key] for key in ("versions", "device")},
    }
    return Record(model, first["steps"], batch_size, ms, provenance, seeds)


def records() -> dict[str, Record]:
    """Those that there are, in the order of the table."""
    files = {name: RECORDS / f"{name}.json" for name in PAPERS}
    return {name: Record(**read_json(f, dict)) for name, f in files.items() if f.is_file()}


def claimed(model: str) -> str:
    """A figure of the model's claim, and the paper's in brackets; a dash before it is measured."""
    claim, arm, figure, words = CLAIMS[model]
    record = read_json(ROOT / "docs" / "reproduction" / f"{claim}.json", dict)
    goals = [g for g in record.get("goals", []) if (g["arm"], g["figure"]) == (arm, figure)]
    if not goals or not goals[0]["values"]:
        return "-"
    median, paper = statistics.median(goals[0]["values"]), goals[0]["paper"]
    if paper.endswith("%"):
        here = f"{100 * median:.1f} %"
    else:
        here = f"{median:,.0f}" if median > 100 or median == round(median) else _short(median)
    told = f"{words} {here}{f' ({paper})' if paper else ''}"
    return f"[{told}](docs/reproduction.md#{claim})"


def table(found: dict[str, Record]) -> str:
    """The README's: a line a model."""
    lines = [
        "| | `model=` | paper | minutes | Frechet distance | coverage | own label "
        f"| minutes to {', '.join(map(str, LEVELS))} | seeds | a claim: here (the paper) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (authors, number) in PAPERS.items():
        link = f"[{authors}](https://arxiv.org/abs/{number})"
        about = [f"[`{name}`](docs/gallery.md#{name})", link]
        if name not in found:
            blank = " | ".join((*about, "not measured yet", *[""] * 5, claimed(name)))
            lines.append(f"| | {blank} |")
            continue
        r = found[name]
        coverage, accuracy = r.figure("coverage"), r.figure("accuracy")
        cells = [
            f'<img src="docs/pictures/{name}_tile.png" width="96">', *about,
            f"{r.minutes(r.iterations):.0f}", _in_words(r.figure("fid")),
            _short(coverage.median) if coverage else "",
            f"{100 * accuracy.median:.1f} %" if accuracy else "",
            ", ".join(map(r.minutes_to, LEVELS)), str(len(r.seeds)), claimed(name),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def details(found: dict[str, Record]) -> str:
    """The table of docs/results.md: each figure as median and range over the seeds."""
    lines = [
        f"| `model=` | seeds | iterations | ms | {' | '.join(SHOWN)} |",
        "|---|---|---|---|" + "---|" * len(SHOWN),
    ]
    for r in found.values():
        figures = [_in_words(r.figure(key)) for key in SHOWN]
        about = [f"`{r.model}`", str(len(r.seeds)), f"{r.iterations:,}", _short(r.iteration_ms)]
        lines.append(f"| {' | '.join((*about, *figures))} |")
    return "\n".join(lines)


def section(r: Record) -> str:
    """What the gallery shows of a model between its command and its terms."""
    distance, coverage, accuracy = (r.figure(k) for k in ("fid", "coverage", "accuracy"))
    seeds = f"{len(r.seeds)} seeds" if len(r.seeds) > 1 else "one seed"
    sentence = (
        f"{r.iterations:,} iterations of {r.batch_size} images, "
        f"{r.minutes(r.iterations):.0f} minutes on two CPU cores: "
        f"Frechet distance {_in_words(distance)}, coverage {_in_words(coverage)}"
    )
    if accuracy:
        two_domains = "accuracy_a" in next(iter(r.seeds.values()))["figures"]
        what = "the source's digit" if two_domains else "the class that was asked for"
        sentence += f", {what} in {100 * accuracy.median:.1f} % of the images"
    if error := r.figure("category_error"):
        chosen = max(r.seeds.values(), key=lambda seed: seed["figures"]["category_information"])
        median, low, high = (f"{100 * share:.1f}" for share in error)
        sentence += (
            f", {median} % ({low}-{high}) of the test images outside their category's digit, of "
            "the seed that is chosen without labels "
            f"{100 * chosen['figures']['category_error']:.1f} %"
        )
    if same := r.figure("same_digit"):
        sentence += f", {100 * same.median:.1f} % of the pairs with one digit"
    name = r.model
    return (
        f"{sentence} ({seeds}).\n\n![The last grid of {name}](pictures/{name}.png)\n\n"
        f"![{name} while it learns](pictures/{name}.gif)\n\n"
        f"![The distance over training](pictures/{name}_curve.png)"
    )


def replace(file: Path, mark: str, text: str) -> None:
    """Puts the text between a file's lines ``<!-- mark -->`` and ``<!-- /mark -->``."""
    before = file.read_text()
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
    if not re.search(pattern, before, re.DOTALL):
        raise SystemExit(f"{file} has no lines '<!-- {mark} -->' and '<!-- /{mark} -->'.")
    after = re.sub(pattern, lambda m: f"{m[1]}{text}\n{m[2]}", before, flags=re.DOTALL)
    with atomic_write(file) as aside:
        aside.write_text(after)


def save(picture: Image.Image, name: str) -> None:
    with atomic_write(PICTURES / name) as aside:
        picture.save(aside, "PNG", optimize=True)


def draw(model: str, run: Path) -> None:
    """A run's last grid, its animation, and its tile, for which nobody chooses the images."""
    grids = [widened(grid) for file in Run(run, model).grids().values() if (grid := read_png(file))]
    save(grids[-1], f"{model}.png")
    last = len(grids) - 1
    # Most happens early.
    some = sorted({0, *(min(last, round(last ** (n / (FRAMES - 2)))) for n in range(FRAMES - 1))})
    is_grey = grids[-1].convert("HSV").getchannel("S").getextrema() == (0, 0)
    frames = [grids[n].quantize(6 if is_grey else 48) for n in some]
    save_gif(frames, PICTURES / f"{model}.gif")
    save(tile(run), f"{model}_tile.png")


def tile(run: Path) -> Image.Image:
    """The first images that the model draws to be measured; pairs of two domains stand upright."""
    model = gan_zoo.load(run)
    data = data_of(model)
    random = torch.Generator().manual_seed(0)
    drawn = next(iter(model.generated_images(TILE, data.source(), random)))
    if isinstance(model, Translator):
        batch = data.source().__getitems__(range(TILE))
        drawn["a"] = model.real_images(batch)["a"]
    images = [part.image[:TILE].cpu() for _, part in sorted(drawn.items())]
    if len(images) == 1:
        cells = images[0]
    else:
        a, b = (image.expand(-1, max(i.shape[1] for i in images), -1, -1) for image in images)
        cells = interleaved(torch.stack((a, b), 1)[: TILE // 2], TILE_ROW)
    return Image.fromarray(image_grid(cells, TILE_ROW).permute(1, 2, 0).numpy())


def draw_curve(record: Record, file: Path) -> None:
    """Frechet distance over images seen, a line a seed."""
    figure, axis = plt.subplots(figsize=(7.5, 3), layout="constrained")
    for seed, about in record.seeds.items():
        seen = [int(images) / 1e6 for images in about["curve"]]
        axis.plot(seen, list(about["curve"].values()), label=f"seed {seed}", linewidth=1)
    for level in LEVELS:
        axis.axhline(level, color="grey", linewidth=0.5)
    axis.set(yscale="log", xlabel="million images seen", ylabel="Frechet distance", xlim=0)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())
    axis.legend()
    with atomic_write(file) as aside:
        figure.savefig(aside, format="png", dpi=100)
    plt.close(figure)


def strip(names: Sequence[str], columns: int = 7) -> Image.Image:
    """The tiles of these models under their names."""
    side, line, gap = 128, 18, 6
    rows = -(-len(names) // columns)
    size = (columns * (side + gap) - gap, rows * (side + line + gap) - gap)
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for number, name in enumerate(names):
        row, column = divmod(number, columns)
        x, y = column * (side + gap), row * (side + line + gap)
        pen.text((x, y), name, "black", font)
        small = read_png(PICTURES / f"{name}_tile.png")
        assert small is not None
        picture.paste(small.resize((side, side), Image.Resampling.LANCZOS), (x, y + line))
    return picture


def pages() -> None:
    found = records()
    for name, record in found.items():
        draw_curve(record, PICTURES / f"{name}_curve.png")
    save(strip(list(found)), "strip.png")
    replace(ROOT / "README.md", "models", table(found))
    replace(ROOT / "docs" / "results.md", "models", details(found))
    gallery = ROOT / "docs" / "gallery.md"
    replace(gallery, "contents", ", ".join(f"[{name}](#{name})" for name in PAPERS))
    for name in PAPERS:
        text = section(found[name]) if name in found else "Not measured yet with today's defaults."
        replace(gallery, name, text)


def main() -> None:
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--runs", type=Path, default=Path("runs/default"), help="where runs are")
    parser.add_argument("--only", nargs="+", choices=PAPERS, default=list(PAPERS), metavar="MODEL")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, one core each")
    parser.add_argument("--ms", type=float, help="of an iteration, where the others were timed")
    parser.add_argument("--finished", action="store_true", help="take runs as they are")
    parser.add_argument("--pages", action="store_true", help="take records as they are")
    asked = parser.parse_args()
    RECORDS.mkdir(exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    names = [] if asked.pages else asked.only
    if not asked.finished:
        for name in names:
            train(name, asked.seeds, asked.runs / name, asked.jobs)
    for name in names:
        runs = by_seed(asked.runs / name)
        if not runs:
            raise SystemExit(f"There is no finished run in {asked.runs / name}.")
        ms = asked.ms or iteration_ms(name, asked.runs / "speed")
        record = record_of(name, runs, ms)
        # The first seed's pictures, which may be there from before.
        if (first := min(map(int, record.seeds))) in runs:
            draw(name, runs[first])
        with atomic_write(RECORDS / f"{name}.json") as aside:
            aside.write_text(json.dumps(record._asdict(), indent=1) + "\n")
    pages()


if __name__ == "__main__":
    main()
