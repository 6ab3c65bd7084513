"""Shows what the papers claim: trains, measures, and writes a record and a page."""

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.table import Table

from gan_zoo.claims import AGAINST, Arm, Results, figures_of
from gan_zoo.claims.claim import Claim, Goal, composition, digits_of, succeeded
from gan_zoo.comparison.runs import Run
from gan_zoo.console import print_table, works
from gan_zoo.files import CONFIG_DIR, atomic_write, read_json
from gan_zoo.plotting import read_png, widened
from gan_zoo.ranges import Count, Seed
from gan_zoo.run.checks import refuse_unfit_values
from gan_zoo.run.job import REASON_FILE
from gan_zoo.run.report import METRICS_FILE, PROVENANCE_FILE

_KINDS: dict[str, Any] = {
    "quick": bool,
    "verify": bool,
    "seeds": list[Seed] | None,
    "runs": str,
    "output": str,
    "jobs": Count,
}
# Digits of a figure that a record keeps, and that are compared again.
_PLACES = 6
_PAGE = "reproduction.md"
# Curves whose highest value is so many times their lowest are drawn on a logarithmic axis.
_WIDE = 30
_Points = Sequence[tuple[float, float]]


def reproduce(config: DictConfig) -> None:
    """Trains what is missing of a claim's runs, measures it, and writes what came out.

    Args:
        config: conf/reproduce.yaml, composed.

    Raises:
        ValueError: if the short version does not show what it should, or if kept runs are measured
            to be otherwise than recorded.
        SystemExit: if training was interrupted.
    """
    refuse_unfit_values(config, _KINDS)
    name = str(HydraConfig.get().runtime.choices["claim"])
    if "claim" not in config:
        names = ", ".join(file.stem for file in _claim_files())
        raise ValueError(f"Which one? claim=NAME, or claim=all. There are: {names}.")
    claim = Claim(name, config.claim, config.quick)
    if config.seeds is not None:
        claim.seeds = list(config.seeds)
    runs, output = Path(config.runs), Path(config.output)
    if config.verify:
        _verify(claim, runs, output / f"{name}.json")
        return
    results = {} if config.quick else _recorded(claim, output / f"{name}.json")
    while missing := _missing(claim, results):
        for arm, about in missing.items():
            folder = runs / _place(claim, arm, about)
            code = sweep(_train_program(), *about, folder, config.jobs)
            # A failed job is told of in its folder.
            if code not in (0, 1):
                raise SystemExit(code)
            entries = results.setdefault(arm, {})
            for seed, entry in _measured(claim, about, folder):
                entries[seed] = entry
                if not config.quick:
                    _write_record(claim, results, output)
            entries.update(sorted(entries.items(), key=lambda item: int(item[0])))
    _print(claim, results)
    if config.quick:
        failed = [goal for goal, _, verdict in claim.verdicts(results) if not succeeded(verdict)]
        if failed:
            told = "; ".join(f"{goal.arm}'s {goal.figure}: {goal.words}" for goal in failed)
            raise ValueError(f"The short version of {name} does not show this: {told}.")
        return
    _write_record(claim, results, output)
    _draw(claim, results, runs, output)
    write_page(output)
    print(f"Written to {output / name}.json and {output.parent / _PAGE}")


def reproduce_all(arguments: Sequence[str]) -> int:
    """Each claim in a process of its own, as benchmark_all does; 1 if one of them failed."""
    rest = [argument for argument in arguments if argument != "claim=all"]
    files = _claim_files()
    if not works(rest):
        files = files[:1]
    elif "quick=true" in rest:
        files = [file for file in files if OmegaConf.load(file).quick]
    codes = []
    for file in files:
        command = [sys.executable, sys.argv[0], f"claim={file.stem}", *rest]
        codes.append(subprocess.run(command).returncode)
        if codes[-1] > 128:
            return codes[-1]
    return int(any(codes))


def _claim_files() -> list[Path]:
    return sorted((CONFIG_DIR / "claim").glob("*.yaml"))


