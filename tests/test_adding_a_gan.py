"""docs/adding_a_gan.md, done as it says."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "adding_a_gan.md").read_text()
SHORT = ("dataset=digits", "trainer=cpu", "trainer.max_steps=2", "dataset.batch_size=8",
         "callbacks.metrics.num_samples=20", "hydra.run.dir=here")  # fmt: skip


def block(kind: str) -> str:
    (text,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.S)
    return str(text)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's two files, where it says."""
    for file, kind in (("my_gans/pairs.py", "python"), ("my_conf/model/pairs.yaml", "yaml")):
        assert f"`{file}`" in PAGE
        place = tmp_path / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(block(kind))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("my_gans")]:
        del sys.modules[name]


def test_the_page_adds_a_gan(
    run: Callable[..., CompletedProcess[str]], own: None, tmp_path: Path
) -> None:
    commands = [
        shlex.split(line) for line in block("sh").splitlines() if line.startswith("python ")
    ]
    scripts = [Path(script).name for _, script, *_ in commands]
    assert scripts == [*["train.py"] * 3, "sample.py", "evaluate.py", "export.py"]
    more = {"sample.py": ("num_samples=4",), "evaluate.py": ("num_samples=20", "metrics=[fid]"),
            "export.py": ("format=safetensors",)}  # fmt: skip
    for number, (_, script, *arguments) in enumerate(commands):
        typed = [argument.replace("RUN_FOLDER", "here") for argument in arguments]
        name = Path(script).name
        if number < 2:
            run(name, *typed, *SHORT[:-1], f"hydra.run.dir={('here', 'there')[number]}")
        elif name == "train.py":
            run(name, *typed, "trainer.max_steps=4")
        else:
            run(name, *typed, *more[name])
            refused = run(name, *(t for t in typed if "trust" not in t), *more[name], check=False)
            assert refused.returncode == 1
            assert "trust=my_gans" in refused.stderr
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert metrics["steps"] == 4
    assert {"train/margin", "train/penalty", "metrics/fid"} <= metrics.keys()
    assert (tmp_path / "samples.png").is_file()
    refused = run(
        "train.py", "--config-dir", "my_conf", "model=pairs", "model.scale=-1", check=False
    )
    assert "model.scale is -1; it has to be a number above 0" in refused.stderr
