"""The script that makes the tables and pictures of the documentation."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import ROOT

RESULTS = runpy.run_path(str(ROOT / "scripts" / "results.py"))


def model(folder: Path, reached: list[float | None]) -> Any:
    """One of three seeds, of 1,000 iterations of 100 images and 60 ms."""
    results = [
        result(fid=fid, coverage=0.9, accuracy=0.98)
        | ({} if images is None else {"reached/fid_5_images": images})
        for images, fid in zip(reached, (0.7, 3.0, 0.5), strict=True)
    ]
    return RESULTS["Model"]("cgan", [folder] * 3, results, 60.0)


def result(**figures: float) -> dict[str, Any]:
    measured = {key: {"value": value} for key, value in figures.items()}
    evaluation = {"last.ckpt": {"figures": measured}}
    return {"steps": 1000, "images_seen": 100_000, "evaluation": evaluation}


def test_the_table_has_medians_of_the_seeds(tmp_path: Path) -> None:
    line = RESULTS["table"]([model(tmp_path, [50_000, 20_000, None])]).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # 1,000 iterations of 60 ms are a minute; half of the images take half of it.
    assert cells[3:] == ["1", ".70 (.50-3.00)", ".90", "98.0 %", ".50, -, -"]
    two = model(tmp_path, [50_000, None, None])
    assert two.minutes_to(5) == "-"
    found = result(fid_a=1.0, fid_b=2.0, rarest_a=0.1, rarest_b=0.08)
    pair = two._replace(results=[found] * 3)
    assert (pair.figure("fid").median, pair.figure("rarest").median) == (2.0, 0.08)
    assert pair.figure("accuracy") is None


def test_text_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- models -->\nold\n<!-- /models -->\nb\n")
    RESULTS["replace"](page, "models", r"new \1")
    assert page.read_text() == "a\n<!-- models -->\nnew \\1\n<!-- /models -->\nb\n"
    with pytest.raises(SystemExit, match="other"):
        RESULTS["replace"](page, "other", "new")


def test_the_picture_is_the_runs_last_grid_enlarged(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("dataset: {image_size: 28}\n")
    for step, colour in (("000500", "white"), ("001000", "red")):
        Image.new("RGB", (240, 240), colour).save(tmp_path / "samples" / f"step-{step}.png")
    RESULTS["draw"](model(tmp_path, [None] * 3), tmp_path)
    with Image.open(tmp_path / "cgan.png") as picture:
        assert picture.size == (720, 720)
        assert picture.getpixel((0, 0)) == (255, 0, 0)
    with Image.open(tmp_path / "cgan_small.png") as picture:
        assert picture.size == (120, 60)
