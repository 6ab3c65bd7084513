"""The training command, as people type it: what it writes, what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_zoo.training.checkpoints import CheckpointFiles
from tests.conftest import DIGITS, FEW, ROOT, SHORT, SMALLER, slow_but
from tests.same_end import read_checkpoint

Run = Callable[..., CompletedProcess[str]]

TRAIN = str(ROOT / "scripts" / "train.py")
# Batch size, steps of the generator in 6 iterations, pixels and columns of the grid; the grids with
# captions or titles are one picture, four pixels wider than these.
MODELS = {
    "gan": (128, 6, 28, 8),
    "cgan": (128, 6, 28, 8),
    "dcgan": (128, 6, 28, 8),
    "infogan": (128, 6, 1068, 1),
    "wgan": (64, 6, 28, 8),
    "wgan_gp": (64, 6, 28, 8),
    "r3gan": (8, 6, 28, 8),
    "began": (64, 6, 28, 8),
    "hdcgan": (8, 6, 28, 8),
    "cogan": (8, 6, 28, 8),
    "discogan": (8, 6, 28, 10),
    "cyclegan": (4, 6, 28, 10),
    "stackgan": (8, 2, 702, 1),
    "stackgan_pp": (8, 6, 826, 1),
}
DATASETS = {
    "cogan": "digits_edges",
    "discogan": "digits_rotated",
    "cyclegan": "digits_colored",
    "stackgan": "digits_captions",
    "stackgan_pp": "digits_captions",
}
OWN_FIGURES = {
    "infogan": (
        "mutual_information",
        "mutual_information_ceiling",
        "mutual_information_continuous",
    ),
    "wgan": ("wasserstein_estimate", "wasserstein_estimate_median"),
    "wgan_gp": ("wasserstein_estimate", "wasserstein_estimate_median", "gradient_norm", "penalty"),
    "r3gan": ("gradient_norm", "penalty"),
    "began": ("k", "balance", "convergence"),
    "discogan": ("game", "reconstruction_a", "reconstruction_b"),
    "cyclegan": ("game", "cycle_a", "cycle_b", "lr_g"),
    "stackgan": ("d_wrong", "kl", "stage"),
    "stackgan_pp": ("d_wrong", "d_real_alone", "d_fake_alone", "kl", "colour_gap"),
}


def only_run(tmp_path: Path, pattern: str = "runs/*/*/*") -> Path:
    (folder,) = tmp_path.glob(pattern)
    return folder


@pytest.mark.parametrize("model", slow_but(FEW, MODELS))
def test_a_run_folder_holds_everything_about_the_run(run: Run, tmp_path: Path, model: str) -> None:
    batch_size, generator_steps, pixels, columns = MODELS[model]
    rest = (*SMALLER.get(model, ()), "callbacks.checkpoint.every_n_train_steps=4")
    short = (DIGITS.get(model, SHORT[0]), *SHORT[1:])
    result = run("train.py", f"model={model}", *short, *rest)
    dataset = DATASETS.get(model, "digits")
    folder = only_run(tmp_path, f"runs/{model}/{dataset}/*")

    assert f"Train   {model} on {dataset}: 6 iterations, batch {batch_size}, cpu" in result.stdout
    assert f"Run     {folder.relative_to(tmp_path)}" in result.stdout
    assert "tensorboard --logdir runs" in result.stdout
    assert "loss_d" in result.stdout

    assert (folder / ".hydra" / "config.yaml").is_file()
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert checkpoints == ["last.ckpt", "step-000006.ckpt"]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        "real.png", "step-000000.png", "step-000006.png",
    ]  # fmt: skip
    with Image.open(folder / "animation.gif") as animation:
        assert (animation.n_frames, animation.info["loop"]) == (2, 0)
    width = Image.open(folder / "samples" / "step-000006.png").size[0]
    assert width == columns * (pixels + 2) + 2

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["dataset"] == dataset
    assert metrics["steps"] == 6
    # StackGAN's first stage has 35 % of them; a penalty in every fourth iteration is one more.
    lazy = model in ("gan", "r3gan", "cogan")
    assert metrics["d_steps"] == 6 + lazy - metrics.get("d_2_steps", 0)
    assert metrics["g_steps"] == generator_steps
    assert metrics.get("g_2_steps", 4) == 4
    assert metrics["images_seen"] == 6 * batch_size
    assert 0 < metrics["iteration_ms"] < 1000 * metrics["seconds"]
    names = ("loss_d", "loss_g", "d_real", "d_fake", *OWN_FIGURES.get(model, ()))
    assert all(np.isfinite(metrics[f"train/{name}"]) for name in names)
    (session,) = json.loads((folder / "provenance.json").read_text())
    assert session["dataset"]["name"] == "digits"
    assert session["versions"]["torch"] == torch.__version__

    checkpoint = read_checkpoint(folder)
    assert checkpoint["global_step"] == 6
    assert checkpoint["config"]["dataset"]["name"] == "digits"

    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    assert {
        "train/loss_d", "train/loss_g", "train/d_real", "train/d_fake", "train/grad_norm_d",
        "train/d_steps", "train/g_steps", "train/images_seen",
    } <= set(tags["scalars"])  # fmt: skip
    assert ("train/grad_norm_g" in tags["scalars"]) == (generator_steps > 1)
    assert sorted(tags["images"]) == ["samples/generated", "samples/real"]
    # The x-axis is the iteration.
    assert [event.step for event in events.Scalars("train/loss_d")] == [2, 4, 6]
    assert [event.step for event in events.Images("samples/generated")] == [0, 6]


def test_callbacks_and_loggers_can_be_left_out(run: Run, tmp_path: Path) -> None:
    run("train.py", *SHORT, "hydra.run.dir=here", "trainer.enable_progress_bar=false",
        "~callbacks.checkpoint", "callbacks.sample_grid=null", "logger=none")  # fmt: skip
    kept = {path.name for path in (tmp_path / "here").iterdir()}
    assert kept == {".hydra", ".lock", "train.log", "metrics.json", "provenance.json"}


def test_a_damaged_data_file_is_named_before_a_folder_is_made(run: Run, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte").write_bytes(b"cut short")
    result = run("train.py", "trainer.max_steps=1", check=False, GAN_ZOO_DATA_DIR="data")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "train-images-idx3-ubyte' has 9 bytes instead of 47,040,016" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_seed_0_is_a_seed(run: Run, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("train.py", *SHORT, f"seed={seed}", f"hydra.run.dir={name}", "logger=none")
        weights.append(read_checkpoint(tmp_path / name)["state_dict"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_a_sweep_has_a_readable_folder_for_each_job(run: Run, tmp_path: Path) -> None:
    run("train.py", "-m", "model=gan,cgan,dcgan", *SHORT[1:], "dataset=digits")
    (sweep,) = (tmp_path / "runs" / "multirun").iterdir()
    jobs = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    # A folder's name has to survive the command line unquoted.
    assert jobs == ["0-model=gan", "1-model=cgan", "2-model=dcgan"]
    assert all((sweep / job / "metrics.json").is_file() for job in jobs)
    run("sample.py", f"checkpoint={sweep.relative_to(tmp_path) / jobs[0]}", "num_samples=4")


def test_resume_goes_on_in_the_folder_with_its_configuration(run: Run, tmp_path: Path) -> None:
    run("train.py", "model=cgan", "seed=3", *SHORT, "hydra.run.dir=here")
    before = read_checkpoint(tmp_path / "here")
    run("train.py", "resume=here", "trainer.max_steps=10")
    after = read_checkpoint(tmp_path / "here")
    assert after["global_step"] == 10
    assert after["counts"] == {"images_seen": 1280, "d_steps": 10, "g_steps": 10}
    assert after["config"]["model"] == before["config"]["model"]
    assert after["config"]["seed"] == 3
    noise = [c["callbacks"]["SampleGrid"]["inputs"]["noise"] for c in (before, after)]
    assert torch.equal(*noise)
    assert len(json.loads((tmp_path / "here" / "provenance.json").read_text())) == 2
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert (metrics["model"], metrics["steps"]) == ("cgan", 10)
    refused = run("train.py", "resume=here", "model=gan", check=False)
    assert "model=gan would replace" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_run_begins_with_the_networks_of_another(run: Run, tmp_path: Path) -> None:
    stackgan = ("model=stackgan", "dataset.name=digits", "dataset.encoder_steps=2",
                "dataset.batch_size=8", "dataset.train_size=40", "dataset.val_size=16",
                *SHORT[1:])  # fmt: skip
    run("train.py", *stackgan, "model.stage_one_share=1", "hydra.run.dir=first")
    second = (*stackgan, "model.stage_one_share=0", "hydra.run.dir=second")
    refused = run("train.py", *second, check=False)
    assert refused.returncode == 1
    assert "init_from=RUN_FOLDER" in refused.stderr
    assert not (tmp_path / "second").exists()
    run("train.py", *second, "init_from=first")
    weights = [read_checkpoint(tmp_path / name)["state_dict"] for name in ("first", "second")]
    kept = [key for key in weights[0] if key.startswith("generator.")]
    assert kept
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in kept)
    metrics = json.loads((tmp_path / "second" / "metrics.json").read_text())
    assert (metrics["steps"], metrics["g_2_steps"]) == (6, 6)
    assert 0 < metrics["val/d_real"] < 1
    run("train.py", "resume=second", "trainer.max_steps=7")
    refused = run("train.py", "model=gan", *SHORT, "init_from=first", check=False)
    assert refused.returncode == 1
    assert "init_from=first" in refused.stderr.splitlines()[-1]


def test_validation_images_and_mixed_precision(run: Run, tmp_path: Path) -> None:
    run("train.py", "dataset.val_size=200", "trainer.precision=bf16-mixed", *SHORT[:2],
        "trainer.max_steps=12", "hydra.run.dir=here")  # fmt: skip
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert 0 < metrics["val/d_real"] < 1
    kept = {path.name for path in (tmp_path / "here" / "checkpoints").iterdir()}
    assert kept == {"best.ckpt", "last.ckpt", "step-000012.ckpt"}


def test_a_run_does_not_go_on_with_other_data(run: Run, tmp_path: Path) -> None:
    run("train.py", *SHORT, "hydra.run.dir=here")
    # As if it had been trained on what is not there any more.
    saved = tmp_path / "here" / ".hydra" / "config.yaml"
    saved.write_text(saved.read_text().replace("name: digits", "name: kmnist"))
    checkpoint = read_checkpoint(tmp_path / "here")
    checkpoint["config"]["dataset"]["name"] = "kmnist"
    for file in (tmp_path / "here" / "checkpoints").iterdir():
        CheckpointFiles().save_checkpoint(checkpoint, file)
    (tmp_path / "data").write_text("")
    more = "trainer.max_steps=8"
    result = run("train.py", "resume=here", more, check=False, GAN_ZOO_DATA_DIR="data")
    assert result.returncode == 1
    assert "was trained on kmnist" in result.stderr
    assert (tmp_path / "here" / "checkpoints" / "last.ckpt").is_file()


def test_ctrl_c_keeps_what_was_trained(tmp_path: Path) -> None:
    command = [sys.executable, TRAIN, "dataset=digits", "trainer=cpu", "hydra.run.dir=here",
               "callbacks.sample_grid.every_n_steps=10", "callbacks.sample_grid.most=null",
               "callbacks.metrics=null"]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    picture = tmp_path / "here" / "samples" / "step-000010.png"
    deadline = time.monotonic() + 200
    while not picture.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "resume=here" in output
    assert read_checkpoint(tmp_path / "here")["global_step"] >= 10


@pytest.mark.slow
def test_two_processes_end_bitwise_equal(spawn: Run, tmp_path: Path) -> None:
    (tmp_path / "rank_weights.py").write_text(
        "import pathlib, torch, pytorch_lightning as pl\n"
        "class Keep(pl.Callback):\n"
        "    def on_fit_end(self, trainer, model):\n"
        "        torch.save(model.state_dict(), f'rank{trainer.global_rank}.pt')\n"
        "    def on_train_batch_start(self, trainer, model, batch, i):\n"
        "        with open(f'seen{trainer.global_rank}', 'a') as seen:\n"
        "            print(batch.image.sum().item(), model.draw_noise(1).sum().item(), file=seen)\n"
    )
    spawn(
        TRAIN, "model=dcgan", "dataset=digits", "dataset.batch_size=16", "trainer=ddp_cpu",
        "trainer.max_steps=3", "trainer.log_every_n_steps=1", "model.ema_decay=0.9",
        "model.generator.base_channels=8", "model.discriminator.base_channels=8",
        "+callbacks.keep._target_=rank_weights.Keep", "hydra.run.dir=here",
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in ranks[0])
    seen = [(tmp_path / f"seen{rank}").read_text().split() for rank in (0, 1)]
    assert set(seen[0]).isdisjoint(seen[1])
    assert json.loads((tmp_path / "here" / "metrics.json").read_text())["images_seen"] == 3 * 32


@pytest.mark.slow
def test_processes_that_torchrun_started_share_a_folder(spawn: Run, tmp_path: Path) -> None:
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", TRAIN,
               "dataset=digits", "trainer=ddp_cpu", *SHORT[2:])  # fmt: skip
    refused = spawn(*command, check=False)
    assert refused.returncode
    assert "give hydra.run.dir=FOLDER, which is then the same for all." in refused.stderr
    assert not list(tmp_path.rglob("checkpoints"))
    spawn(*command, "hydra.run.dir=here")
    result = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert result["images_seen"] == 6 * 2 * 128


JOINT = """
import torch, pytorch_lightning as pl
from torch import nn

