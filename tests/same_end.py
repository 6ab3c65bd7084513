"""Whether two runs ended alike, to the last bit, in all that they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from gan_zoo.run.folder import find_checkpoint

# What was typed and chosen: a run that was resumed with other options has others.
_TYPED = ("run/overrides/text_summary", "run/settings/text_summary")


def differing(a: Any, b: Any, place: str = "") -> list[str]:
    """Where two nested structures of plain data and tensors are not bitwise the same."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(
            a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
        )
        return [] if same else [place]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differing(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i in range(len(a)) for d in differing(a[i], b[i], f"{place}/{i}")]
    return [] if type(a) is type(b) and (a == b or a != a) else [place]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint in a file, or the last one of a run's folder."""
    return find_checkpoint(path)[1]


def state(folder: Path) -> dict[str, Any]:
    """All of a run's last checkpoint but what tells of time and place."""
    checkpoint = read_checkpoint(folder)
    del checkpoint["config"], checkpoint["callbacks"]["Result"]["seconds"]
    measured = checkpoint["callbacks"].get("Metrics", {})
    for name in ("_needed", "seconds"):
        measured.pop(name, None)
    measured["reached"] = _untimed(measured.get("reached", {}))
    return checkpoint


def _untimed(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if not name.endswith(("seconds", "_ms"))}


def logged(folder: Path) -> dict[str, list[Any]]:
    """Tag -> (step, value) of all event files together, as they stand there."""
    found: dict[str, list[Any]] = {}

    def begun(file: Path) -> list[int]:
        # In its name are a time in seconds, and a number counted by this process.
        return [int(part) for part in file.name.split(".") if part.isdecimal()]

    for file in sorted(folder.glob("events.out.tfevents.*"), key=begun):
        events = EventAccumulator(str(file), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((e.step, str(e.value)) for e in events.Scalars(tag))
        for tag in events.Tags()["images"]:
            found.setdefault(tag, []).extend(
                (e.step, e.encoded_image_string) for e in events.Images(tag)
            )
        for tag in events.Tags()["tensors"]:
            found.setdefault(tag, []).extend(
                (e.step, make_ndarray(e.tensor_proto).tolist()) for e in events.Tensors(tag)
            )
    return _untimed(found)


def figures(folder: Path) -> dict[str, Any]:
    return _untimed(json.loads((folder / "metrics.json").read_text()))


def assert_same_end(folder: Path, straight: Path) -> None:
    assert differing(state(folder), state(straight)) == []
    assert differing(*({**logged(f), **dict.fromkeys(_TYPED)} for f in (folder, straight))) == []
    assert figures(folder) == figures(straight)
    pictures = sorted(path.name for path in (straight / "samples").iterdir())
    assert sorted(path.name for path in (folder / "samples").iterdir()) == pictures
    for name in pictures:
        assert (folder / "samples" / name).read_bytes() == (
            straight / "samples" / name
        ).read_bytes()
    animations = [f / "animation.gif" for f in (folder, straight)]
    assert len({a.read_bytes() for a in animations if a.exists()}) == animations[1].exists()
