"""Runs side by side: a leaderboard, and their last grids in one picture."""

import csv
import io
import json
import math
import os
import re
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Console
from rich.table import Table

from gan_zoo.files import atomic_write
from gan_zoo.metrics.measures import MEASURES
from gan_zoo.run.configuration import dotted
from gan_zoo.run.events import logged_figures
from gan_zoo.run.report import METRICS_FILE
from gan_zoo.run.sweep import REASON_FILE

# Every run has one of these, if it only failed before it began.
_MARKS = (Path(".hydra", "config.yaml"), Path(METRICS_FILE), Path(REASON_FILE))
# No run writes a longer file of those that are read here; in bytes.
_LONGEST_FILE = 2**22
# What there is of a name, a value and a reason in a table; in characters.
_LONGEST = 300
_HIGHER_IS_BETTER = {key: high for m in MEASURES.values() for key, high in m.figures.items()}
_FLOOR, _FINAL, _BEST = "metrics_floor/", "metrics/", "best/"
# In pixels: a side of the picture of grids, the bounds of a grid's there, and a line of text.
_SIDE, _CELL, _LINE, _GAP = 4000, (48, 320), 15, 8
_MOST_GRIDS, _MOST_PIXELS = 120, 2**24


class Run:
    """What a run's folder tells, which may be a stranger's, damaged, or written to just now.

    Attributes:
        folder, name: where it is, and what it is called in tables.
        config: its options, dotted, but for those of them that have options themselves; empty if
            there is no telling.
        choices: group -> what was chosen of it.
        typed: the options that were given, with their values.
        figures: tag -> finite value: what it came to, or the last that it logged if it is not
            finished.
        steps, seconds: how long it was trained; None where there is no telling.
        state: "" for a finished run, otherwise "failed" or "unfinished" and where.
        reason: why it failed.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, cleaned(name)
        hydra = folder / ".hydra"
        config = _read_yaml(hydra / "config.yaml")
        self.config = {k: v for k, v in dotted(config) if not isinstance(v, dict)}
        choices = dict(dotted(_read_yaml(hydra / "hydra.yaml"))).get("hydra.runtime.choices")
        self.choices = choices if isinstance(choices, dict) else {}
        given = _read_yaml(hydra / "overrides.yaml", list)
        parts = [str(override).partition("=") for override in given]
        self.typed = {key.lstrip("+~"): value for key, _, value in parts}
        result, is_damaged = _read_result(folder / METRICS_FILE)
        steps = result.get("steps")
        asked = self.config.get("trainer.max_steps")
        asked = asked if isinstance(asked, int) and asked > 0 else None
        reason = " ".join(_read(folder / REASON_FILE).split())
        # A run that is trained for longer still has the result of its earlier end.
        is_short = steps is not None and asked is not None and steps < asked
        is_finished = steps is not None and not (is_short and (reason or self.last_step > steps))
        self.reason = "" if is_finished else cleaned(reason)
        if is_finished:
            self.figures, self.steps, self.seconds = result, steps, result.get("seconds")
            if not any(tag.startswith(_FLOOR) for tag in result):
                # Of a version that wrote floors into the event files alone.
                self.figures = result | {t: v for t, v in self.last.items() if _FLOOR in t}
            self.state = ""
        else:
            self.figures, self.seconds = self.last, None
            self.steps = float(self.last_step) if self.logged else None
            of = f" of {asked:,}" if asked else ""
            at = f" at step {self.last_step:,}{of}" if self.logged else ""
            damage = f", {METRICS_FILE} is damaged" if is_damaged else ""
            self.state = f"{'failed' if reason else 'unfinished'}{at}{damage}"

    @cached_property
    def logged(self) -> dict[str, dict[int, float]]:
        """The finite figures in the event files: tag -> iteration -> value."""
        try:
            return logged_figures(self.folder)
        except OSError:
            return {}

    @property
    def last(self) -> dict[str, float]:
        """The last of each."""
        return {tag: values[max(values)] for tag, values in self.logged.items()}

    @property
    def last_step(self) -> int:
        return max((max(values) for values in self.logged.values()), default=0)

    def option(self, key: str) -> str | None:
        """An option's or a group's value in words; None where there is no telling."""
        if key in self.choices:
            return _in_words(self.choices[key])
        if key in self.config:
            return _in_words(self.config[key])
        if key in self.typed:
            return cleaned(self.typed[key])
        return "" if self.config else None

    @property
    def data(self) -> str:
        """What it was trained on: the choice, and its name where that says more."""
        choice, name = self.option("dataset") or "", self.option("dataset.name") or ""
        return f"{choice} ({name})" if name not in ("", choice) else choice

    def grids(self) -> dict[int, Path]:
        """Iteration -> the file of the grid that was drawn there, in order."""
        found = {}
        for file in (self.folder / "samples").glob("step-*.png"):
            number = file.stem.removeprefix("step-")
            if number.isdecimal() and len(number) < 16:
                found[int(number)] = file
        return dict(sorted(found.items()))


class Spread(NamedTuple):
    """A figure over runs."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """A line of the leaderboard: the finished runs of a setting, or a run that is not finished.

    Attributes:
        options: the values of what was swept.
        runs: best first.
        figures: tag -> figure, of each that was measured.
    """

    options: tuple[str, ...]
    runs: Sequence[Run]
    figures: Mapping[str, Spread]


class Leaderboard(NamedTuple):
    """Runs, compared.

    Attributes:
        keys: the options that differ, seed left out where ``seeds``.
        seeds: whether figures are over seeds.
        monitor: the tag that decides the order; "" where nothing was measured.
        is_high: whether higher is better of that.
        tags: of the other figures.
        rows: best first; failed and unfinished runs last.
        floors: data -> the figures of real images in the generated ones' place.
    """

    keys: Sequence[str]
    seeds: bool
    monitor: str
    is_high: bool
    tags: Sequence[str]
    rows: Sequence[Row]
    floors: Mapping[str, Mapping[str, Spread]]

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]


def write_leaderboard(folder: Path, monitor: str | None = None) -> str:
    """Compares the runs below a folder, and writes leaderboard.md, .csv and grids.png there.

    The same runs give the same files, whatever order they finished in.

    Args:
        folder: of a sweep, or of any runs.
        monitor: the figure that decides the order, such as "fid"; by default what most of the runs
            monitored.

    Returns:
        The table as text, as wide as the terminal.

    Raises:
        ValueError: if there are no runs.
        OSError: if something can't be written.
    """
    return write_files(leaderboard(runs_below(folder), monitor), folder)


def write_files(board: Leaderboard, folder: Path) -> str:
    """Writes a leaderboard's files into a folder, and returns it as text."""
    with atomic_write(folder / "leaderboard.csv") as aside:
        aside.write_text(_as_csv(board), encoding="utf-8")
    with atomic_write(folder / "leaderboard.md") as aside:
        aside.write_text(_as_markdown(board), encoding="utf-8")
    picture = _grids(board)
    if picture:
        with atomic_write(folder / "grids.png") as aside:
            picture.save(aside, "png", optimize=True)
    return _as_text(board)


