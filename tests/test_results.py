"""The script that makes the tables and pictures of the documentation."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import FEW, ROOT, slow_but

RESULTS = runpy.run_path(str(ROOT / "scripts" / "results.py"))


def record(**seeds: dict[str, Any]) -> Any:
    """Of 1,000 iterations of 100 images and 60 ms."""
    filled = {seed: {"reached": {}, "curve": {}} | about for seed, about in seeds.items()}
    return RESULTS["Record"]("cgan", 1000, 100, 60.0, {}, filled)


def test_the_table_has_medians_of_the_seeds() -> None:
    figures = {"coverage": 0.9, "accuracy": 0.98}
    three = record(
        a={"figures": figures | {"fid": 0.7}, "reached": {"5": 50_000}},
        b={"figures": figures | {"fid": 3.0}, "reached": {"5": 20_000}},
        c={"figures": figures | {"fid": 0.5}},
    )
    table = RESULTS["table"]({"cgan": three}).splitlines()
    assert len(table) == 2 + len(RESULTS["PAPERS"])
    (line,) = (line for line in table if "`cgan`" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # 1,000 iterations of 60 ms are a minute; half of the images take half of it.
    assert cells[3:-1] == ["1", ".70 (.50-3.00)", ".90", "98.0 %", ".50, -, -", "3"]
    assert all("not measured" in line for line in table[2:] if "`cgan`" not in line)


def test_of_two_domains_the_worse_one_counts() -> None:
    pair = record(a={"figures": {"fid_a": 1.0, "fid_b": 2.0, "rarest_a": 0.1, "rarest_b": 0.08}})
    assert (pair.figure("fid").median, pair.figure("rarest").median) == (2.0, 0.08)
    assert pair.figure("accuracy") is None
    assert pair.minutes_to(5) == "-"


def test_text_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- models -->\nold\n<!-- /models -->\nb\n")
    RESULTS["replace"](page, "models", r"new \1")
    assert page.read_text() == "a\n<!-- models -->\nnew \\1\n<!-- /models -->\nb\n"
    with pytest.raises(SystemExit, match="other"):
        RESULTS["replace"](page, "other", "new")


@pytest.mark.parametrize("model", slow_but(FEW[:4], ["gan", "cogan", "discogan", "stackgan"]))
def test_a_run_becomes_a_record_and_pictures(
    run: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr("gan_zoo.claims.domains._PAIRS", 20)
    small = ["dataset.name=digits"] if model != "gan" else ["dataset=digits"]
    if model == "stackgan":
        small += ["dataset.encoder_steps=2"]
    run("train.py", f"model={model}", *small, "trainer.max_steps=2", "dataset.batch_size=8",
        "callbacks.metrics.num_samples=20", "callbacks.sample_grid.every_n_steps=1",
        f"hydra.run.dir={folder}")  # fmt: skip
    run("evaluate.py", f"checkpoint={folder}", "num_samples=20", "metrics=[fid,prdc,modes]")
    found = RESULTS["record_of"](model, {0: folder}, 10.0)
    assert json.loads(json.dumps(found._asdict())) == found._asdict()
    assert (found.iterations, found.batch_size) == (2, 8)
    assert found.figure("fid").median > 0
    assert found.seeds["0"]["curve"]
    monkeypatch.setitem(RESULTS["draw"].__globals__, "PICTURES", tmp_path)
    RESULTS["draw"](model, folder)
    RESULTS["draw_curve"](found, tmp_path / f"{model}_curve.png")
    for file in (f"{model}.png", f"{model}.gif", f"{model}_curve.png"):
        with Image.open(tmp_path / file) as picture:
            assert picture.width >= 600
    strip = RESULTS["strip"]([model] * 8)
    assert strip.width >= 600
    assert strip.getcolors(10**6) != [(strip.width * strip.height, (255, 255, 255))]


def test_the_gallery_names_what_is_there() -> None:
    page = (ROOT / "docs" / "gallery.md").read_text()
    sections = re.split(r"^## ", page, flags=re.M)[1:]
    assert [section.split()[0] for section in sections] == list(RESULTS["PAPERS"])
    for section in sections:
        assert f"python scripts/train.py model={section.split()[0]}\n" in section
        files: list[str] = []
        for name in re.findall(r"`([\w./]+)`", section.partition("| term | code |")[2]):
            if name.endswith(".py"):
                files.append((ROOT / name).read_text())
            elif name[0].isupper() or "_" in name or name in ("score", "r1"):
                last = name.rpartition(".")[2]
                known = "\n".join(files)
                assert re.search(rf"^\s*(def|class) {last}\b", known, flags=re.M) or (
                    name in ("n_critic", "wgan_gp") or "=" in name
                ), (section.split()[0], name)


def test_pictures_in_the_pages_exist_and_are_large() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for name in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()):
            with Image.open(page.parent / name) as picture:
                assert picture.width >= 600, name


def test_a_claims_figure_stands_beside_the_papers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RESULTS["claimed"].__globals__, "ROOT", tmp_path)
    assert RESULTS["claimed"]("gan") == "-"
    folder = tmp_path / "docs" / "reproduction"
    folder.mkdir(parents=True)
    goals = [
        {"figure": "modes", "arm": "dcgan", "values": [7.0, 5.0, 9.0], "paper": "99"},
        {"figure": "modes", "arm": "r3gan", "values": [1000.0, 998.0, 1000.0], "paper": "1,000"},
    ]
    (folder / "stacked_mnist.json").write_text(json.dumps({"goals": goals}))
    linked = "[stacked modes 1,000 (1,000)](docs/reproduction.md#stacked_mnist)"
    assert RESULTS["claimed"]("r3gan") == linked
    error = {"figure": "one_nn", "arm": "dcgan", "values": [0.05, 0.0312], "paper": "2.98 %"}
    (folder / "dcgan_nearest.json").write_text(json.dumps({"goals": [error]}))
    assert RESULTS["claimed"]("dcgan").startswith("[nearest neighbour's error 4.1 % (2.98 %)]")


def test_the_claims_beside_the_papers_are_goals() -> None:
    for name, arm, figure, _ in RESULTS["CLAIMS"].values():
        goals = OmegaConf.load(ROOT / "conf" / "claim" / f"{name}.yaml").goals
        assert (arm, figure) in {(goal.get("arm"), goal.figure) for goal in goals}
