"""A comparison of runs as one page for a browser, which needs nothing beside it."""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gan_zoo.comparison.leaderboard import (
    Leaderboard,
    Row,
    by_seed,
    floor_tag,
    headings,
    label,
    seeds_of,
    told,
)
from gan_zoo.comparison.runs import FLOOR, Run, cleaned, thumbnail
from gan_zoo.metrics.measures import MEASURES

MOST_BYTES = 20 * 2**20
_TEMPLATE = Path(__file__).with_suffix(".html")
# What a browser still draws at once: runs, figures, points of all curves, and pictures, of which a
# side has so many pixels.
_RUNS, _TAGS, _POINTS, _PICTURES, _SIDE = 500, 60, 200_000, 1500, 512
# Counts, and what the table shows.
_NO_CURVE = re.compile(rf"(final|best|{FLOOR[:-1]})/|.*(_steps|images_seen)$|(epoch|step)$")


def as_page(board: Leaderboard, title: str, most_bytes: int = MOST_BYTES) -> str:
    """The page, with as many of the grids as it has room for.

    Texts of the runs, which may be a stranger's, are data there: no part of the page, nor of its
    script. Its policy lets a browser run that script alone, and fetch nothing.
    """
    template = _TEMPLATE.read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; img-src data:; script-src {_hash(template, 'script')}; "
        f"style-src {_hash(template, 'style')}; base-uri 'none'; form-action 'none'"
    )
    heading = f"{title}: comparison of {len(board.runs)} runs"
    data = _data(board, heading)
    room = most_bytes - len(template) - len(_as_json(data))
    for share in (1.0, 0.5, 0.2, 0.0):
        data["real"], pictures = _pictures(board, share * room)
        for run, grids in zip(data["runs"], pictures, strict=True):
            run["grids"] = grids
        content = _as_json(data)
        if len(template) + len(content) <= most_bytes:
            break
    filled = {"policy": policy, "title": html.escape(heading), "data": content}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], template)


def _hash(template: str, element: str) -> str:
    """What a policy names the one such element without attributes by."""
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", template, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _as_json(data: Any) -> str:
    """JSON in which nothing ends or begins an element of HTML; all of it ASCII."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(board: Leaderboard) -> list[tuple[int, Row, Run]]:
    runs = [(at, row, run) for at, row in enumerate(board.rows) for run in by_seed(row)]
    return runs[:_RUNS]


def _data(board: Leaderboard, heading: str) -> dict[str, Any]:
    shown = _shown(board)
    tags = _tags(run for _, _, run in shown)
    curves = sum(tag in run.logged for _, _, run in shown for tag in tags)
    most = max(20, min(400, _POINTS // max(curves, 1)))
    columns = [*board.keys, *(["seed"] if board.seeds else [])]
    runs = [
        {
            "at": at,
            "row": row,
            "label": label(board, run),
            "options": [run.option(key) or "" for key in columns],
            "figures": _rounded({tag: run.figures.get(tag) for tag in board.tags}),
            "steps": run.steps,
            "seconds": run.seconds,
            "state": run.state,
            "folder": run.name,
            "reason": run.reason,
            "curves": {tag: _thinned(run.logged[tag], most) for tag in tags if tag in run.logged},
        }
        for at, (row, _, run) in enumerate(shown)
    ]
    places: dict[int, list[int]] = {}
    for at, (number, _, _) in enumerate(shown):
        places.setdefault(number, []).append(at)
    rows = [
        {
            "row": number,
            "runs": at,
            "label": _label(board, row),
            "options": row.options,
            "seeds": seeds_of(row),
            "figures": {
                tag: [_rounded(value) for value in row.figures[tag]]
                for tag in board.tags
                if tag in row.figures
            },
            "steps": row.steps and row.steps.median,
            "seconds": row.seconds and row.seconds.median,
            **{key: runs[at[0]][key] for key in ("state", "folder", "reason")},
        }
        for number, at in places.items()
        if (row := board.rows[number])
    ]
    left_out = len(board.runs) - len(shown)
    return {
        "title": heading,
        "told": told(board) + (f" {left_out} runs are left out here." if left_out else ""),
        "given": _given(board),
        "options": list(headings(board).values()),
        "seeds": board.seeds,
        "tags": board.tags,
        "floors": {
            data: {figure: _rounded(value.median) for figure, value in floors.items()}
            for data, floors in board.floors.items()
        },
        "higher": {key: high for m in MEASURES.values() for key, high in m.figures.items()},
        "groups": _groups(tags),
        "rows": rows,
        "runs": runs,
        "differ": _differing(board, list(places)),
    }


def _label(board: Leaderboard, row: Row) -> str:
    is_setting = board.seeds and not row.runs[0].state
    return label(board, row.runs[0], seed=not is_setting) or "all seeds"


def _rounded(value: Any) -> Any:
    """Numbers as they are worth their bytes: five digits."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _tags(runs: Iterable[Run]) -> list[str]:
    """The figures that are drawn, those that most runs have if there are too many."""
    counts: dict[str, int] = {}
    for run in runs:
        for tag in run.logged:
            if not _NO_CURVE.match(tag):
                counts[tag] = counts.get(tag, 0) + 1
    return sorted(counts, key=lambda tag: (-counts[tag], tag))[:_TAGS]