def runs_below(root: Path) -> list[Run]:
    """The runs in a folder and its folders; ValueError if there are none."""
    if not root.is_dir():
        raise ValueError(f"There is no folder '{root}': give one with runs below it.")
    found = []
    for place, folders, _ in os.walk(root):
        folders[:] = [f for f in folders if f[0] != "." and f not in ("checkpoints", "samples")]
        if is_run(Path(place)):
            found.append(Path(place))
    if not found:
        raise ValueError(f"There are no runs below '{root}': train.py writes them, into runs/.")
    return named(found, root)


def is_run(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in _MARKS)


def named(folders: Sequence[Path], root: Path) -> list[Run]:
    """Runs by their paths from a folder, in the order of names with numbers in them."""
    runs = [Run(f, os.path.relpath(f, root) if f != root else f.resolve().name) for f in folders]
    return sorted(runs, key=lambda run: _natural(run.name))


def leaderboard(runs: Sequence[Run], monitor: str | None = None) -> Leaderboard:
    """Compares runs; ``monitor`` as ``write_leaderboard`` takes it."""
    runs = sorted(runs, key=lambda run: _natural(run.name))
    keys = _differing(runs)
    monitored = Counter(monitor or _monitored(run) for run in runs)
    monitored.pop("", None)
    figure = min(monitored, key=lambda name: (-monitored[name], name), default="")
    is_high = bool(_HIGHER_IS_BETTER.get(_without_domain(figure)))
    tag = f"{_BEST}{figure}" if figure else ""

    def rank(found: float | None, name: str) -> tuple[Any, ...]:
        return (found is None, 0 if found is None else -found if is_high else found, _natural(name))

    seeds = "seed" in keys
    settings: dict[tuple[str, ...], list[Run]] = {}
    rest = []
    for run in runs:
        options = tuple(run.option(key) or "" for key in keys if key != "seed")
        if run.state:
            rest.append(Row(options, [run], _spreads([run])))
        else:
            settings.setdefault(options if seeds else (*options, run.name), []).append(run)
    rows = []
    for options, group in settings.items():
        group.sort(key=lambda run: rank(run.figures.get(tag), run.name))
        rows.append(Row(options if seeds else options[:-1], group, _spreads(group)))
    rows.sort(
        key=lambda row: rank(
            row.figures[tag].median if tag in row.figures else None, row.runs[0].name
        )
    )
    rest.sort(key=lambda row: (row.runs[0].state.startswith("failed"), _natural(row.runs[0].name)))
    finals = {t for run in runs for t in run.figures if t.startswith(_FINAL)}
    floors: dict[str, list[Run]] = {}
    for run in runs:
        floors.setdefault(run.data, []).append(run)
    return Leaderboard(
        [key for key in keys if key != "seed"],
        seeds,
        tag,
        is_high,
        sorted(finals, key=_order),
        [*rows, *rest],
        {data: floor for data, group in sorted(floors.items()) if (floor := _floors(group))},
    )


