"""The package away from its checkout: as a wheel, in a notebook, and in a script without Hydra."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, TensorDataset

import gan_zoo
from gan_zoo import models
from gan_zoo.models import CGAN, DCGAN
from gan_zoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gan_zoo.run.configuration import CONFIG_DIR, composed
from tests.conftest import ROOT

Run = Callable[..., CompletedProcess[str]]

NEXT_HYDRA = ("hydra-core==1.4.0rc3", "omegaconf==2.4.1rc1")
QUICK = ("trainer=cpu", "trainer.max_steps=2", "callbacks.metrics=null", "logger=none")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, installed from a wheel without a network."""
    place = tmp_path_factory.mktemp("wheel")
    # setuptools would reuse what a checkout's build folder has.
    for part in ("gan_zoo", "conf"):
        shutil.copytree(ROOT / part, place / "source" / part)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "source")
    pip = (sys.executable, "-m", "pip", "-q", "--no-cache-dir", "--disable-pip-version-check")
    for command in (
        ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", "./source"),
        ("install", "--no-deps", "--no-index", "--find-links=dist", "--target=there", "gan_zoo"),
    ):
        subprocess.run([*pip, *command], cwd=place, check=True)
    return place / "there"


def test_the_wheel_trains_and_samples_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    def call(command: str, *arguments: str) -> str:
        return subprocess.run(
            [installed / "bin" / command, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    # A callback that says which package it is part of.
    (installed / "witness.py").write_text(
        "import gan_zoo, pytorch_lightning\n"
        "from gan_zoo.run.configuration import CONFIG_DIR\n"
        "class Witness(pytorch_lightning.Callback):\n"
        "    def on_fit_start(self, trainer, model):\n"
        "        print('ran', gan_zoo.__file__, CONFIG_DIR)\n"
    )
    told = call(
        "gan-zoo", "train", "model=gan", "dataset=digits", "trainer.max_steps=2", "trainer=cpu",
        "+callbacks.witness._target_=witness.Witness", "hydra.run.dir=runs/here",
    )  # fmt: skip
    package = installed / "gan_zoo"
    assert f"ran {package / '__init__.py'} {package / 'conf'}" in told
    assert "Trained 2 steps" in told
    call("gan-zoo", "sample", "checkpoint=runs/here", "num_samples=4")
    assert (tmp_path / "samples.png").is_file()
    call("gan-zoo", "compare", "root=runs")
    assert (tmp_path / "runs" / "compare.html").is_file()
    assert (installed / "bin" / "gan-zoo-evaluate").is_file()


def test_all_configurations_are_in_the_wheel(installed: Path) -> None:
    def files(folder: Path) -> set[Path]:
        return {path.relative_to(folder) for path in folder.rglob("*.*") if path.suffix != ".pyc"}

    assert files(installed / "gan_zoo" / "conf") == files(ROOT / "conf")
    package = {path for path in files(ROOT / "gan_zoo") if path.parts[0] != "conf"}
    assert {path for path in files(installed / "gan_zoo") if path.parts[0] != "conf"} == package


def test_importing_the_package_imports_nothing_heavy(spawn: Run) -> None:
    heavy = "{'torch', 'pytorch_lightning', 'matplotlib', 'hydra'}"
    code = f"import sys, gan_zoo; print(sorted({heavy} & set(sys.modules)), gan_zoo.__version__)"
    assert spawn("-c", code).stdout.split() == ["[]", gan_zoo.__version__]


def test_runs_of_a_notebook_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = (gan_zoo.build("gan", "digits", QUICK) for _ in range(2))
    assert first.folder != second.folder
    assert {run.folder.parent for run in (first, second)} == {Path("runs/gan/digits")}
    assert first.trainer.default_root_dir == str(first.folder)
    first.trainer.fit(first.model, first.data)
    assert gan_zoo.load(first.folder).counts["g_steps"] == 2  # type: ignore[attr-defined]


def test_a_notebook_trains_what_the_command_would(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    small = [f"model.{player}.base_channels=4" for player in ("generator", "discriminator")]
    run = gan_zoo.build("dcgan", "digits", ["model.latent_dim=64", *small, *QUICK], folder)
    assert isinstance(run.model, DCGAN)
    run.trainer.fit(run.model, run.data)
    model = gan_zoo.load(folder)
    images = model.sample(4)
    assert images.shape == (4, 1, 28, 28)
    assert images.abs().max() <= 1
    assert model.config["model"]["latent_dim"] == 64
    with pytest.raises(ValueError, match=r"model\.latent_dim is 0; it has to be"):
        gan_zoo.build("dcgan", "digits", ["model.latent_dim=0"], folder)
    with pytest.raises(ValueError, match=r"There is no model 'dcgam'; did you mean dcgan\?"):
        gan_zoo.build("dcgam")


def test_a_notebook_needs_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a command that ran in this process before.
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    run = gan_zoo.build("gan", "digits", ["trainer=ddp_cpu", *QUICK[1:]], tmp_path)
    assert run.trainer.world_size == 2
    with pytest.raises(ValueError, match=r"model/optimizer@model\.optimizer_g=rmsprop chooses"):
        gan_zoo.build("gan", "digits", ["model.optimizer_g=rmsprop"], tmp_path)


def test_a_runs_checkpoint_is_read_by_its_class(tmp_path: Path) -> None:
    run = gan_zoo.build("cgan", "digits", ["dataset.batch_size=8", *QUICK], tmp_path)
    run.trainer.fit(run.model, run.data)
    last = tmp_path / "checkpoints" / "last.ckpt"
    model = CGAN.load_from_checkpoint(last)
    assert model.counts == {"images_seen": 16, "d_steps": 2, "g_steps": 2}
    assert gan_zoo.load(tmp_path).counts == model.counts
    assert not model.training
    torch.manual_seed(0)
    images = model.sample(3, labels=torch.tensor([3, 3, 3]))
    torch.manual_seed(0)
    assert torch.equal(images, run.model.sample(3, labels=torch.tensor([3, 3, 3])))
    with pytest.raises(ValueError, match=r"last\.ckpt' is of a CGAN, not of a DCGAN\."):
        DCGAN.load_from_checkpoint(last)


@pytest.mark.parametrize("small", [True, False])
def test_a_model_by_hand_trains_on_plain_tuples(tmp_path: Path, small: bool) -> None:
    def options() -> dict[str, Any]:
        if not small:
            return {}
        return {
            "generator": DCGANGenerator(latent_dim=8, base_channels=4),
            "discriminator": DCGANDiscriminator(base_channels=4),
            "latent_dim": 8,
            "ema_decay": 0.9,
        }

    torch.manual_seed(0)
    images = torch.rand(12, 1, 28, 28) * 2 - 1
    loader = DataLoader(TensorDataset(images, torch.arange(12) % 10), batch_size=4)
    model = DCGAN(**options())
    trainer = pl.Trainer(
        max_steps=5, accelerator="cpu", logger=False, enable_progress_bar=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, loader)
    assert trainer.global_step == 5
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    again = DCGAN.load_from_checkpoint(tmp_path / "mine.ckpt", **options())
    assert again.counts == model.counts == {"images_seen": 20, "d_steps": 5, "g_steps": 5}
    noise = model.draw_noise(4)
    assert torch.equal(again.sample(4, noise=noise), model.sample(4, noise=noise))
    with pytest.raises(ValueError, match="checkpoint's weights do not fit"):
        DCGAN.load_from_checkpoint(tmp_path / "mine.ckpt", latent_dim=7)


@pytest.mark.parametrize("name", models.__all__)
def test_every_model_has_its_papers_networks(name: str) -> None:
    model = getattr(models, name)()
    inputs: dict[str, Any] = {}
    if name in ("DiscoGAN", "CycleGAN"):
        inputs["source"] = torch.rand(2, 1, 32, 32)
    if name.startswith("StackGAN"):
        inputs["captions"] = torch.randn(2, 64)
    images = model.sample(2, **inputs)
    assert len(images) == 2
    assert images.isfinite().all()
    assert images.abs().max() <= 1


def everything_composed() -> dict[str, Any]:
    """All modules imported, all models and experiments composed and their models built."""
    for module in pkgutil.walk_packages(gan_zoo.__path__, "gan_zoo."):
        importlib.import_module(module.name)
    found = {}
    for group in ("model", "experiment"):
        folder = CONFIG_DIR / group
        papers = folder.glob("paper/*.yaml") if group == "experiment" else ()
        for file in sorted([*folder.glob("*.yaml"), *papers]):
            choice = file.relative_to(folder).with_suffix("").as_posix()
            config = composed("train", [f"{group}={choice}"])
            instantiate(config.model).configure_optimizers()
            found[choice] = OmegaConf.to_container(config, resolve=True)
    return found


@pytest.mark.slow
def test_the_next_hydra_composes_the_same(spawn: Run, tmp_path: Path) -> None:
    target = str(tmp_path / "next")
    spawn("-m", "pip", "-q", "install", "--pre", "--no-deps", "--target", target, *NEXT_HYDRA)
    code = "import hydra, json; from tests.test_install import everything_composed as e\n"
    code += "print(json.dumps([hydra.__version__, e()]))"
    path = f"{target}{os.pathsep}{ROOT}"
    with ThreadPoolExecutor() as pool:
        following = pool.submit(spawn, "-W", "ignore", "-c", code, PYTHONPATH=path)
        now = everything_composed()
    version, configurations = json.loads(following.result().stdout.splitlines()[-1])
    assert NEXT_HYDRA[0].endswith(version)
    assert configurations == json.loads(json.dumps(now))