def _missing(claim: Claim, results: Results) -> dict[str, Arm]:
    """The arms with the seeds that there is nothing of."""
    found = {}
    for name, arm in claim.arms(results).items():
        seeds = [seed for seed in arm.seeds if str(seed) not in results.get(name, {})]
        if seeds:
            found[name] = arm._replace(seeds=seeds)
    return found


def _place(claim: Claim, name: str, arm: Arm) -> Path:
    """The sweep's folder, below that of all runs; default runs are those of other claims too."""
    if len(arm.options) == 1 and arm.options[0].startswith("model="):
        return Path("default", arm.options[0].removeprefix("model="))
    return Path("quick" if claim.quick else "reproduce", claim.name, re.sub(r"[^\w.-]+", "_", name))


def _train_program() -> Path:
    program = Path(sys.argv[0])
    return program.with_name(program.name.replace("reproduce", "train"))


def sweep(
    program: Path, options: Sequence[str], seeds: Sequence[int], folder: Path, jobs: int
) -> int:
    """Trains over these seeds, but not what is there already; gives train.py's exit code.

    Args:
        program: train.py.
        options: of all runs.
        folder: the sweep's.
        jobs: runs side by side.
    """
    side_by_side = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []
    command = [sys.executable, str(program), "-m", *options,
               f"seed={','.join(map(str, seeds))}", f"hydra.sweep.dir={folder}",
               *(side_by_side if len(seeds) > 1 else [])]  # fmt: skip
    return subprocess.run(command).returncode


def _runs_of(options: Sequence[str], folder: Path) -> dict[str, Path]:
    """Seed -> the folder of the run with these options, finished or failed."""
    found = {}
    for file in sorted(folder.glob("*/.hydra/config.yaml")):
        run = file.parent.parent
        # As it was saved, so that nothing in it is looked up.
        saved: Any = OmegaConf.to_container(OmegaConf.load(file))
        ended = (run / METRICS_FILE).is_file() or (run / REASON_FILE).is_file()
        if ended and digits_of(saved) == composition(options, saved["seed"]):
            found[str(saved["seed"])] = run
    return found


