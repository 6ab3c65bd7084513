"""Compares runs: a leaderboard, their grids in one picture, and a page for a browser."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gan_zoo.comparison.leaderboard import floor_tag, ranked, write_files
from gan_zoo.comparison.page import as_page
from gan_zoo.comparison.runs import cleaned, is_run, named, runs_below
from gan_zoo.files import atomic_write
from gan_zoo.ranges import UnfitArgument
from gan_zoo.run.checks import refuse_unfit_values
from gan_zoo.run.folder import shown

_KINDS: dict[str, Any] = {
    "root": str | None,
    "runs": str | list[str] | None,
    "output": str | None,
    "monitor": str | None,
}


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
    return write_files(ranked(runs_below(folder), monitor), folder)


def compare(config: DictConfig) -> None:
    """Compares as conf/compare.yaml says, also while the runs go on, and prints the table.

    Written are leaderboard.md, leaderboard.csv, grids.png and compare.html, which needs nothing
    beside it. After an error (no runs, a folder that is no run) nothing is written.
    """
    refuse_unfit_values(config, _KINDS)
    folders = [config.runs] if isinstance(config.runs, str) else list(config.runs or [])
    if bool(config.root) == bool(folders):
        raise ValueError(
            "What is to be compared: give either root=FOLDER, with runs below it, or runs=[A,B]."
        )
    if config.root:
        place = Path(config.root)
        runs = runs_below(place)
    else:
        paths = list(dict.fromkeys(Path(os.path.abspath(folder)) for folder in folders))
        for path in paths:
            if not is_run(path):
                raise ValueError(
                    f"'{shown(path)}' is not the folder of a run: root=FOLDER finds runs below one."
                )
        place = Path("comparison")
        runs = named(paths, Path(os.path.commonpath([path.parent for path in paths])))
    output = Path(config.output or place)
    board = ranked(runs, config.monitor)
    if config.monitor and not any(board.monitor in run.figures for run in runs):
        measured = ", ".join(dict.fromkeys(map(floor_tag, board.tags[1:]))) or "none"
        raise UnfitArgument(
            "monitor",
            f"is {config.monitor}, which these runs have not measured; there are: {measured}.",
        )
    page = as_page(board, cleaned(place.resolve().name))
    table = write_files(board, output)
    with atomic_write(output / "compare.html") as aside:
        aside.write_text(page, encoding="utf-8")
    print(table)
    for run in board.runs:
        if run.reason:
            print(f"Failed  {run.name}: {run.reason}")
    print(f"Look    {shown(output.absolute() / 'compare.html')}")
