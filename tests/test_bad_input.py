"""What people get wrong: every command tells them what, and what would do, and leaves nothing."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from gan_zoo.run.checks import refuse_what_cannot_work
from gan_zoo.run.configuration import dotted
from gan_zoo.run.errors import explain
from gan_zoo.training.checkpoints import CheckpointFiles
from tests.conftest import DIGITS, FEW, ROOT, SHORT, SMALLER, slow_but
from tests.same_end import read_checkpoint
from tests.test_train import MODELS

Run = Callable[..., CompletedProcess[str]]
Prepare = Callable[[Path], None]

# One run a kind of model, for commands that take one.
RUNS = {
    "cgan_run": ("model=cgan", "dataset=digits", "dataset.batch_size=8",
                 "model.generator.label_units=8", "model.generator.joint_units=8",
                 "model.discriminator.image_units=8", "model.discriminator.joint_units=8"),
    "infogan_run": ("model=infogan", "dataset=digits", "dataset.batch_size=8",
                    "model.generator.base_channels=4", "model.discriminator.base_channels=4"),
    "cyclegan_run": ("model=cyclegan", "dataset.name=digits", *SMALLER["cyclegan"]),
    "stackgan_run": ("model=stackgan", "dataset.name=digits", *SMALLER["stackgan"],
                     "model.generator.base_channels=4", "model.generator_2.base_channels=4"),
    "toy_run": ("experiment=discogan_toy",),
}  # fmt: skip
# What a run writes to before it knows what is wrong.
OWN = {"train.log", ".lock"}


class Case(NamedTuple):
    """A wrong command.

    Attributes:
        script: without its ending.
        arguments: as typed in a shell.
        culprit, remedy: what the message has to say.
        prepare: makes the files that it is about, in an empty folder with the runs that it names.
        environment: variables.
        about: what the files are, where the command does not tell.
    """

    script: str
    arguments: str
    culprit: str
    remedy: str
    prepare: Prepare | None = None
    environment: dict[str, str] = {}  # noqa: RUF012
    about: str = ""


class Payload:
    """Once unpickled it has left a file called marker."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch marker",)


def pickled(legacy: bool = False, sealed: bool = False) -> Prepare:
    def prepare(folder: Path) -> None:
        content = {"config": {"model": {}}, "state_dict": {}, "more": Payload()}
        if sealed:
            CheckpointFiles().save_checkpoint(content, folder / "evil.ckpt")
        else:
            file = folder / "evil.ckpt"
            torch.save(content, file, _use_new_zipfile_serialization=not legacy)

    return prepare


def target(name: str, **arguments: Any) -> Prepare:
    """cgan_run's checkpoint as evil.ckpt, with a configuration that would call something."""

    def prepare(folder: Path) -> None:
        checkpoint = read_checkpoint(folder / "cgan_run")
        checkpoint["config"]["model"]["generator"] = {"_target_": name, **arguments}
        CheckpointFiles().save_checkpoint(checkpoint, folder / "evil.ckpt")

    return prepare


def in_run(change: Callable[[Any], object]) -> Prepare:
    """Changes cgan_run/.hydra/config.yaml."""

    def prepare(folder: Path) -> None:
        file = folder / "cgan_run" / ".hydra" / "config.yaml"
        config = OmegaConf.load(file)
        change(config)
        OmegaConf.save(config, file)

    return prepare


def bytes_of(change: Callable[[bytes], bytes]) -> Prepare:
    """cgan_run's checkpoint as bad.ckpt, with other bytes."""

    def prepare(folder: Path) -> None:
        content = (folder / "cgan_run" / "checkpoints" / "last.ckpt").read_bytes()
        (folder / "bad.ckpt").write_bytes(change(content))

    return prepare


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def files(**contents: str) -> Prepare:
    """Files by name, with __ for a slash and _dot_ for a dot."""

    def prepare(folder: Path) -> None:
        for name, text in contents.items():
            file = folder / name.replace("__", "/").replace("_dot_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return prepare


def saved(content: Any) -> Prepare:
    return lambda folder: torch.save(content, folder / "bad.ckpt")


def altered(change: Callable[[dict[str, Any]], object]) -> Prepare:
    def prepare(folder: Path) -> None:
        checkpoint = read_checkpoint(folder / "cgan_run")
        change(checkpoint)
        CheckpointFiles().save_checkpoint(checkpoint, folder / "bad.ckpt")

    return prepare


def both(*prepares: Prepare) -> Prepare:
    def prepare(folder: Path) -> None:
        for each in prepares:
            each(folder)

    return prepare


def pictures(folder: Path) -> None:
    for part in ("trainA", "trainB"):
        (folder / "mine" / part).mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(folder / "mine" / part / "1.png")


def captioned(folder: Path) -> None:
    for kind, colour in (("a", "red"), ("b", "blue")):
        for part in ("images", "text"):
            (folder / "told" / part / kind).mkdir(parents=True)
        Image.new("RGB", (40, 40), colour).save(folder / "told" / "images" / kind / f"{kind}.png")
        (folder / "told" / "text" / kind / f"{kind}.txt").write_text(f"a {colour} square\n")


def mnist(header: bytes | None = None) -> Prepare:
    """MNIST's files with nothing in them, of the right length with a header."""

    def prepare(folder: Path) -> None:
        raw = folder / "data" / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part, count in (("train", 60_000), ("t10k", 10_000)):
            for kind, length in (("images-idx3", 16 + count * 784), ("labels-idx1", 8 + count)):
                with (raw / f"{part}-{kind}-ubyte").open("wb") as file:
                    file.write(header or b"cut short")
                    if header:
                        file.truncate(length)

    return prepare


def damaged_run(folder: Path) -> None:
    for file in (folder / "cgan_run" / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:-100])


FOLDERS = "model=cyclegan dataset=unpaired_folder dataset.root=mine dataset.image_size=28"
TOLD = "model=stackgan dataset=caption_folder dataset.root=told dataset.image_size=32"
DATA = {"GAN_ZOO_DATA_DIR": "data"}
CAPTIONS = "model=stackgan dataset=mnist_captions dataset.name=digits dataset.encoder_steps=2"