def _measured(claim: Claim, arm: Arm, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Seed -> its part of the record, one after the other."""
    runs = _runs_of(arm.options, folder)
    for seed in map(str, arm.seeds):
        if seed not in runs:
            problem = f"The run with seed {seed} in {folder} did not begin"
            raise ValueError(f"{problem}: what train.py printed says why.")
        yield seed, _entry(claim, arm.options, seed, runs[seed])


def _entry(claim: Claim, options: Sequence[str], seed: str, run: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"composition": composition(options, int(seed))}
    provenance = read_json(run / PROVENANCE_FILE, list)
    if provenance:
        begun = provenance[-1]
        about |= {"commit": begun["git_commit"], "device": begun["device"],
                  "threads": begun["threads"], "versions": begun["versions"]}  # fmt: skip
    if not (run / METRICS_FILE).is_file():
        return about | {"failed": (run / REASON_FILE).read_text().strip()}
    result = read_json(run / METRICS_FILE, dict)
    found = claim.measure(run)
    return about | {
        "iterations": result["steps"],
        "minutes": round(result["seconds"] / 60, 1),
        "figures": _rounded(found.figures),
        "floors": _rounded(found.floors),
        **({"series": dict(found.series)} if found.series else {}),
        **({"evaluators": dict(found.evaluators)} if found.evaluators else {}),
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), _PLACES) for name, value in figures.items()}


def _recorded(claim: Claim, file: Path) -> Results:
    """What the record has of the claim's runs as they are configured today."""
    arms = read_json(file, dict).get("arms", {})
    results: Results = {name: about["seeds"] for name, about in arms.items()}
    # Later arms may follow from the results of earlier ones.
    kept: Results = {}
    while True:
        before = {name: dict(seeds) for name, seeds in kept.items()}
        for name, arm in claim.arms(kept).items():
            entries = {
                seed: entry
                for seed, entry in results.get(name, {}).items()
                if entry["composition"] == composition(arm.options, int(seed))
            }
            if entries:
                kept[name] = entries
        if kept == before:
            return kept


def _write_record(claim: Claim, results: Results, output: Path) -> None:
    arms = claim.arms(results)
    record = {
        "claim": claim.name,
        "title": claim.title,
        "source": claim.source,
        "command": f"python scripts/reproduce.py claim={claim.name}",
        "protocol": OmegaConf.to_container(claim.config.measure),
        "arms": {
            name: {"options": arm.options, "seeds": results[name]}
            for name, arm in arms.items()
            if name in results
        },
        "goals": [
            {
                "figure": goal.figure,
                "arm": goal.arm,
                "asked": goal.words,
                "paper": goal.paper,
                "values": values,
                "verdict": verdict,
            }
            for goal, values, verdict in claim.verdicts(results)
        ],
    }
    with atomic_write(output / f"{claim.name}.json") as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n")


def _verify(claim: Claim, runs: Path, file: Path) -> None:
    """Measures the kept runs again, and compares with the record to its last digit."""
    results = _recorded(claim, file)
    arms, lines, other = claim.arms(results), [], []
    for name, entries in results.items():
        kept = _runs_of(arms[name].options, runs / _place(claim, name, arms[name]))
        for seed, entry in entries.items():
            if seed not in kept:
                lines.append(f"{name}, seed {seed}: not kept")
                continue
            now = _entry(claim, arms[name].options, seed, kept[seed])
            same = now.get("figures") == entry.get("figures")
            lines.append(f"{name}, seed {seed}: {'the same' if same else 'NOT the same'}")
            if not same:
                other.append(lines[-1])
                lines += [f"    recorded {entry.get('figures')}", f"    now {now.get('figures')}"]
    print("\n".join(lines) or f"There is no record in {file} of the runs as configured today.")
    if other:
        raise ValueError(f"{len(other)} of {len(lines)} runs are not as recorded in {file}.")


def _number(value: float) -> str:
    if value == round(value):
        return f"{value:,.0f}"
    text = f"{value:.2g}"
    if 1e-3 <= abs(value) < 1e4:
        digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
        text = f"{value:.{digits}f}"
    return re.sub(r"^(-?)0(?=\.)", r"\1", text)


def _spread(values: Sequence[float]) -> str:
    """The median, and the lowest and the highest in brackets."""
    if not values:
        return ""
    median, low, high = map(_number, (statistics.median(values), min(values), max(values)))
    return median if low == high else f"{median} ({low} to {high})"


def _found(goal: Goal, values: Sequence[float], results: Results) -> str:
    """The goal's figure, and that of the arm that it is held against."""
    own = _spread(values)
    other = figures_of(results, goal.than, goal.figure) if goal.than else []
    return f"{own}, and {_spread(other)}" if own and other else own


def _print(claim: Claim, results: Results) -> None:
    table = Table(title=f"{claim.name}: {claim.title}", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("arm", "figure", "asked", "the paper", "here", "verdict"):
        table.add_column(column)
    for goal, values, verdict in claim.verdicts(results):
        here = _found(goal, values, results)
        table.add_row(goal.arm or "all", goal.figure, goal.words, goal.paper, here, verdict)
    print_table(table)


def write_page(output: Path) -> None:
    """docs/reproduction.md, of the claims and their records."""
    claims = {
        file.stem: Claim(file.stem, OmegaConf.load(file))  # type: ignore[arg-type]
        for file in _claim_files()
    }
    found = {name: _recorded(claim, output / f"{name}.json") for name, claim in claims.items()}
    lines = [
        "| claim | figure | asked | the paper | here, median over seeds | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for name, claim in claims.items():
        lines += [f"| [{name}](#{name}) {row}" for row in _rows(claim, found[name])]
    sections = [_section(claim, found[name], output) for name, claim in claims.items()]
    page = output.parent / _PAGE
    text = f"{_INTRODUCTION}\n" + "\n".join(lines) + "\n\n" + "\n\n".join(sections) + "\n"
    with atomic_write(page) as aside:
        aside.write_text(text)


_INTRODUCTION = """# What the papers claim, and what comes out here

```sh
python scripts/reproduce.py claim=NAME      # trains what is missing, measures, writes the record
python scripts/reproduce.py claim=all
python scripts/reproduce.py claim=NAME quick=true    # minutes: does the direction show?
python scripts/reproduce.py claim=NAME verify=true   # measures kept runs again
```

Each claim is a file in `conf/claim/`: its runs, how they are measured, and what has to come out.
Records with each seed's figures, versions and commit are in `docs/reproduction/`; this page is made
of them. All figures are of the last checkpoint and the test images, unless the text says otherwise.

Against a number, the median over seeds *beats* it, *meets* it (the number lies between the seeds'
figures), or *misses* it. Against other runs, the direction is *shown* if the worst seed is better
than the others' best, *partly* shown if only the medians are in order. A dash stands for what has
not been run yet.

Each seed's device is in the record. Runs on an NVIDIA GPU computed in float32, with convolutions in
TF32, as is torch's default, and where the model allows it their iterations were recorded
(`cuda_graphs=true`), which gives the same up to rounding ([performance](performance.md)).
"""


def _rows(claim: Claim, results: Results) -> Iterator[str]:
    for goal, values, verdict in claim.verdicts(results):
        here = _found(goal, values, results) or "-"
        who = f"{goal.figure}, {goal.arm}" if goal.arm else goal.figure
        told = f"**{verdict}**" if verdict else "-"
        yield f"| {who} | {goal.words} | {goal.paper} | {here} | {told} |"


def _section(claim: Claim, results: Results, output: Path) -> str:
    parts = [f"## {claim.name}", f"**{claim.title}.** {claim.source}.", claim.about]
    parts.append(f"```sh\npython scripts/reproduce.py claim={claim.name}\n```")
    if results:
        parts.append("\n".join(_table(claim, results)))
        for picture, what in ((f"{claim.name}.png", "figures"), (f"{claim.name}_grid.png", "grid")):
            if (output / picture).is_file():
                parts.append(f"![{claim.title}: {what}]({output.name}/{picture})")
    if claim.found:
        parts.append(claim.found)
    return "\n\n".join(parts)


def _table(claim: Claim, results: Results) -> Iterator[str]:
    """Each arm's figures; of claims with very many arms those that goals are about."""
    arms = claim.arms(results)
    named = {name for goal in claim.goals for name in (goal.arm, goal.than)} & set(arms)
    shown = [name for name in arms if name in results and (len(arms) <= 12 or name in named)]
    asked = dict.fromkeys(goal.figure for goal in claim.goals if goal.arm)
    known = {k for name in shown for e in results[name].values() for k in e.get("figures", {})}
    figures = [*(k for k in asked if k in known), *sorted(known - set(asked))]
    if not shown:
        return
    yield f"| runs | seeds | iterations | minutes | {' | '.join(figures)} |"
    yield f"|---|---|---|---|{'---|' * len(figures)}"
    floors: dict[str, float] = {}
    for name in shown:
        entries = list(results[name].values())
        done = [entry for entry in entries if "figures" in entry]
        for entry in done:
            floors |= entry["floors"]
        failed = f", {len(entries) - len(done)} failed" if len(done) < len(entries) else ""
        steps = f"{done[0]['iterations']:,}" if done else ""
        minutes = _number(statistics.median(e["minutes"] for e in done)) if done else ""
        values = [_spread(figures_of(results, name, figure)) for figure in figures]
        cells = [name, f"{len(entries)}{failed}", steps, minutes, *values]
        yield f"| {' | '.join(cells)} |"
    if floors:
        values = [_number(floors[k]) if k in floors else "" for k in figures]
        yield f"| *for comparison* | | | | {' | '.join(values)} |"


def _draw(claim: Claim, results: Results, runs: Path, output: Path) -> None:
    """A plot of the figures that goals are about, and the last grid of the first run."""
    arms = claim.arms(results)
    panels = _panels(claim, results)
    if panels:
        figure, axes = plt.subplots(
            1, len(panels), figsize=(max(7.5, 3.75 * len(panels)), 3.5), layout="constrained"
        )
        for axis, panel in zip([axes] if len(panels) == 1 else axes, panels, strict=True):
            panel(axis)
        with atomic_write(output / f"{claim.name}.png") as aside:
            figure.savefig(aside, format="png", dpi=100)
        plt.close(figure)
    for name, arm in arms.items():
        folders = _runs_of(arm.options, runs / _place(claim, name, arm))
        for folder in folders.values():
            grids = list(Run(folder, name).grids().values())
            if grids and (picture := read_png(grids[-1])):
                with atomic_write(output / f"{claim.name}_grid.png") as aside:
                    widened(picture).save(aside, "PNG", optimize=True)
                return


def _panels(claim: Claim, results: Results) -> list[Any]:
    """Functions that draw on an axis: a panel a figure of the goals, or one a series."""
    summary = claim.summary(results)
    if summary.series:
        lines = {name: [points] for name, points in summary.series.items()}
        return [_lines(lines, "settings tried", "expected best")]
    curves: dict[str, dict[str, list[_Points]]] = {}
    for arm, entries in results.items():
        for entry in entries.values():
            for name, points in entry.get("series", {}).items():
                curves.setdefault(name, {}).setdefault(arm, []).append(points)
    if curves:
        names = [(lines, *name.partition(AGAINST)) for name, lines in curves.items()]
        return [_lines(lines, x or "iteration", y) for lines, y, _, x in names]
    by_figure: dict[str, list[Goal]] = {}
    for goal in claim.goals:
        if goal.arm:
            by_figure.setdefault(goal.figure, []).append(goal)
    return [_dots(results, figure, goals) for figure, goals in by_figure.items()]


def _lines(lines: Mapping[str, Sequence[_Points]], x: str, y: str) -> Any:
    """The curves of all seeds of an arm in one colour, against a logarithm where they need it."""
    values = [value for seeds in lines.values() for points in seeds for _, value in points]

    def draw(axis: Any) -> None:
        for number, (name, seeds) in enumerate(lines.items()):
            for place, points in enumerate(filter(None, seeds)):
                axis.plot(
                    *zip(*points, strict=True), ".-", color=f"C{number}", linewidth=1, markersize=3,
                    label=None if place else name,
                )  # fmt: skip
        if values and min(values) > 0 and max(values) > _WIDE * min(values):
            axis.set_yscale("log")
        axis.set(xlabel=x, ylabel=y)
        axis.locator_params(axis="x", nbins=5)
        axis.legend(fontsize=7)

    return draw


def _dots(results: Results, figure: str, goals: Sequence[Goal]) -> Any:
    def draw(axis: Any) -> None:
        arms = [arm for arm in results if figures_of(results, arm, figure)]
        for place, arm in enumerate(arms):
            values = figures_of(results, arm, figure)
            axis.plot([place] * len(values), values, "o", color="C0", alpha=0.6)
            axis.plot([place - 0.2, place + 0.2], [statistics.median(values)] * 2, color="C0")
        for goal in goals:
            if goal.number is not None:
                axis.axhline(goal.number, color="C3", linewidth=1, linestyle="--")
                axis.annotate(
                    goal.paper or goal.words, (1, goal.number), (3, 0), ("axes fraction", "data"),
                    "offset points", va="center", fontsize=7, color="C3",
                )  # fmt: skip
        floors = [
            floor
            for arm in arms
            for entry in results[arm].values()
            if (floor := entry.get("floors", {}).get(figure)) is not None
        ]
        if floors:
            axis.axhline(statistics.median(floors), color="grey", linewidth=1, linestyle=":")
        slope = 20 if len(arms) < 6 else 45
        axis.set_xticks(range(len(arms)), arms, rotation=slope, ha="right", fontsize=8)
        axis.margins(y=0.1)
        axis.set(ylabel=figure, xlim=(-0.6, len(arms) - 0.4))

    return draw