NAMES = ("rand", "randn", "randint")
DRAW = {name: getattr(torch, name) for name in NAMES}

class Joint(pl.Callback):
    # Without batch norm, whose statistics only GPUs share, and with each process's part of what is
    # drawn for the joint batch.
    def setup(self, trainer, model, stage):
        for network in model.players().values():
            for module in network.modules():
                for name, child in module.named_children():
                    if isinstance(child, nn.modules.batchnorm._BatchNorm):
                        setattr(module, name, nn.Identity())
        keep(model, "start")

    def on_fit_start(self, trainer, model):
        rank, world, draws = trainer.global_rank, trainer.world_size, [0]

        def drawing(name):
            def draw(*args, generator=None, device=None, **options):
                bounds, size = (args[:-1], args[-1]) if name == "randint" else ((), args)
                n, *rest = torch.Size(size[0] if isinstance(size[0], (tuple, list)) else size)
                draws[0] += 1
                seeded = torch.Generator().manual_seed(draws[0])
                joint = DRAW[name](*bounds, (n * world, *rest), generator=seeded, **options)
                return joint[rank * n : (rank + 1) * n]
            return draw

        if hasattr(model, "draw_noise"):
            values = model.draw_noise(1).shape[1]
            model.draw_noise = lambda n: torch.randn(n, values)
        for name in NAMES:
            setattr(torch, name, drawing(name))

    def on_fit_end(self, trainer, model):
        for name in NAMES:
            setattr(torch, name, DRAW[name])
        if trainer.global_rank == 0:
            keep(model, trainer.world_size)

