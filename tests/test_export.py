"""Exported networks give the checkpoint's images; the folder says what they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image

import gan_zoo
from gan_zoo import export
from gan_zoo.export import parts_of
from tests.conftest import DIGITS, SHORT, SMALLER

Run = Callable[..., CompletedProcess[str]]
SUFFIX = {"onnx": "onnx", "torch_export": "pt2", "safetensors": "safetensors"}


def trained(run: Run, model: str) -> None:
    data = DIGITS.get(model, SHORT[0])
    run("train.py", f"model={model}", data, *SHORT[1:], *SMALLER.get(model, ()),
        "trainer.max_steps=2", "hydra.run.dir=here", "logger=none")  # fmt: skip


@pytest.mark.parametrize(
    ("model", "format"),
    [
        ("cgan", "onnx"), ("infogan", "torch_export"), ("cogan", "safetensors"),
        ("cyclegan", "torch_export"), ("stackgan", "onnx"),
        pytest.param("hdcgan", "torch_export", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_networks_are_exported(run: Run, tmp_path: Path, model: str, format: str) -> None:
    trained(run, model)
    result = run("export.py", "checkpoint=here", f"format={format}", "output=out")
    assert "loaded again, the images differ by" in result.stdout
    files = {path.name for path in (tmp_path / "out").iterdir()}
    names = ["generator_a2b", "generator_b2a"] if model == "cyclegan" else ["generator"]
    written = {f"{name}.{SUFFIX[format]}" for name in names}
    assert files == {*written, "config.json", "README.md", "samples.png"}
    assert Image.open(tmp_path / "out" / "samples.png").width >= 600
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    assert about["iteration"] == 2
    assert "root" not in about["config"]["dataset"]
    assert str(tmp_path) not in json.dumps(about)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "arXiv" in card
    assert "scripts/train.py model=" in card
    assert "2 iterations" in card


def test_what_is_exported_is_what_sample_draws() -> None:
    for model in (gan_zoo.models.InfoGAN(), gan_zoo.models.CoGAN(), gan_zoo.models.HDCGAN()):
        (part,) = parts_of(model, ema=True)
        inputs = part.inputs(4)
        with torch.no_grad():
            torch.testing.assert_close(part.network(**inputs), model.sample(4, **inputs))


def test_an_export_needs_torch_alone(run: Run, tmp_path: Path) -> None:
    trained(run, "cgan")
    run("export.py", "checkpoint=here", "format=torch_export", "output=out")
    card = (tmp_path / "out" / "README.md").read_text()
    code = card.split("```python")[1].split("```")[0]
    code += "import sys, numpy; numpy.save('images.npy', images.detach().numpy())\n"
    code += "numpy.save('noise.npy', noise.numpy())\n"
    code += "assert not [m for m in sys.modules if m.startswith('gan_zoo')]\n"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "out", check=True)
    images, noise = (np.load(tmp_path / "out" / f"{n}.npy") for n in ("images", "noise"))
    model = gan_zoo.load(tmp_path / "here")
    drawn = model.sample(16, noise=torch.from_numpy(noise), labels=torch.arange(16) % 10)
    np.testing.assert_allclose(images, drawn.numpy(), atol=1e-4)


def test_onnx_runs_as_the_card_says(run: Run, tmp_path: Path) -> None:
    trained(run, "gan")
    run("export.py", "checkpoint=here", "output=out")
    code = (tmp_path / "out" / "README.md").read_text().split("```python")[1].split("```")[0]
    code += "assert images.shape == (16, 1, 28, 28) and abs(images).max() <= 1\n"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "out", check=True)


def test_the_card_has_figures_with_their_floors(run: Run, tmp_path: Path) -> None:
    trained(run, "gan")
    run("evaluate.py", "checkpoint=here", "metrics=[ms_ssim]", "num_samples=20")
    run("export.py", "checkpoint=here", "format=safetensors", "output=out")
    figures = json.loads((tmp_path / "here" / "metrics.json").read_text())["evaluation"][
        "last.ckpt"
    ]
    figure = figures["figures"]["ms_ssim_between"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| `ms_ssim_between` | {figure['value']:.4g} | {figure['floor']:.4g} | 20 |" in card


def test_nothing_is_written_without_a_card(run: Run, tmp_path: Path) -> None:
    trained(run, "gan")
    (tmp_path / "here" / "metrics.json").write_text('{"evaluation": {"last": {}}}')
    result = run("export.py", "checkpoint=here", "format=safetensors", "output=out", check=False)
    assert result.returncode == 1
    assert not (tmp_path / "out").exists()


def test_networks_that_differ_are_not_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(run, "gan")
    with monkeypatch.context() as patch:
        patch.setitem(
            export._READERS, "safetensors", lambda part, _: lambda i: part.network(**i) + 1
        )
        result = run(
            "export.py", "checkpoint=here", "format=safetensors", "output=out", check=False
        )
    assert result.returncode == 1
    assert "differ from the checkpoint's by 1: nothing was written" in result.stderr

    def fails(part: object) -> bytes:
        raise RuntimeError("no such operator\nmore")

    with monkeypatch.context() as patch:
        patch.setitem(export._WRITERS, "torch_export", fails)
        result = run(
            "export.py", "checkpoint=here", "format=torch_export", "output=out", check=False
        )
    assert "can't express generator: no such operator" in result.stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    result = run("export.py", "checkpoint=here", "format=safetensors", "output=out", check=False)
    assert "output=out is there already" in result.stderr
