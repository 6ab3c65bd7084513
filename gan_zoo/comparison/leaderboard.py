"""Runs ranked by what they came to: a table, a CSV file, and their last grids in one picture."""

import csv
import io
import math
import re
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Console
from rich.table import Table

from gan_zoo.comparison.runs import BEST, FINAL, FLOOR, Run, cleaned, natural, thumbnail
from gan_zoo.files import atomic_write
from gan_zoo.metrics.measures import MEASURES
from gan_zoo.run.configuration import column_name

_HIGHER_IS_BETTER = {key: high for m in MEASURES.values() for key, high in m.figures.items()}
# In pixels: a side of the picture of grids, the bounds of a grid's there, and a line of text.
_SIDE, _CELL, _LINE, _GAP = 4000, (48, 320), 15, 8
_MOST_GRIDS = 120


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

    @property
    def steps(self) -> Spread | None:
        return over(run.steps for run in self.runs)

    @property
    def seconds(self) -> Spread | None:
        return over(run.seconds for run in self.runs)


class Leaderboard(NamedTuple):
    """Runs, compared.

    Attributes:
        keys: the options that differ, seed left out where ``seeds``.
        seeds: whether figures are over seeds.
        monitor: the tag that decides the order; "" where nothing was measured.
        is_high: whether higher is better of that.
        tags: of the figures, the monitored one first.
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


def write_files(board: Leaderboard, folder: Path) -> str:
    """Writes a leaderboard's files into a folder, and returns it as text."""
    with atomic_write(folder / "leaderboard.csv") as aside:
        aside.write_text(_as_csv(board), encoding="utf-8")
    with atomic_write(folder / "leaderboard.md") as aside:
        aside.write_text(_as_markdown(board), encoding="utf-8")
    picture = _grids(board)
    if picture:
        with atomic_write(folder / "grids.png") as aside:
            picture.save(aside, "png")
    return _as_text(board)


def ranked(runs: Sequence[Run], monitor: str | None = None) -> Leaderboard:
    """Compares runs; ``monitor`` as ``write_leaderboard`` takes it."""
    runs = sorted(runs, key=lambda run: natural(run.name))
    keys = _differing(runs)
    monitored = Counter(monitor or _monitored(run) for run in runs)
    monitored.pop("", None)
    figure = min(monitored, key=lambda name: (-monitored[name], name), default="")
    is_high = bool(_HIGHER_IS_BETTER.get(_without_domain(figure)))
    measured = {tag for run in runs for tag in run.figures}
    tag = f"{BEST}{figure}" if figure else ""
    if tag not in measured and f"{FINAL}{figure}" in measured:
        # Another figure decided which checkpoint is the best.
        tag = f"{FINAL}{figure}"

    def rank(found: float | None, name: str) -> tuple[Any, ...]:
        return (found is None, 0 if found is None else -found if is_high else found, natural(name))

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
    rest.sort(key=lambda row: (row.runs[0].state.startswith("failed"), natural(row.runs[0].name)))
    finals = {t for t in measured if t.startswith(FINAL)} - {tag}
    floors: dict[str, list[Run]] = {}
    for run in runs:
        floors.setdefault(run.data, []).append(run)
    return Leaderboard(
        [key for key in keys if key != "seed"],
        seeds,
        tag,
        is_high,
        [*([tag] if tag else []), *sorted(finals, key=_order)],
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
    best = [tag.removeprefix(BEST) for tag in run.figures if tag.startswith(BEST)]
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
    return {tag.removeprefix(FLOOR): value for tag, value in found if tag.startswith(FLOOR)}


def floor_tag(tag: str) -> str:
    """The name that a figure's floor has: of best/fid and metrics/fid it is fid."""
    return tag.partition("/")[2]


def title(tag: str) -> str:
    """What a table calls a figure."""
    return f"best {floor_tag(tag)}" if tag.startswith(BEST) else floor_tag(tag)


def _without_domain(figure: str) -> str:
    return figure[:-2] if figure[-2:] in ("_a", "_b") else figure


def _order(tag: str) -> tuple[Any, ...]:
    """As the measures are listed, each before its domains'."""
    figure = tag.partition("/")[2]
    known = list(_HIGHER_IS_BETTER)
    base = _without_domain(figure)
    return (known.index(base) if base in known else len(known), natural(figure))


def headings(board: Leaderboard) -> dict[str, str]:
    """Key -> what a table calls it, short where that is clear."""
    short = {key: column_name(re.split("[/@]", key)[-1]) for key in board.keys}
    counts = Counter(short.values())
    return {key: cleaned(name if counts[name] == 1 else key) for key, name in short.items()}


def _columns(board: Leaderboard) -> tuple[list[str], list[list[str]], int]:
    """A table for people: its head, its lines, and how many of its columns are options."""
    tags = board.tags
    options = [*headings(board).values(), *(["seeds"] if board.seeds else [])]
    is_complete = not any(row.runs[0].state for row in board.rows)
    head = [
        *options,
        *map(title, tags),
        "steps",
        "seconds",
        *([] if is_complete else ["state"]),
        "folder of the best" if board.seeds else "folder",
    ]
    lines = []
    for data, floors in board.floors.items():
        what = "real images" if len(board.floors) == 1 else f"real images, {data}"
        values = [
            _in_figures(over([floor.median]) if (floor := floors.get(floor_tag(tag))) else None)
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
                *([seeds_of(row)] if board.seeds else []),
                *(_in_figures(row.figures.get(tag)) for tag in tags),
                _in_figures(row.steps),
                _in_figures(row.seconds, 0),
                *([] if is_complete else [best.state]),
                best.name,
            ]
        )
    return head, lines, len(options)


