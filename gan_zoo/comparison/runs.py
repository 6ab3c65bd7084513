"""Runs as their folders tell of them, whoever wrote these and whatever state they are in."""

import json
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from gan_zoo.plotting import read_png
from gan_zoo.run.configuration import dotted
from gan_zoo.run.events import logged_figures
from gan_zoo.run.job import REASON_FILE
from gan_zoo.run.report import METRICS_FILE

# Tags begin with these: floors, the last figures measured, and the best of the monitored one.
FLOOR, FINAL, BEST = "metrics_floor/", "metrics/", "best/"
# Every run has one of these, if it only failed before it began.
_MARKS = (Path(".hydra", "config.yaml"), Path(METRICS_FILE), Path(REASON_FILE))
# No run writes a longer file of those that are read here; in bytes.
_LONGEST_FILE = 2**22
# What there is of a name, a value and a reason in a table; in characters.
_LONGEST = 300
_DEEPEST = 50
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
        asked = asked if isinstance(asked, int) and 0 < asked < 10**12 else None
        reason = " ".join(_read(folder / REASON_FILE).split())
        # A run that is trained for longer still has the result of its earlier end.
        is_short = steps is not None and asked is not None and steps < asked
        is_finished = steps is not None and not (is_short and (reason or self.last_step > steps))
        self.reason = "" if is_finished else cleaned(reason)
        if is_finished:
            self.figures, self.steps, self.seconds = result, steps, result.get("seconds")
            if not any(tag.startswith(FLOOR) for tag in result):
                # Of a version that wrote floors into the event files alone.
                self.figures = result | {t: v for t, v in self.last.items() if FLOOR in t}
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
            return {cleaned(tag): values for tag, values in logged_figures(self.folder).items()}
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
    return sorted(runs, key=lambda run: natural(run.name))


def thumbnail(file: Path, most: int) -> Image.Image | None:
    """A PNG as an RGB picture no larger than so many pixels a side; None if it is none."""
    picture = read_png(file)
    if picture is None:
        return None
    scale = most / max(picture.size)
    size = [max(1, round(scale * side)) for side in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.BOX) if scale < 1 else picture


def cleaned(text: object, most: int = _LONGEST) -> str:
    """A text of unknown origin on one line, without characters that do something."""
    # Python writes out no number of thousands of digits.
    is_endless = isinstance(text, int) and abs(text) > 10**most
    start = "" if is_endless else str(text)[: 4 * most]
    plain = "".join(c if c.isprintable() else " " for c in start)
    plain = " ".join(plain.split())
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def _in_words(value: Any) -> str:
    """As it is typed."""
    if isinstance(value, list):
        return cleaned(f"[{', '.join(map(_in_words, value))}]")
    is_word = value is None or isinstance(value, bool)
    return cleaned({True: "true", False: "false", None: "null"}[value] if is_word else value)


def natural(text: str) -> list[Any]:
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
        depth = 0
        for event in yaml.parse(text, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            # Few aliases of aliases would be billions of options.
            if depth > _DEEPEST or isinstance(event, yaml.AliasEvent):
                return kind()
        found = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError):
        return kind()
    return found if isinstance(found, kind) else kind()


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