def _differing(runs: Sequence[Run]) -> list[str]:
    """The options that tell runs apart, in the order in which they were given."""
    typed = dict.fromkeys(key for run in runs for key in run.typed)
    keys = [key for key in typed if len({run.option(key) for run in runs} - {None}) > 1]
    # What differs though it was not given, such as a dataset's stand-in on another machine.
    for key in ("model", "dataset", "dataset.name", "seed"):
        seen: dict[tuple[str | None, ...], set[str | None]] = {}
        for run in runs:
            same = tuple(map(run.option, keys))
            seen.setdefault(same, set()).add(run.option(key))
        if any(len(values - {None}) > 1 for values in seen.values()):
            keys.append(key)
    return keys


def _monitored(run: Run) -> str:
    """The figure that a run monitors; "" if there is none."""
    best = [tag.removeprefix(_BEST) for tag in run.figures if tag.startswith(_BEST)]
    return next((cleaned(name) for name in sorted(best) if name != "step"), "")


def _spreads(runs: Sequence[Run]) -> dict[str, Spread]:
    tags = {tag for run in runs for tag in run.figures}
    return {
        tag: Spread(statistics.median(values), min(values), max(values))
        for tag in tags
        if (values := [run.figures[tag] for run in runs if tag in run.figures])
    }


def _floors(runs: Sequence[Run]) -> dict[str, Spread]:
    found = _spreads(runs).items()
    return {tag.removeprefix(_FLOOR): value for tag, value in found if tag.startswith(_FLOOR)}


def floor_tag(tag: str) -> str:
    """The name that a figure's floor has: of best/fid and metrics/fid it is fid."""
    return tag.partition("/")[2]


def _without_domain(figure: str) -> str:
    return figure[:-2] if figure[-2:] in ("_a", "_b") else figure


def _order(tag: str) -> tuple[Any, ...]:
    """As the measures are listed, each before its domains'."""
    figure = tag.partition("/")[2]
    known = list(_HIGHER_IS_BETTER)
    base = _without_domain(figure)
    return (known.index(base) if base in known else len(known), _natural(figure))