def keep(model, name):
    torch.save({k: v.detach().double() for k, v in model.named_parameters()}, f"{name}.pt")
"""
NARROW = ("model.generator.base_channels=4", "model.discriminator.base_channels=4")
# The pool is each process's own, dropout draws in the network.
ALIKE = {
    "gan": ("dataset=digits",),
    "cgan": ("dataset=digits", "model.discriminator.dropout=0"),
    "dcgan": ("dataset=digits", *NARROW),
    "infogan": ("dataset=digits", *NARROW),
    "wgan": ("dataset=digits", *NARROW),
    "wgan_gp": ("dataset=digits", *NARROW, "model.n_critic=2"),
    "r3gan": ("dataset=digits",),
    "began": ("dataset=digits", "model.generator.base_channels=4"),
    "hdcgan": ("dataset=digits", *NARROW),
    "cogan": ("dataset.name=digits", *NARROW),
    "discogan": ("dataset.name=digits", *NARROW),
    "cyclegan": ("dataset.name=digits", *NARROW, "model.pool_size=0"),
    "stackgan": ("dataset.name=digits", "dataset.encoder_steps=2"),
    "stackgan_pp": ("dataset.name=digits", "dataset.encoder_steps=2"),
}


@pytest.mark.parametrize("model", slow_but(["wgan_gp"], ALIKE))
def test_two_processes_train_as_one_does_on_the_joint_batch(
    run: Run, spawn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    (tmp_path / "joint.py").write_text(JOINT)
    monkeypatch.syspath_prepend(tmp_path)
    same = (
        f"model={model}", *ALIKE[model], "dataset.val_size=0", "trainer.precision=64-true",
        "model.ema_decay=0", "trainer.max_steps=4", "logger=none", "callbacks.metrics=null",
        "callbacks.sample_grid=null", "+callbacks.joint._target_=joint.Joint",
    )  # fmt: skip
    run("train.py", *same, "trainer=cpu", "dataset.batch_size=8", "hydra.run.dir=one")
    spawn(TRAIN, *same, "trainer=ddp_cpu", "dataset.batch_size=4", "hydra.run.dir=two",
          PYTHONPATH=str(tmp_path))  # fmt: skip
    start, one, two = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("start", 1, 2)
    )
    moved, apart = (
        torch.stack([(one[key] - other[key]).abs().max() for key in one]) for other in (start, two)
    )
    assert moved.max() > 1e-4
    assert apart.max() < 1e-5, [*one][int(apart.argmax())]


@pytest.mark.slow
def test_a_sweep_may_spawn_its_processes(spawn: Run, tmp_path: Path) -> None:
    strategy = "trainer.strategy=ddp_spawn_find_unused_parameters_true"
    spawn(TRAIN, "-m", "model=gan,cgan", "dataset=digits", "trainer=ddp_cpu", strategy, *SHORT[2:])
    results = [json.loads(p.read_text()) for p in tmp_path.glob("runs/multirun/*/*/metrics.json")]
    assert sorted(result["model"] for result in results) == ["cgan", "gan"]
    assert {result["images_seen"] for result in results} == {6 * 2 * 128}


def test_missing_mnist_is_stood_in_for_and_named_so(run: Run, tmp_path: Path) -> None:
    # A file where the data folder should be can neither be read nor downloaded into.
    (tmp_path / "data").write_text("")
    environment = {"GAN_ZOO_DATA_DIR": "data"}
    short = ("trainer.max_steps=2", "trainer=cpu")
    result = run("train.py", *short, **environment)
    assert "TRAINING ON THE STAND-IN" in result.stdout + result.stderr
    folder = only_run(tmp_path, "runs/gan/digits/*")
    assert json.loads((folder / "metrics.json").read_text())["dataset"] == "digits"
    assert "name: digits" in (folder / ".hydra" / "config.yaml").read_text()
    run("train.py", "-m", "seed=1", *short, **environment)
    (job,) = tmp_path.glob("runs/multirun/*/0-*")
    assert job.name.endswith("_digits")
    result = run("train.py", *short, "dataset.when_unavailable=error", check=False, **environment)
    assert result.returncode == 1
    assert "GAN_ZOO_DATA_DIR" in result.stderr


@pytest.mark.parametrize(
    "dataset", slow_but(["mnist_usps"], ["mnist_negatives", "mnist_usps", "mnist_edges"])
)
def test_a_stand_in_for_two_domains_is_named_so(run: Run, tmp_path: Path, dataset: str) -> None:
    (tmp_path / "data").write_text("")
    small = ("model=cogan", *SMALLER["cogan"], "trainer.max_steps=1", "trainer=cpu")
    run("train.py", f"dataset={dataset}", *small, "dataset.val_size=10", GAN_ZOO_DATA_DIR="data")
    label = dataset.replace("mnist", "digits")
    assert json.loads((only_run(tmp_path) / "metrics.json").read_text())["dataset"] == label
    assert only_run(tmp_path).parent.name == label


def test_adaptation_logs_accuracy_on_the_target(run: Run, tmp_path: Path) -> None:
    run(
        "train.py", "model=cogan", "dataset=mnist_usps", "dataset.name=digits", *SHORT[1:],
        *SMALLER["cogan"], "dataset.size_a=48", "dataset.size_b=48", "dataset.val_size=20",
        "model.adapt=true", "hydra.run.dir=here",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert 0 <= metrics["val/target_accuracy"] <= 1
    assert metrics["train/classification_loss"] > 0


def test_peoples_own_pictures(run: Run, tmp_path: Path) -> None:
    for part in ("trainA", "trainB"):
        folder = tmp_path / "mine" / part
        folder.mkdir(parents=True)
        for n, mode in enumerate(("RGB", "L")):
            Image.new(mode, (70, 50), 100).save(folder / f"{n}.png")
    command = (
        "train.py", "model=cyclegan", "dataset=unpaired_folder", "dataset.root=mine", "trainer=cpu",
        "dataset.image_size=64", "trainer.max_steps=1", "model.generator.base_channels=4",
        "model.generator.blocks=1", "model.discriminator.base_channels=4",
    )  # fmt: skip
    run(*command)
    folder = only_run(tmp_path, "runs/cyclegan/unpaired_folder/*")
    assert Image.open(folder / "samples" / "step-000001.png").size == (2 * 66 + 2, 6 * 66 + 2)
    (tmp_path / "mine" / "trainA" / "notes.txt").write_text("")
    result = run(*command, check=False)
    assert result.returncode == 1
    assert "notes.txt' is not a picture" in result.stderr.splitlines()[-1]
    assert only_run(tmp_path, "runs/cyclegan/unpaired_folder/*") == folder


def test_the_shipped_experiment_of_points_runs(run: Run, tmp_path: Path) -> None:
    run("train.py", "experiment=discogan_toy", *SHORT[1:])
    metrics = json.loads((only_run(tmp_path) / "metrics.json").read_text())
    assert np.isfinite(metrics["train/loss_d"])


@pytest.mark.parametrize("debug", ["default", "overfit", "profiler"])
def test_debug_configurations_run(run: Run, tmp_path: Path, debug: str) -> None:
    run("train.py", f"debug={debug}", "dataset=digits", "trainer.max_steps=4")


@pytest.mark.parametrize("loss", ["minimax", "least_squares", "hinge", "wasserstein"])
def test_losses_and_penalties_are_options(run: Run, tmp_path: Path, loss: str) -> None:
    run("train.py", f"model.loss={loss}", "model.penalty=dragan", *SHORT, "logger=csv")
    assert "train/penalty" in (only_run(tmp_path) / "csv" / "version_0" / "metrics.csv").read_text()


def test_a_traceback_can_be_asked_for(run: Run, spawn: Run) -> None:
    arguments = ("model.loss=hing", *SHORT)
    assert "Traceback" not in run("train.py", *arguments, check=False).stderr
    result = spawn(TRAIN, *arguments, check=False, HYDRA_FULL_ERROR="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