def _as_markdown(board: Leaderboard) -> str:
    head, lines, _ = _columns(board)
    failures = [run for run in board.runs if run.reason]
    table = [head, ["---"] * len(head), *lines]
    text = [
        "# Leaderboard",
        "",
        _in_markdown(told(board)),
        "",
        *(f"| {' | '.join(_in_markdown(cell) for cell in line)} |" for line in table),
    ]
    if failures:
        text += ["", "Failed:", ""]
        text += [f"- {_in_markdown(run.name)}: {_in_markdown(run.reason)}" for run in failures]
    return "\n".join(text) + "\n"


def told(board: Leaderboard) -> str:
    """What a reader has to know of the figures, in sentences."""
    sentences = [_count(board)]
    if board.monitor:
        way = "higher" if board.is_high else "lower"
        sentences.append(f"Best first, by {floor_tag(board.monitor)} ({way} is better).")
    if board.seeds:
        sentences.append("Figures are medians over seeds (lowest to highest).")
    if board.floors:
        sentences.append("The figures of real images, measured in the same way, are the floors.")
    if {"fid", "kid", "score"} & {_without_domain(floor_tag(tag)) for tag in board.tags}:
        sentences.append(
            "They are by this project's evaluators, not by Inception: docs/metrics.md."
        )
    return " ".join(sentences)


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
    tags = board.tags
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
        best = row.runs[0]
        writer.writerow(
            [
                *row.options,
                *(
                    [" ".join(run.option("seed") or "?" for run in by_seed(row))]
                    if board.seeds
                    else []
                ),
                best.state or "finished",
                *figures,
                *(f"{end.median:g}" if end else "" for end in (row.steps, row.seconds)),
                best.name,
                best.reason,
            ]
        )
    return text.getvalue()


def _as_text(board: Leaderboard) -> str:
    head, lines, options = _columns(board)
    # In a file or a pipe, lines are not to be cut to a terminal's width.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    wide = [max(len(line[i]) for line in (head, *lines)) + 3 for i in range(len(head))]
    shown = list(range(len(head)))
    # The files have what there is no room for.
    spare = [*range(options + len(board.tags) - 1, options, -1)]
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
    return f"{dedent(drawn).strip()}\n{told(board)}"


def seeds_of(row: Row) -> str:
    seeds = [run.option("seed") or "?" for run in by_seed(row)]
    if row.runs[0].state:
        return f"seed {seeds[0]}"
    runs_on = len(seeds) > 4 and seeds == [str(int(seeds[0]) + i) for i in range(len(seeds))]
    which = f"{seeds[0]} to {seeds[-1]}" if runs_on else ", ".join(seeds)
    return f"{len(seeds)} ({which})"


def by_seed(row: Row) -> list[Run]:
    return sorted(row.runs, key=lambda run: natural(f"{run.option('seed')} {run.name}"))


def over(values: Iterable[float | None]) -> Spread | None:
    """A figure over those runs that have it."""
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
    lines = [[run for run in by_seed(row) if run.name in last] for row in board.rows]
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


def label(board: Leaderboard, run: Run, seed: bool = True) -> str:
    """A run by what tells it from the others; "" if that is its seed, which is left out."""
    keys = [*board.keys, *(["seed"] if board.seeds and seed else [])]
    names = headings(board) | {"seed": "seed"}
    values = {key: value for key in keys if (value := run.option(key))}
    # A word speaks for itself.
    words = [v if re.search("[a-df-z]", v) else f"{names[key]}={v}" for key, v in values.items()]
    return ", ".join(words) or (run.name if seed else "")


def _monitored_in_words(board: Leaderboard, run: Run) -> str:
    found = run.figures.get(board.monitor)
    figure = f"{title(board.monitor)} {found:.4g}, " if found is not None else ""
    return f"{figure}step {run.steps:,.0f}" if run.steps is not None else figure


def _in_markdown(text: str) -> str:
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, safe)
    return re.sub(r"([\\|`*]|(?<=\])\()", r"\\\1", text)