def headings(board: Leaderboard) -> dict[str, str]:
    """Key -> what a table calls it, short where that is clear."""
    short = {key: re.split("[/@]", key)[-1] for key in board.keys}
    short = {key: name.partition(".")[2] or name for key, name in short.items()}
    counts = Counter(short.values())
    return {key: cleaned(name if counts[name] == 1 else key) for key, name in short.items()}


def _columns(board: Leaderboard) -> tuple[list[str], list[list[str]], int]:
    """A table for people: its head, its lines, and how many of its columns are options."""
    monitor = f"best {floor_tag(board.monitor)}" if board.monitor else ""
    tags = [tag for tag in (board.monitor, *board.tags) if tag]
    options = [*headings(board).values(), *(["seeds"] if board.seeds else [])]
    is_complete = not any(row.runs[0].state for row in board.rows)
    head = [
        *options,
        *(monitor if tag == board.monitor else floor_tag(tag) for tag in tags),
        "steps",
        "seconds",
        *([] if is_complete else ["state"]),
        "folder of the best" if board.seeds else "folder",
    ]
    lines = []
    for data, floors in board.floors.items():
        what = "real images" if len(board.floors) == 1 else f"real images, {data}"
        values = [
            _in_figures(_over([floor.median]) if (floor := floors.get(floor_tag(tag))) else None)
            for tag in tags
        ]
        before = [what, *[""] * (len(options) - 1)] if options else []
        after = [""] * (len(head) - len(before) - len(values) - 1)
        lines.append([*before, *values, *after, "" if options else what])
    for row in board.rows:
        best = row.runs[0]
        lines.append(
            [
                *row.options,
                *([_seeds(row)] if board.seeds else []),
                *(_in_figures(row.figures.get(tag)) for tag in tags),
                _in_figures(_over(run.steps for run in row.runs)),
                _in_figures(_over(run.seconds for run in row.runs), 0),
                *([] if is_complete else [best.state]),
                best.name,
            ]
        )
    return head, lines, len(options)


def _as_markdown(board: Leaderboard) -> str:
    head, lines, _ = _columns(board)
    told = [f"{_count(board)}{_told(board)}"]
    failures = [run for run in board.runs if run.reason]
    table = [head, ["---"] * len(head), *lines]
    text = [
        "# Leaderboard",
        "",
        *told,
        "",
        *(f"| {' | '.join(_in_markdown(cell) for cell in line)} |" for line in table),
    ]
    if failures:
        text += ["", "Failed:", ""]
        text += [f"- {_in_markdown(run.name)}: {_in_markdown(run.reason)}" for run in failures]
    return "\n".join(text) + "\n"


def _told(board: Leaderboard) -> str:
    """What a reader has to know of the figures, in sentences."""
    told = []
    if board.monitor:
        way = "higher" if board.is_high else "lower"
        told.append(f"Best first, by {floor_tag(board.monitor)} ({way} is better).")
    if board.seeds:
        told.append("Figures are medians over seeds (lowest to highest).")
    if board.floors:
        told.append("The figures of real images, measured in the same way, are the floors.")
    if {"fid", "kid", "score"} & {_without_domain(floor_tag(tag)) for tag in board.tags}:
        told.append("They are by this project's evaluators, not by Inception: docs/metrics.md.")
    return "".join(f" {sentence}" for sentence in told)


def _count(board: Leaderboard) -> str:
    runs, done = board.runs, [row for row in board.rows if not row.runs[0].state]
    told = [f"{len(runs)} runs" if len(runs) != 1 else "1 run"]
    if board.seeds:
        told.append(f"{len(done)} settings finished")
    for state in ("failed", "unfinished"):
        count = sum(run.state.startswith(state) for run in runs)
        told += [f"{count} {state}"] if count else []
    return f"{', '.join(told)}."