CASES = [
    # Names of groups, options and choices.
    Case("train", "model=cgna", "model 'cgna'", "did you mean cgan?"),
    Case("train", "dataset=minst", "dataset 'minst'", "did you mean mnist?"),
    Case("train", "dataset.bath_size=3", "dataset.bath_size", "dataset.batch_size"),
    Case("train", "trainer.gradient_clip_val=1", "trainer.gradient_clip_val",
         "model.gradient_clip_val"),
    Case("train", "modle=gan", "modle", "did you mean model?"),
    Case("train", "+model.depth=3", "model.depth", "no option"),
    Case("train", "+model.latent_dimm=3", "model.latent_dimm", "did you mean model.latent_dim?"),
    Case("train", "model", "'model'", "such as model=cgan"),
    Case("train", "trainer=tpuu", "trainer 'tpuu'", "gpu"),
    Case("train", "experiment=gan_2014", "experiment 'gan_2014'", "paper/NAME"),
    Case("train", "experiment=paper/gna", "experiment 'paper/gna'", "did you mean paper/gan"),
    Case("train", "model.generator=mlp", "model.generator is mlp", "model/generator=mlp"),
    Case("train", "dataset.name=mnits", "name is mnits", "mnist"),
    Case("train", "model.loss=hing", "loss 'hing'", "hinge"),
    Case("train", "model.penalty=r2", "penalty 'r2'", "r1"),
    Case("train", "callbacks.metrics.metrics=[fdi]", "'fdi'", "fid"),
    Case("train", "model.generator._target_=gan_zoo.networks.mlp.Generator", "Generator",
         "model.generator"),
    # What Hydra's grammar does not take.
    Case("train", "callbacks.metrics.metrics=[fid,kïd]", "metrics=[fid,kïd]", "needs quotes"),
    Case("train", "tags=[a", "tags=[a", "brackets and quotes have to close"),
    Case("train", "init_from=a,b", "init_from has several values", "'init_from=\"a,b\"'"),
    Case("train", "seed=1=2", "seed is 1=2", "whole number"),
    Case("train", "model=a=b", "model 'a=b'", "cgan"),
    # Options that are left out.
    *(
        Case("train", f"~{option}", f"{option}", f"is needed: leave ~{option} out")
        for option in (
            "trainer", "seed", "model", "dataset", "paths", "recommended", "resume",
            "trainer.max_steps", "model._target_", "dataset.name", "dataset.batch_size",
        )
    ),
    Case("train", "~callbacks.x", "There is no option 'callbacks.x'", "callbacks"),
    Case("train", "~init_from", "init_from is null already", "leave ~init_from out"),
    Case("train", "tags={a:1}", "tags", "Cannot merge"),
    Case("train", "model=null", "model=null", "leave it out"),
    Case("train", "trainer=3", "trainer=3", "leave it out"),
    Case("train", "+model=cgan", "model has several choices", "without a plus"),
    Case("train", "=3", "'=3' names no option", "trainer.max_steps=100"),
    Case("train", "seed='${oc.env:NOPE}'", "Environment variable 'NOPE'", "not found"),
    Case("train", "hydra.mode=NOPE", "hydra.mode: Invalid value 'NOPE'", "MULTIRUN"),
    Case("train", "trainer.accelerator='${nope}'", "trainer.accelerator takes its value",
         "give +nope=..."),
    Case("train", "hydra.run.dir=/proc/x", "'/proc/x'", "No such file"),
    Case("train", "resume=cgan_run resume.allow=[a", "'resume.allow=[a'", "have to close"),
    Case("train", "--config-dir nowhere", "nowhere' not found", "config directory"),
    Case("train", "resume.folder=cgan_run", "resume.folder=cgan_run", "resume=RUN_FOLDER"),
    *(
        Case("train", f"{argument}=3", f"{argument.lstrip('+')} is 3", "null")
        for argument in ("callbacks.metrics", "logger.tensorboard", "+logger.x")
    ),
    Case("train", "+trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches is 2",
         "model.accumulate_grad_batches"),
    Case("train", "+trainer.gradient_clip_val=1", "trainer.gradient_clip_val is 1",
         "model.gradient_clip_val"),
    Case("train", "trainer.profiler=nope", "trainer.profiler=nope: ", "simple"),
    Case("train", "dataset._target_=gan_zoo.models.GAN", "dataset._target_ is gan_zoo.models.GAN",
         "dataset=mnist"),
    Case("train", "dataset.root=null", "dataset.root is null", "text"),
    # Types and ranges.
    Case("train", "dataset.batch_size=-1", "dataset.batch_size is -1", "from 1"),
    Case("train", "dataset.batch_size=true", "dataset.batch_size is true", "whole number"),
    Case("train", "dataset.batch_size=2.5", "dataset.batch_size is 2.5", "whole number"),
    Case("train", "dataset.batch_size=2000", "1,500 training images", "dataset.batch_size=2000"),
    Case("train", "dataset.val_size=1500", "dataset.val_size=1500", "too few"),
    Case("train", "dataset.num_classes=11", "dataset.num_classes is 11", "to 10"),
    Case("train", "dataset.channels=2", "dataset.channels is 2", "to be 1 or 3"),
    Case("train", "seed=-1", "seed is -1", "from 0"),
    Case("train", "seed=null", "seed is null", "from 0"),
    Case("train", "seed=4294967296", "seed is 4294967296", "to 4294967295"),
    Case("train", "trainer.max_steps=soon", "trainer.max_steps is soon", "whole number"),
    Case("train", "trainer.max_steps=1.5", "trainer.max_steps is 1.5", "whole number"),
    Case("train", "trainer.max_steps=-2", "trainer.max_steps is -2", "or -1"),
    Case("train", "trainer.max_steps=0", "trainer.max_steps is 0", "from 1"),
    Case("train", "trainer.max_steps=${recommended.max_steps} recommended.max_steps=0",
         "trainer.max_steps is 0", "from 1"),
    Case("train", "trainer.max_epochs=0", "trainer.max_epochs is 0", "from 1"),
    Case("train", "trainer.max_time=00:00:00:00", "trainer.max_time is 00:00:00:00", "above 0"),
    Case("train", "trainer.max_time=soon", "trainer.max_time is soon", "days:hours"),
    Case("train", "trainer.max_time=60", "trainer.max_time is 60", "days:hours"),
    Case("train", "trainer.limit_train_batches=0", "trainer.limit_train_batches is 0", "from 1"),
    Case("train", "trainer.limit_train_batches=1.5", "trainer.limit_train_batches is 1.5",
         "above 0 and at most 1"),
    Case("train", "trainer.overfit_batches=1.5", "trainer.overfit_batches is 1.5", "from 0 to 1"),
    Case("train", "trainer.deterministic=maybe", "trainer.deterministic is maybe",
         "true, false, warn or null"),
    Case("train", "trainer.precision=16-mixed", "trainer.precision is 16-mixed", "bf16-mixed"),
    *(
        Case("train", f"trainer.precision={precision}", f"trainer.precision is {precision}",
             "64-true, 32, 16, bf16 or 64: weights are float32 or float64")
        for precision in ("16-true", "bf16-true", "transformer-engine")
    ),
    Case("train", "trainer.num_nodes=2", "trainer.num_nodes=2", "torchrun or SLURM"),
    Case("train", "init_from=2024", "init_from is 2024", "'init_from=\"...\"'"),
    Case("train", "trainer.log_every_n_steps=-5", "trainer.log_every_n_steps is -5", "from 0"),
    Case("train", "trainer.devices=all", "trainer.devices=all", "auto"),
    Case("train", "trainer.devices=0", "trainer.devices", "0"),
    Case("train", "trainer.precision=17", "trainer.precision is 17", "bf16-mixed"),
    Case("train", "trainer.accelerator=tpux", "tpux", "cpu"),
    Case("train", "model.latent_dim=0", "model.latent_dim is 0", "from 1"),
    Case("train", "model.latent_dim=many", "model.latent_dim is many", "whole number"),
    Case("train", "model.ema_decay=1", "model.ema_decay is 1", "below 1"),
    Case("train", "model.ema_decay=nan", "model.ema_decay is nan", "a number"),
    Case("train", "model.lambda_gp=-3 model.penalty=dragan", "model.lambda_gp is -3", "from 0"),
    Case("train", "model.optimizer_g.lr=-1", "model.optimizer_g.lr is -1", "from 0"),
    Case("train", "model.optimizer_d.lr=inf", "model.optimizer_d.lr is inf", "a number"),
    Case("train", "model.optimizer_d.betas=[0.5]", "model.optimizer_d.betas", "a list of 2"),
    Case("train", "model.generator.hidden=64", "model.generator.hidden is 64", "a list"),
    Case("train", "model.generator.hidden=[64,-1]", "model.generator.hidden", "from 1"),
    Case("train", "model.generator.norm=maybe", "model.generator.norm is maybe", "true or false"),
    Case("train", "model.discriminator.dropout=1.5", "model.discriminator.dropout is 1.5", "to 1"),
    Case("train", "model=dcgan model.discriminator.base_channels=1e12",
         "model.discriminator.base_channels", "to 1000000"),
    Case("train", "callbacks.sample_grid.every_n_steps=0",
         "callbacks.sample_grid.every_n_steps is 0", "from 1"),
    Case("train", "callbacks.checkpoint.keep_last=true", "callbacks.checkpoint.keep_last is true",
         "null"),
    Case("train", "callbacks.health.action=panic", "callbacks.health.action is panic",
         "warn or stop"),
    Case("train", "callbacks.metrics.max_share=2", "callbacks.metrics.max_share is 2",
         "at most 1"),
    Case("train", "model=infogan model.categorical_codes=10", "model.categorical_codes is 10",
         "a list"),
    Case("train", "model=infogan model.categorical_codes=[] model.continuous_codes=0",
         "without codes", "model=dcgan"),
    Case("train", "model=began model.gamma=0", "model.gamma is 0", "above 0"),
    Case("train", "model=cyclegan dataset.name=digits model.pool_size=-1",
         "model.pool_size is -1", "from 0"),
    # What does not go together.
    Case("train", "model=dcgan dataset.image_size=30", "30 pixels", "28"),
    Case("train", "model=dcgan model.penalty=r1", "batch norm", "model.discriminator.norm"),
    Case("train", "model=wgan model.loss=hinge", "model.loss is hinge", "model=dcgan"),
    Case("train", "model=wgan model.penalty=r1", "model.penalty is r1", "model=wgan_gp"),
    Case("train", "model=wgan_gp model.penalty=r1", "model.penalty is r1", "wgan_gp_one_sided"),
    Case("train", "model=wgan_gp model/discriminator=dcgan",
         "batch norm", "model.discriminator.norm"),
    Case("train", "model=wgan_gp model/generator=resnet", "28 pixels", "32, say"),
    Case("train", "model=cyclegan dataset=digits", "ImageBatch", "mnist_colored, mnist_edges"),
    Case("train", "model=gan dataset=mnist_usps dataset.name=digits", "ImagePair",
         "digits, fashion_mnist, image_folder, kmnist, mnist"),
    Case("train", "model=cyclegan dataset=gaussian_mixture", "PointPair",
         "unpaired_folder would do"),
    Case("train", "model=discogan dataset=gaussian_mixture", "points", "experiment=discogan_toy"),
    Case("train", "model=cogan dataset=mnist_edges dataset.name=digits model.penalty=dragan",
         "model.penalty is dragan", "r1_r2"),
    Case("train", "model=cogan dataset=mnist_rotated dataset.name=digits model.adapt=true",
         "model.adapt is true", "mnist_usps"),
    Case("train", "model=cyclegan dataset=mnist_colored dataset.name=digits dataset.channels=1",
         "dataset.channels is 1", "3"),
    Case("train", "model=cgan experiment=paper/gan", "MLPGenerator, which takes no labels",
         "model/generator=dcgan_mnist"),
    Case("train", "model=cgan model/discriminator=maxout",
         "MaxoutDiscriminator, which takes no labels", "model=gan"),
    Case("train", "model=gan model/discriminator=conditional_maxout",
         "model/discriminator=conditional_maxout can't be trained as model=gan, whose own are",
         "from model.num_classes"),
    Case("train", "model=began dataset=digits model/generator=cogan",
         "model/generator=cogan can't be trained as model=began", "model/generator=dcgan_mnist"),
    Case("train", "model=began dataset=digits model/discriminator=patchgan",
         "model/discriminator=patchgan can't be trained as model=began",
         "model/discriminator=dense_autoencoder"),
    Case("train", f"{CAPTIONS} model/generator=stackgan_2",
         "model/generator=stackgan_2 can't be trained as model=stackgan", "whose own are"),
    Case("train", "model=dcgan model/discriminator=cogan",
         "model/discriminator=cogan can't be trained as model=dcgan",
         "model/discriminator=dcgan"),
    Case("train", "model=cyclegan dataset.name=digits model/discriminator=maxout",
         "model/discriminator=maxout can't be trained as model=cyclegan",
         "model/discriminator=patchgan"),
    Case("train", "model=began model.loss=hinge", "model.loss", "no option"),
    Case("train", "model=began dataset.image_size=30", "30 pixels", "28"),
    Case("train", "model=gan model/scheduler=plateau", "plateau", "linear"),
    Case("train", "model/scheduler=constant_then_linear trainer.max_steps=-1",
         "trainer.max_steps", "model.scheduler=null"),
    Case("train", "trainer=gpu trainer.devices=64", "trainer.devices=64", "trainer=default"),
    Case("train", "trainer.strategy=ddp", "trainer.strategy=ddp",
         "ddp_find_unused_parameters_true"),
    Case("train", "-m trainer=ddp_cpu", "multirun", "ddp_spawn_find_unused_parameters_true"),
    Case("train", "model=stackgan dataset=digits", "ImageBatch", "caption_folder, mnist_captions"),
    Case("train", "model=gan dataset=mnist_captions dataset.name=digits", "CaptionBatch", "mnist"),
    Case("train", f"{CAPTIONS} model.generator.factor=3", "model.generator.factor is 3",
         "power of two"),
    Case("train", f"{CAPTIONS} dataset.captions_averaged=9", "dataset.captions_averaged is 9",
         "4 captions"),
    Case("train", f"{CAPTIONS} dataset.channels=1", "dataset.channels is 1", "3"),
    Case("train", f"{CAPTIONS} model.stage_one_share=0", "Stage II", "init_from=RUN_FOLDER"),
    Case("train", "model=stackgan_pp dataset.image_size=28", "3 scales up to 28", "num_scales"),
    Case("train", f"{CAPTIONS} dataset/text_encoder=sentence_transformers "
         "dataset.text_encoder.path=gone", "sentence-transformers", "dataset/text_encoder=gru"),
    Case("train", "dataset=stacked_mnist dataset.name=digits dataset.num_classes=500",
         "dataset.num_classes is 500", "cube"),
    Case("train", "callbacks.metrics.monitor=kid", "callbacks.metrics.monitor is kid", "fid"),
    Case("train", "callbacks.metrics.monitor=accuracy callbacks.metrics.every_n_steps=2",
         "callbacks.metrics.monitor is accuracy", "fid"),
    Case("train", "callbacks.metrics.monitor=fid_a callbacks.metrics.every_n_steps=2",
         "callbacks.metrics.monitor is fid_a", "fid would do"),
    # Data.
    Case("train", "dataset=mnist", "train-images-idx3-ubyte' has 9 bytes instead of 47,040,016",
         "Delete it", mnist(), DATA,
         "MNIST's files are cut short"),
    Case("train", "dataset=mnist", "header of its kind", "Delete it", mnist(b"zeros"), DATA,
         "MNIST's files are zeros"),
    Case("train", "dataset=mnist", "another checksum", "Delete it",
         mnist(bytes.fromhex("00000803 0000ea60 0000001c 0000001c")), DATA,
         "MNIST's files are black"),
    Case("train", "dataset=mnist dataset.when_unavailable=error", "mnist is not in",
         "GAN_ZOO_DATA_DIR", files(data=""), DATA),
    Case("train", "dataset=mnist dataset.when_unavailable=maybe", "when_unavailable is maybe",
         "digits, error or offline"),
    Case("train", "model=cyclegan dataset=unpaired_folder", "dataset.root is missing", "give"),
    Case("train", "model=cyclegan dataset=unpaired_folder dataset.root=.", "no folder trainA",
         "trainB"),
    Case("train", FOLDERS, "trainA/2.png' is not a picture", "dataset.when_broken=skip",
         both(pictures, files(mine__trainA__2_dot_png="no picture")), about="a text among them"),
    Case("train", f"{FOLDERS} dataset.batch_size=5", "dataset.batch_size=5", "too few", pictures),
    Case("train", f"{FOLDERS} dataset.load_size=20", "dataset.load_size is 20", "from 28",
         pictures),
    Case("train", FOLDERS, "trainA' holds no pictures", "put some there",
         lambda folder: [(folder / "mine" / p).mkdir(parents=True) for p in ("trainA", "trainB")],
         about="empty folders"),
    Case("train", "model=stackgan dataset=caption_folder", "dataset.root is missing", "give"),
    Case("train", "model=stackgan dataset=caption_folder dataset.root=.", "no folder 'images'",
         "dataset.image_folder"),
    Case("train", TOLD, "text/c.txt' describes no picture", "dataset.when_broken=skip",
         both(captioned, files(told__text__c_dot_txt="a square"))),
    Case("train", f"{TOLD} dataset.test_list=gone", "dataset.test_list='gone'", "not a file",
         captioned),
    # Folders and files of runs.
    *(
        Case("train", f"{option}={value}", f"{option}={value}", f"give {option}=FOLDER")
        for option in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
        for value in ("", "null")
    ),
    Case("train", "resume=a=b", "resume=a=b", "not the folder of a run"),
    Case("train", "init_from=a=b", "no checkpoint 'a=b'", "RUN_FOLDER"),
    Case("train", "init_from=nowhere", "no checkpoint 'nowhere'", "RUN_FOLDER"),
    Case("train", "init_from=cgan_run", "init_from=cgan_run", "model and dataset"),
    Case("train", "hydra.run.dir=file/run",
         "'file/run' can't be a folder", "name another", files(file="")),
    Case("train", "hydra.run.dir=file", "'file' can't be a folder", "name another", files(file="")),
    Case("train", "hydra.run.dir=cgan_run", "'cgan_run' holds a run already", "resume=cgan_run"),
    Case("train", "resume=nowhere", "resume=nowhere", "not the folder of a run"),
    Case("train", "resume=file", "resume=file", "not the folder of a run", files(file="")),
    Case("train", "resume=empty", "resume=empty", "not the folder of a run",
         lambda folder: (folder / "empty").mkdir()),
    Case("train", "resume=cgan_run model=gan", "model=gan would replace", "trainer.max_steps"),
    Case("train", "resume=cgan_run -m seed=1,2", "resume takes one run", "leave -m out"),
    Case("train", "resume=cgan_run hydra.run.dir=other", "hydra.run.dir=other", "own folder"),
    Case("train", "resume=cgan_run model.ema_decay=0.5", "model.ema_decay from 0.999 to 0.5",
         "resume.allow=[model.ema_decay]"),
    Case("train", "resume=cgan_run trainer.max_steps=1", "trainer.max_steps from 2 to 1",
         "may be raised"),
    Case("train", "resume=cgan_run trainer.max_steps=9 dataset.batch_sizee=3",
         "dataset.batch_sizee", "dataset.batch_size"),
    Case("train", "resume=cgan_run trainer.max_steps=9", "is damaged", "has to begin again",
         damaged_run, about="its checkpoints are cut short"),
    Case("train", "resume=cgan_run", "cgan_run", "not as train.py writes it",
         files(cgan_run___dot_hydra__config_dot_yaml="just: text"), about="another .hydra"),
    Case("train", "resume=cgan_run", "config.yaml'", "not as train.py writes it",
         files(cgan_run___dot_hydra__config_dot_yaml="a: ["), about="a .hydra that is no YAML"),
    # What would run code.
    Case("train", "resume=cgan_run trainer.max_steps=9", "os.system", "trust=os",
         in_run(lambda c: c.callbacks.update(
             evil={"_target_": "os.system", "command": "touch marker"})),
         about="a callback in its .hydra is os.system"),
    Case("train", "resume=cgan_run trainer.max_steps=9", "not as train.py writes it", "hydra",
         in_run(lambda c: c.update(hydra={"callbacks": {"evil": {
             "_target_": "os.system", "command": "touch marker"}}})),
         about="its .hydra has a node of Hydra's own"),
    Case("train", "resume=cgan_run trainer.max_steps=9", "gan_zoo.data.mnist.os.system",
         "trust=",
         in_run(lambda c: c.dataset.update(
             _target_="gan_zoo.data.mnist.os.system", command="touch marker")),
         about="the dataset in its .hydra is os.system by way of ours"),
    Case("train", "init_from=evil.ckpt", "system", "not read", pickled(),
         about="a pickle that calls os.system"),
    Case("train", "init_from=evil.ckpt", "evil.ckpt", "not read", pickled(legacy=True),
         about="such a one in the format before zip"),
    Case("sample", "checkpoint=evil.ckpt", "system", "not read", pickled(),
         about="a pickle that calls os.system"),
    Case("sample", "checkpoint=evil.ckpt", "evil.ckpt", "not read", pickled(legacy=True),
         about="such a one in the format before zip"),
    Case("sample", "checkpoint=evil.ckpt", "system", "not read", pickled(sealed=True),
         about="such a one under a checksum"),
    Case("evaluate", "checkpoint=evil.ckpt", "system", "not read", pickled(),
         about="a pickle that calls os.system"),
]  # fmt: skip
CODE = [
    ("os.system", {"command": "touch marker"}),
    ("gan_zoo.data.mnist.os.system", {"command": "touch marker"}),
    ("subprocess.Popen", {"args": ["touch", "marker"]}),
    ("pytorch_lightning.LightningModule.load_from_checkpoint", {"checkpoint_path": "marker"}),
    ("builtins.eval", {"_args_": ["__import__('os').system('touch marker')"]}),
    ("hydra.utils.call", {"config": {"_target_": "os.system", "command": "touch marker"}}),
]
CASES += [
    Case(script, "checkpoint=evil.ckpt", name, f"trust={name.partition('.')[0]}",
         target(name, **arguments), about=f"its configuration calls {name}")
    for name, arguments in CODE
    for script in ("sample", "evaluate")
]  # fmt: skip
CASES += [
    # Checkpoints.
    *(
        Case(script, arguments, culprit, remedy, prepare, about=about)
        for script in ("sample", "evaluate")
        for arguments, culprit, remedy, prepare, about in (
            ("", "checkpoint is missing", "give checkpoint=", None, ""),
            ("checkpoint=gone.ckpt", "no checkpoint 'gone.ckpt'", "RUN_FOLDER", None, ""),
            ("checkpoint=empty", "empty", "RUN_FOLDER",
             lambda folder: (folder / "empty").mkdir(), "an empty folder"),
            ("checkpoint=bad.ckpt", "'bad.ckpt' is not a checkpoint", "un's folder",
             files(bad_dot_ckpt="text"), "a text"),
            ("checkpoint=bad.ckpt", "'bad.ckpt' is not a checkpoint", "un's folder",
             files(bad_dot_ckpt=""), "an empty file"),
            ("checkpoint=bad.ckpt", "'bad.ckpt' is not a checkpoint", "un's folder",
             saved({"weights": torch.zeros(3)}), "another project's"),
            ("checkpoint=bad.ckpt", "'bad.ckpt' is not a checkpoint", "un's folder",
             saved(torch.zeros(3)), "a tensor"),
            ("checkpoint=bad.ckpt", "'bad.ckpt' is not a checkpoint", "un's folder",
             bytes_of(lambda content: content[:5000]), "cut short"),
            ("checkpoint=bad.ckpt", "'bad.ckpt' is damaged", "un's folder", bytes_of(flipped),
             "one bit is another"),
            ("checkpoint=cgan_run", "is damaged", "has to begin again", damaged_run,
             "all cut short"),
            ("checkpoint=bad.ckpt", "The checkpoint's weights", "another version",
             altered(lambda c: c["config"]["model"]["generator"].update(noise_units=7)),
             "weights of other shapes"),
            ("checkpoint=bad.ckpt", "The checkpoint's weights", "another version",
             altered(lambda c: c["state_dict"].popitem()), "a weight is missing"),
            ("checkpoint=bad.ckpt", "The checkpoint's configuration", "train.py",
             altered(lambda c: c.update(config={"model": {}})), "no model"),
            ("checkpoint=bad.ckpt", "'bad.ckpt' is not a checkpoint", "un's folder",
             altered(lambda c: c.update(config="text")), "no configuration"),
        )
    ),
]  # fmt: skip
CASES += [
    # Sampling.
    Case("sample", "checkpoint=cgan_run labels=[3,10]", "labels[1] is 10",
         "whole number from 0 to 9"),
    Case("sample", "checkpoint=cgan_run labels=3", "labels is 3", "a list"),
    Case("sample", "checkpoint=cgan_run labels=[three]", "labels[0] is three", "whole number"),
    Case("sample", "checkpoint=cgan_run labels=[]", "labels", "whole numbers"),
    Case("sample", "checkpoint=cgan_run labels=[true]", "labels[0] is true", "whole number"),
    Case("sample", "checkpoint=cgan_run codes=[1]", "codes", "takes no codes"),
    Case("sample", "checkpoint=cgan_run num_samples=0", "num_samples is 0", "from 1"),
    Case("sample", "checkpoint=cgan_run num_samples=many", "num_samples is many", "whole number"),
    Case("sample", "checkpoint=cgan_run seed=-1", "seed is -1", "from 0"),
    Case("sample", "checkpoint=cgan_run seed=a", "seed is a", "from 0"),
    Case("sample", "checkpoint=cgan_run ema=maybe", "ema is maybe", "true or false"),
    Case("sample", "checkpoint=cgan_run output=grid.jpg", "output=grid.jpg", ".png"),
    Case("sample", "checkpoint=cgan_run output=file/grid.png",
         "'file' can't be a folder", "name another",
         files(file="")),
    Case("sample", "checkpoint=cgan_run output=taken.png",
         "'taken.png' is a folder", "name another",
         lambda folder: (folder / "taken.png").mkdir()),
    Case("sample", "checkpoint=cgan_run input=here", "takes no input", "noise"),
    Case("sample", "checkpoint=cgan_run sed=1", "sed", "did you mean seed?"),
    Case("sample", "checkpoint=infogan_run codes=[10,0,0]", "codes is [10, 0, 0]", "from 0 to 9"),
    Case("sample", "checkpoint=infogan_run codes=[1]", "codes is [1]", "3 codes"),
    Case("sample", "checkpoint=infogan_run codes=1", "codes is 1", "a list"),
    Case("sample", "checkpoint=infogan_run codes=[0,true,0]", "codes", "a number"),
    Case("sample", "checkpoint=infogan_run codes=[0,nan,0]", "codes", "a number"),
    Case("sample", "checkpoint=infogan_run labels=[1]", "takes no labels", "leave labels out"),
    Case("sample", "checkpoint=stackgan_run captions=[]", "captions is []", "give sentences"),
    Case("sample", "checkpoint=stackgan_run captions=5", "captions is 5", "text"),
    Case("sample", "checkpoint=stackgan_run captions=xyzzy", "'xyzzy' has no word",
         "trained on captions such as"),
    Case("sample", "checkpoint=cyclegan_run", "give input=", "a picture or a folder"),
    Case("sample", "checkpoint=cyclegan_run input=gone", "no folder 'gone'", "input"),
    Case("sample", "checkpoint=cyclegan_run input=empty", "'empty' holds no pictures", "input",
         lambda folder: (folder / "empty").mkdir()),
    Case("sample", "checkpoint=cyclegan_run input=notes.txt", "notes.txt' is not a picture",
         "when_broken=skip", files(notes_dot_txt="text")),
    Case("sample", "checkpoint=cyclegan_run input=notes.txt when_broken=skip", "picture",
         "No file", files(notes_dot_txt="text")),
    Case("sample", "checkpoint=cyclegan_run input=mine/trainA when_broken=ignore",
         "when_broken is ignore", "stop or skip", pictures),
    Case("sample", "checkpoint=cyclegan_run input=mine/trainA direction=back",
         "direction is back", "a2b or b2a", pictures),
    Case("sample", "checkpoint=cyclegan_run input=mine/trainA num_samples=3",
         "takes no num_samples", "CycleGAN", pictures),
    Case("sample", "checkpoint=cyclegan_run input=mine/trainA output=a.png",
         "output=a.png has to be a folder", "without a dot", pictures),
    Case("sample", "checkpoint=cyclegan_run input=mine/trainA output=a.gif",
         "output=a.gif has to be a folder", "without a dot", pictures),
    Case("sample", "checkpoint=cyclegan_run input=mine/trainA output=file/new",
         "'file/new' can't be a folder", "name another",
         both(pictures, files(file=""))),
    Case("sample", "checkpoint=toy_run input=mine/trainA", "points", "not pictures", pictures),
    Case("sample", "checkpoint=2024_01", "checkpoint is 202401", "'checkpoint=\"...\"'"),
    Case("sample", "checkpoint=", "checkpoint is empty", "checkpoint=RUN_FOLDER"),
    Case("sample", "checkpoint=cgan_run resume=cgan_run", "no option 'resume'", "checkpoint"),
    # Evaluating.
    Case("evaluate", "checkpoint=cgan_run metrics=[prdc] num_samples=3", "prdc needs more than 5",
         "num_samples"),
    Case("evaluate", "checkpoint=cgan_run metrics=[fdi]", "metric 'fdi'", "fid"),
    Case("evaluate", "checkpoint=cgan_run metrics=[]", "metrics is an empty list", "null"),
    Case("evaluate", "checkpoint=cgan_run metrics=5", "metrics is 5", "a list"),
    Case("evaluate", "checkpoint=cgan_run num_samples=1", "num_samples is 1", "from 2"),
    Case("evaluate", "checkpoint=cgan_run num_samples=0.5", "num_samples is 0.5", "whole number"),
    Case("evaluate", "checkpoint=cgan_run seed=-1", "seed is -1", "from 0"),
    Case("evaluate", "checkpoint=cgan_run ema=1", "ema is 1", "true or false"),
    Case("evaluate", "checkpoint=cgan_run evaluator=gone", "no evaluator 'gone'",
         "train_evaluator.py"),
    Case("evaluate", "checkpoint=cgan_run evaluator=file", "'file' is not an evaluator",
         "train_evaluator.py", files(file="text")),
    Case("evaluate", "checkpoint=cgan_run evaluator=5", "evaluator is 5", "text"),
    Case("evaluate", "checkpoint=infogan_run metrics=[accuracy]", "accuracy needs", "a class"),
    Case("evaluate", "checkpoint=toy_run metrics=[fid]", "fid is measured of images", "modes"),
    Case("evaluate", "checkpoint=bad.ckpt", "mnist is not in", "GAN_ZOO_DATA_DIR",
         both(altered(lambda c: c["config"]["dataset"].update(name="mnist", root="gone")),
              files(gone="")), {"GAN_ZOO_DATA_DIR": "gone"}),
    Case("evaluate", "checkpoint=cgan_run metric=fid", "metric", "metrics"),
    # Comparing.
    Case("compare", "", "give either root=FOLDER", "runs=[A,B]"),
    Case("compare", "root=. runs=[a]", "give either root=FOLDER", "runs=[A,B]"),
    Case("compare", "root=gone", "no folder 'gone'", "runs below it"),
    Case("compare", "root=file", "no folder 'file'", "runs below it", files(file="")),
    Case("compare", "root=empty", "no runs below 'empty'", "train.py",
         lambda folder: (folder / "empty").mkdir()),
    Case("compare", "root=5", "root is 5", "in quotes it is text"),
    Case("compare", "runs=[cgan_run,empty]", "'empty' is not the folder of a run", "root=FOLDER",
         lambda folder: (folder / "empty").mkdir()),
    Case("compare", "runs=gone", "'gone' is not the folder of a run", "root=FOLDER"),
    Case("compare", "runs=5", "runs is 5", "a list"),
    Case("compare", "runs=[]", "give either root=FOLDER", "runs=[A,B]"),
    Case("compare", "root=cgan_run monitor=fdi", "monitor is fdi", "have not measured"),
    Case("compare", "root=cgan_run output=file/new", "'file/new' can't be a folder",
         "name another", files(file="")),
    Case("compare", "rot=cgan_run", "no option 'rot'", "did you mean root?"),
    # Evaluators.
    Case("train_evaluator", "dataset=digits epochs=0", "epochs is 0", "from 1"),
    Case("train_evaluator", "dataset=digits epochs=true", "epochs is true", "from 1"),
    Case("train_evaluator", "dataset=digits seed=-1", "seed is -1", "from 0"),
    Case("train_evaluator", "dataset=digits domain=c", "domain is 'c'", "empty"),
    Case("train_evaluator", "dataset=digits output=e.pt", "output=e.pt", ".safetensors"),
    Case("train_evaluator", "dataset=digits output=file/e.safetensors",
         "'file' can't be a folder", "name another",
         files(file="")),
    Case("train_evaluator", "dataset=digits dataset.image_size=-4", "dataset.image_size is -4",
         "from 4"),
    Case("train_evaluator", "dataset=digits epochs=1 output=/proc/e.safetensors",
         "'/proc/e.safetensors'", "No such file"),
    Case("train_evaluator", "dataset=digits domain=null", "domain is null", "text"),
    Case("train_evaluator", "dataset=nothing", "dataset 'nothing'", "mnist"),
    Case("train_evaluator", "dataset=gaussian_mixture", "domain is ''", "a or b"),
    Case("train_evaluator", "dataset=gaussian_mixture domain=a", "gaussian_mixture", "dataset"),
    # The benchmark.
    Case("benchmark", "dataset=gaussian_mixture", "GAN does not train on PointPair", "mnist"),
    Case("benchmark", "trainer=ddp_cpu dataset=digits", "this trainer 2", "trainer=default"),
    Case("benchmark", "trainer=gpu trainer.devices=64 dataset=digits", "trainer.devices=64",
         "trainer=default"),
    Case("benchmark", "block=0 dataset=digits", "block is 0", "from 1"),
    Case("benchmark", "rounds=2 dataset=digits", "rounds is 2", "from 3"),
    Case("benchmark", "rounds=few dataset=digits", "rounds is few", "whole number"),
    Case("benchmark", "model=cgan dataset=digits model.accumulate_grad_batches=2",
         "accumulate_grad_batches", "has to be 1"),
    Case("benchmark", "model=gan dataset=digits speed=quick", "speed is quick", "fast"),
    Case("benchmark", "model=gan dataset=digits output=3", "output is 3", "text"),
    Case("benchmark", "model=gan dataset=digits seed=x", "seed is x", "from 0"),
    Case("benchmark", "model=nothing", "model 'nothing'", "gan"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs."""
    home = tmp_path_factory.mktemp("trained")
    for name, options in RUNS.items():
        rest = ("trainer=cpu", "trainer.max_steps=2", "logger=none", "callbacks.metrics=null",
                f"hydra.run.dir={name}")  # fmt: skip
        with contextlib.chdir(home), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train.py", *options, *rest])
            with pytest.raises(SystemExit) as end:
                runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
        assert not end.value.code
        (home / name / "checkpoints" / "step-000002.ckpt").unlink()
    return home


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in OWN
    }


def named(case: Case) -> str:
    return f"{case.script}.py {case.arguments}" + (f" ({case.about})" if case.about else "")


@pytest.mark.parametrize("case", CASES, ids=named)
def test_bad_input_gets_a_line_and_leaves_nothing(
    run: Run, table: Callable[..., None], trained: Path, tmp_path: Path, case: Case
) -> None:
    for name in RUNS:
        if name in re.sub("(evil|bad).ckpt", "cgan_run", case.arguments):
            shutil.copytree(trained / name, tmp_path / name)
    if case.prepare:
        case.prepare(tmp_path)
    arguments = shlex.split(case.arguments)
    names = {argument.partition("=")[0] for argument in arguments}
    given = names | ({"dataset"} if "dataset.name" in names else set())
    if case.script == "train" and "resume" not in given:
        gone = tuple(name[1:] for name in given if name.startswith("~"))
        arguments += [
            argument
            for argument in SHORT[:-1]
            if argument.partition("=")[0] not in given and not (gone and argument.startswith(gone))
        ]
    before = contents(tmp_path)
    result = run(f"{case.script}.py", *arguments, check=False, **case.environment)
    assert result.returncode in (1, 2)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    # A sweep also says what repeats the job.
    lines = [line for line in lines if not line.startswith("    Alone: ")]
    assert 1 <= len(lines) <= 3, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    # What Python, OmegaConf and Hydra would say.
    assert not re.search(r"\b[A-Z]\w+Error\b|full_key|object_type|NoneType", lines[-1])
    assert case.culprit in lines[-1]
    assert case.remedy in lines[-1]
    assert contents(tmp_path) == before
    assert not (tmp_path / "marker").exists()
    message = lines[-1].removeprefix("error: ").replace(str(tmp_path), ".")
    about = f": {case.about}" if case.about else ""
    table("bad input", f"`{case.script}.py {case.arguments}`{about}", message=message)


@pytest.mark.parametrize(
    "name",
    slow_but(
        ["a=b", "a,b", "back\\"],
        ["it's", "a=b", "donnée (1)", 'a "b"', "a,b", "2024_01", "back\\"],
    ),
)
def test_folders_of_any_name_need_no_quotes_but_a_shells(
    run: Run, trained: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(trained / "cgan_run", tmp_path / name)
    taken = run("train.py", *SHORT, to_read("hydra.run.dir", name), check=False)
    remedy = shlex.split(taken.stderr.partition("already: ")[2].partition(" resumes it")[0])
    assert remedy[0].startswith("resume=")
    run("train.py", *remedy, "trainer.max_steps=3")
    run("train.py", f"resume={name}", "trainer.max_steps=4")
    last = read_checkpoint(tmp_path / name)
    assert last["global_step"] == 4
    picture = to_read("output", f"{name}.png")
    run("sample.py", to_read("checkpoint", name), picture)
    assert (tmp_path / f"{name}.png").is_file()


def to_read(option: str, value: str) -> str:
    """An override as people type it: in quotes only what Hydra reads as something else."""
    return f'{option}="{value}"' if re.fullmatch(r"[\w,.]+", value) else f"{option}={value}"


@pytest.mark.parametrize(
    "option",
    slow_but(
        ["checkpoint", "health"], ["metrics", "checkpoint", "sample_grid", "progress", "health"]
    ),
)
def test_single_callbacks_can_be_left_out(run: Run, tmp_path: Path, option: str) -> None:
    run("train.py", *SHORT[:-1], f"~callbacks.{option}", "hydra.run.dir=here")
    assert (tmp_path / "here" / "metrics.json").is_file()


def test_a_launcher_may_start_several_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    # Lightning sets it for the whole process, and later runs of another rank would not log.
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    config = composed("gan").copy()
    config.trainer.num_nodes = 2
    config.trainer.strategy = "ddp_find_unused_parameters_true"
    with pytest.raises(ValueError, match="no launcher"):
        refuse_what_cannot_work(config)
    torchrun = ["TORCHELASTIC_RUN_ID", "GROUP_RANK", "RANK", "LOCAL_RANK", "WORLD_SIZE"]
    slurm = [
        f"SLURM_{word}" for word in ("NTASKS", "NTASKS_PER_NODE", "NODEID", "PROCID", "LOCALID")
    ]
    for names in (["NODE_RANK"], torchrun, slurm):
        with monkeypatch.context() as patch:
            for name in names:
                patch.setenv(name, "1")
            refuse_what_cannot_work(config)


# What every numeric option of these runs is tried out in.
COMPOSED = {
    **{model: (f"model={model}", DIGITS.get(model, "dataset=digits")) for model in MODELS},
    "toy": ("experiment=discogan_toy",),
    "papers": ("experiment=paper/gan", "dataset=stacked_mnist", "dataset.name=digits"),
    "adaptation": ("model=cogan", "dataset=mnist_usps", "dataset.name=digits",
                   "model.generator.base_channels=4"),
}  # fmt: skip
# Numbers that may be left out, though they are there by default.
OPTIONAL = {
    "callbacks.checkpoint.every_n_minutes", "callbacks.checkpoint.keep_last",
    "callbacks.metrics.max_share", "callbacks.sample_grid.most", "trainer.max_epochs",
    "trainer.check_val_every_n_epoch", "trainer.overfit_batches",
}  # fmt: skip
# Numbers that may be below 0, and that may be fractions though their default is whole.
SIGNED = re.compile(r"noise\.(a|b|mean)$|negative_slope$")
FLOATS = re.compile(r"max_angle$|every_n_minutes$")
# All that nothing is built of, in the sizes that are refused or cheap.
VALUES = st.one_of(
    st.sampled_from([None, True, False, math.nan, math.inf, -math.inf, "some", "", [], [1, -1]]),
    st.integers(max_value=0),
    st.integers(1, 4),
    st.integers(min_value=2 * 10**9),
    st.floats(),
)


@functools.cache
def composed(name: str) -> DictConfig:
    """A configuration as train.py composes it, and with nothing of Hydra's own."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [*COMPOSED[name], "trainer=cpu", "logger=none"])
    return config


def numeric(config: DictConfig) -> dict[str, Any]:
    """Every option that is a number, or null, with its default."""
    plain = OmegaConf.to_container(config, resolve=False)
    return {
        option: value
        for option, value in dotted(plain)
        if option.partition(".")[0] in ("seed", "dataset", "model", "trainer", "callbacks")
        and (value is None or type(value) in (int, float))
        and option.rpartition(".")[2] not in ("penalty", "deterministic", "benchmark", "max_time")
        and option not in ("model.scheduler", "trainer.profiler")
    }


def build(config: DictConfig, part: str) -> None:
    refuse_what_cannot_work(config)
    if part == "model":
        instantiate(config.model).configure_optimizers()
    elif part == "dataset":
        # Sizes of images are the networks' matter.
        instantiate(config.dataset)
        instantiate(config.model)
    elif part == "trainer":
        instantiate(config.trainer, logger=False, enable_checkpointing=False, _convert_="all")
    elif part == "callbacks":
        for callback in config.callbacks.values():
            instantiate(callback)


@pytest.mark.parametrize("name", slow_but({*FEW, "toy", "papers"}, COMPOSED))
@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(data=st.data())
def test_every_number_is_taken_or_refused_by_name(name: str, data: st.DataObject) -> None:
    config = composed(name)
    option, default = data.draw(st.sampled_from(sorted(numeric(config).items())))
    value = data.draw(VALUES)
    OmegaConf.update(config, option, value, merge=False)
    try:
        build(config, option.partition(".")[0])
    except Exception as error:
        message = explain(error, "train", config)
        assert option.rpartition(".")[2] in message, (option, value, message)
        assert "Error:" not in message, (option, value, message)
    else:
        assert fine(option, default, value), (option, value)
    finally:
        OmegaConf.update(config, option, default, merge=False)


def fine(option: str, default: object, value: Any) -> bool:
    """Whether the value may be taken."""
    if value is None:
        return default is None or option in OPTIONAL or option.endswith("weight_range")
    if isinstance(value, (bool, str, list)):
        return False
    if isinstance(default, int) and not isinstance(value, int) and not FLOATS.search(option):
        return False
    least = -1 if option in ("trainer.max_steps", "trainer.max_epochs", "trainer.devices") else 0
    return math.isfinite(value) and (value >= least or SIGNED.search(option) is not None)