def _groups(tags: Sequence[str]) -> list[tuple[str, list[str], bool]]:
    """Headings of charts, with the figures below each, and whether these share an axis."""
    order = {key: n for n, key in enumerate(k for m in MEASURES.values() for k in m.figures)}
    kinds = {
        "Metrics": r"metrics/",
        "D's outputs": r"train/d_",
        "Losses": r"train/loss_",
        "Other": "",
    }
    left, groups = set(tags), []
    for heading, start in kinds.items():
        found = {tag for tag in left if re.match(start, tag)}
        left -= found
        by_measure = sorted(
            found, key=lambda tag: (order.get(floor_tag(tag), len(order)), "fake" in tag, tag)
        )
        if found:
            groups.append((heading, by_measure, heading == "D's outputs"))
    return groups


def _thinned(values: dict[int, float], most: int) -> tuple[list[int], list[float]]:
    steps = _evenly(sorted(values), most)
    return steps, [_rounded(values[step]) for step in steps]


def _evenly(items: Sequence[Any], most: int) -> list[Any]:
    """So many of them at most, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return list(items[-most:]) if most else []
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def _given(board: Leaderboard) -> str:
    """The options that were given for all runs alike."""
    runs = [run for run in board.runs if run.typed]
    keys = dict.fromkeys(key for run in runs for key in run.typed)
    same = [key for key in keys if len({run.typed.get(key) for run in runs}) == 1]
    return (
        cleaned(f"The same in all: {', '.join(f'{k}={runs[0].typed[k]}' for k in same)}", 1000)
        if same
        else ""
    )


def _differing(board: Leaderboard, rows: Sequence[int]) -> list[tuple[str, list[str]]]:
    """Every option that has not the same value in all rows, with its value in each."""
    runs = [[run for run in by_seed(board.rows[n]) if run.config] for n in rows]
    keys = dict.fromkeys(key for group in runs for run in group for key in run.config)
    found = []
    for key in sorted(keys):
        values = [", ".join(dict.fromkeys(run.option(key) or "" for run in g)) for g in runs]
        if len({value for value, group in zip(values, runs, strict=True) if group}) > 1:
            found.append((cleaned(key), [cleaned(value) for value in values]))
    return found[:_RUNS]


def _pictures(
    board: Leaderboard, room: float
) -> tuple[list[tuple[str, str]], list[list[tuple[int, str]]]]:
    """Real images by their data, and the grids of each run by iteration, in so many bytes."""
    runs = [run for _, _, run in _shown(board)]
    files = [run.grids() for run in runs]
    have = [grids for grids in files if grids]
    last = [_picture(grids[max(grids)]) for grids in have]
    size = sum(len(picture) + 20 for picture in last)
    most = min(room // size if size else 0, _PICTURES // max(len(have), 1), 60)
    if most < 1:
        return [], [[] for _ in runs]
    steps = _evenly(sorted({step for grids in files for step in grids}), int(most))
    found = []
    for grids in files:
        # Where a run has none at a step, its latest before.
        own = {max((s for s in grids if s <= step), default=None) for step in steps}
        kept = sorted(step for step in own if step is not None)
        pictures = [(step, _picture(grids[step])) for step in kept]
        found.append([(step, picture) for step, picture in pictures if picture])
    real = {}
    for run in runs:
        if run.data not in real and (picture := _picture(run.folder / "samples" / "real.png")):
            real[run.data] = picture
    names = {data: f"real images, {data}" if len(real) > 1 else "real images" for data in real}
    return [(names[data], picture) for data, picture in real.items()], found


@cache
def _picture(file: Path) -> str:
    """A picture drawn anew, so that nothing else in the file gets into the page; "" for none."""
    picture = thumbnail(file, _SIDE)
    if picture is None:
        return ""
    content = io.BytesIO()
    picture.save(content, "webp", quality=80, method=2)
    return base64.b64encode(content.getvalue()).decode()