def _as_csv(board: Leaderboard) -> str:
    tags = [tag for tag in (board.monitor, *board.tags) if tag]
    spreads = ("median", "lowest", "highest") if board.seeds else ("",)
    columns = [
        *board.keys,
        *(["seeds"] if board.seeds else []),
        "state",
        *(" ".join(filter(None, (tag, word))) for tag in tags for word in (*spreads, "floor")),
        *("steps", "seconds", "folder", "reason"),
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in board.rows:
        floors = _floors(row.runs)
        figures: list[float | str] = []
        for tag in tags:
            found: Iterable[float] | None = row.figures.get(tag)
            values = list(found)[: len(spreads)] if found else [""] * len(spreads)
            floor = floors.get(floor_tag(tag))
            figures += [*values, floor.median if floor else ""]
        ends = [_over(getattr(run, name) for run in row.runs) for name in ("steps", "seconds")]
        best = row.runs[0]
        writer.writerow(
            [
                *row.options,
                *(
                    [" ".join(run.option("seed") or "?" for run in _by_seed(row))]
                    if board.seeds
                    else []
                ),
                best.state or "finished",
                *figures,
                *(f"{end.median:g}" if end else "" for end in ends),
                best.name,
                best.reason,
            ]
        )
    return text.getvalue()


def _as_text(board: Leaderboard) -> str:
    head, lines, options = _columns(board)
    # In a file or a pipe, lines are not to be cut to a terminal's width.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    wide = [max(len(line[i]) for line in (head, *lines)) + 2 for i in range(len(head))]
    shown = list(range(len(head)))
    # The files have what there is no room for.
    spare = [*range(options + len(board.tags), options, -1)] if board.monitor else []
    while spare and sum(wide[i] for i in shown) > width:
        shown.remove(spare.pop(0))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i in shown:
        is_text = i < options or head[i].startswith(("state", "folder"))
        table.add_column(head[i], justify="left" if is_text else "right", overflow="fold")
    for line in lines:
        table.add_row(*(line[i] for i in shown))
    text = io.StringIO()
    # Names come from files, and may hold what would be markup.
    console = Console(file=text, width=width, markup=False, emoji=False, color_system=None)
    console.print(table)
    drawn = "\n".join(line.rstrip() for line in text.getvalue().splitlines())
    return f"{drawn.strip()}\n{_count(board)}{_told(board)}"


def _seeds(row: Row) -> str:
    seeds = [run.option("seed") or "?" for run in _by_seed(row)]
    if row.runs[0].state:
        return f"seed {seeds[0]}"
    runs_on = len(seeds) > 4 and seeds == [str(int(seeds[0]) + i) for i in range(len(seeds))]
    which = f"{seeds[0]} to {seeds[-1]}" if runs_on else ", ".join(seeds)
    return f"{len(seeds)} ({which})"


def _by_seed(row: Row) -> list[Run]:
    return sorted(row.runs, key=lambda run: _natural(f"{run.option('seed')} {run.name}"))


def _over(values: Iterable[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread(statistics.median(known), min(known), max(known)) if known else None


def _in_figures(spread: Spread | None, places: int | None = None) -> str:
    """A figure of four digits, or with so many places and no spread."""
    if spread is None:
        return ""
    if places is not None:
        return f"{spread.median:,.{places}f}"
    median, low, high = (f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.4g}" for v in spread)
    return median if low == high else f"{median} ({low} to {high})"


def _grids(board: Leaderboard) -> Image.Image | None:
    """The last grid of each run in one picture, a setting's seeds in a line; None without any."""
    last = {run.name: grids[max(grids)] for run in board.runs if (grids := run.grids())}
    lines = [[run for run in _by_seed(row) if run.name in last] for row in board.rows]
    lines = [line for line in lines if line]
    runs = [run for line in lines for run in line][:_MOST_GRIDS]
    if not runs:
        return None
    if not board.seeds or len(lines) > 24 or max(map(len, lines)) > 12:
        width = math.ceil(math.sqrt(len(runs)))
        lines = [runs[i : i + width] for i in range(0, len(runs), width)]
    columns = max(map(len, lines))
    cell = max(_CELL[0], min(_CELL[1], _SIDE // columns - _GAP, _SIDE // len(lines) - 3 * _LINE))
    font = ImageFont.load_default(_LINE - 3)
    rows = []
    for line in lines:
        pictures = [thumbnail(last[run.name], cell) for run in line]
        height = 2 * _LINE + max((p.height for p in pictures if p), default=0)
        row = Image.new("RGB", (columns * (cell + _GAP) + _GAP, height + _GAP), "white")
        pen = ImageDraw.Draw(row)
        for column, (run, picture) in enumerate(zip(line, pictures, strict=True)):
            x = _GAP + column * (cell + _GAP)
            told = [label(board, run), run.state or _monitored_in_words(board, run)]
            for i, text in enumerate(told):
                while text and pen.textlength(text, font) > cell:
                    text = text[:-1]
                pen.text((x, i * _LINE), text, "black", font)
            if picture:
                row.paste(picture, (x, 2 * _LINE))
        rows.append(row)
    left_out = len(last) - len(runs)
    whole = Image.new("RGB", (rows[0].width, sum(r.height for r in rows) + _LINE + _GAP), "white")
    if left_out:
        ImageDraw.Draw(whole).text((_GAP, 0), f"{left_out} more are left out", "black", font)
    y = _LINE if left_out else _GAP
    for row in rows:
        whole.paste(row, (0, y))
        y += row.height
    return whole.crop((0, 0, whole.width, y))


def thumbnail(file: Path, most: int) -> Image.Image | None:
    """A PNG as an RGB picture no larger than so many pixels a side; None if it is none."""
    try:
        with Image.open(file, formats=["PNG"]) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                return None
            picture = opened.convert("RGB")
    # Pillow's plugins raise whatever their parsing runs into.
    except Exception:
        return None
    scale = most / max(picture.size)
    size = [max(1, round(scale * side)) for side in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.BOX) if scale < 1 else picture


def label(board: Leaderboard, run: Run) -> str:
    """A run by what tells it from the others."""
    keys = [*board.keys, *(["seed"] if board.seeds else [])]
    names = headings(board) | {"seed": "seed"}
    words = []
    for key in keys:
        value = run.option(key) or ""
        words.append(
            value
            if not re.fullmatch(r"[-+\d.e\[\], ]*|true|false", value)
            else f"{names[key]}={value}"
        )
    return ", ".join(words) or run.name


def _monitored_in_words(board: Leaderboard, run: Run) -> str:
    found = run.figures.get(board.monitor)
    figure = f"best {floor_tag(board.monitor)} {found:.4g}, " if found is not None else ""
    return f"{figure}step {run.steps:,.0f}" if run.steps is not None else figure


def cleaned(text: object, most: int = _LONGEST) -> str:
    """A text of unknown origin on one line, without characters that do something."""
    plain = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * most])
    plain = " ".join(plain.split())
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def _in_words(value: Any) -> str:
    """As it is typed."""
    if isinstance(value, list):
        return cleaned(f"[{', '.join(map(_in_words, value))}]")
    return cleaned(
        {True: "true", False: "false", None: "null"}.get(value, value)
        if isinstance(value, (bool, type(None)))
        else value
    )


def _in_markdown(text: str) -> str:
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, safe)
    return re.sub(r"([\\|`*]|(?<=\])\()", r"\\\1", text)


def _natural(text: str) -> list[Any]:
    """Sorts names by the numbers in them."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _read(file: Path) -> str:
    """A text; "" where there is none to be read."""
    try:
        # A pipe would never end.
        if not file.is_file() or file.stat().st_size > _LONGEST_FILE:
            return ""
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_yaml(file: Path, kind: type = dict) -> Any:
    """What plain YAML says, without interpolations; an empty ``kind`` where there is none."""
    text = _read(file)
    try:
        # Few aliases of aliases would be billions of options.
        if any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text, _Loader)):
            return kind()
        found = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return kind()
    return found if isinstance(found, kind) else kind()


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read_result(file: Path) -> tuple[dict[str, float], bool]:
    """The finite numbers of a run's metrics.json, and whether there is one that is damaged."""
    text = _read(file)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return {}, bool(text) or file.is_file()
    numbers = {}
    for key, value in found.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            numbers[cleaned(key)] = float(value)
    return numbers, False
