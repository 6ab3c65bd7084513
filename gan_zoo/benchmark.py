"""What the framework costs: an iteration under Lightning against the same one in a bare loop."""

import copy
import statistics
import tempfile
import time
from typing import Annotated, Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from gan_zoo.callbacks import Health, TrainingProgress
from gan_zoo.data import ImageBatch, MNISTDataModule
from gan_zoo.models import CGAN, DCGAN, GAN
from gan_zoo.models.noise_to_image import ImageGAN
from gan_zoo.ranges import Count, Range, Seed
from gan_zoo.run.checks import (
    bare_trainer,
    refuse_data_that_does_not_fit,
    refuse_unfit_values,
    refuse_what_cannot_work,
)
from gan_zoo.run.configuration import dataset_name

_KINDS = {"block": Count, "rounds": Annotated[int, Range(3, 10**6)], "seed": Seed}


class _BareLoop(pl.Callback):
    """The model's algorithm, moving average included, in a plain loop over one batch in memory.

    A block of its iterations follows each block of training iterations, and both are timed.
    """

    def __init__(self, model: ImageGAN, batch: ImageBatch, block: int) -> None:
        self.model = copy.deepcopy(model).to(batch.image.device)
        self.real = batch.image
        self.labels = () if model.num_classes is None else (batch.label,)
        self.block = block
        self.framework_ms: list[float] = []
        self.bare_ms: list[float] = []
        optimizer_d, optimizer_g = self.model.optimizer_factories.values()
        self.optimizer_d = optimizer_d(self.model.discriminator.parameters())
        self.optimizer_g = optimizer_g(self.model.generator.parameters())
        self.weights: list[Tensor] = list(self.model.generator.parameters())
        self.averages: list[list[Tensor]] = [list(n.parameters()) for n in self.model.ema.values()]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *unused: Any) -> None:
        if trainer.global_step % self.block:
            return
        self.framework_ms.append(self._ended())
        for _ in range(self.block):
            self.iterate()
        self.bare_ms.append(self._ended())

    def _ended(self) -> float:
        """Milliseconds an iteration of the block that ends now; the next one begins."""
        if self.real.is_cuda:
            torch.cuda.synchronize(self.real.device)
        begun, self._begun = self._begun, time.perf_counter()
        return 1000 * (self._begun - begun) / self.block

    def iterate(self) -> None:
        generator, discriminator = self.model.generator, self.model.discriminator
        real, labels, loss = self.real, self.labels, self.model.adversarial
        noise = torch.empty(len(real), self.model.latent_dim, device=real.device)
        fake = generator(self.model.noise(noise), *labels)
        self.optimizer_d.zero_grad()
        d_real, d_fake = discriminator(real, *labels), discriminator(fake.detach(), *labels)
        loss.discriminator(d_real, d_fake).backward()
        self.optimizer_d.step()
        self.optimizer_g.zero_grad()
        discriminator.requires_grad_(False)
        loss.generator(discriminator(fake, *labels)).backward()
        discriminator.requires_grad_(True)
        self.optimizer_g.step()
        with torch.no_grad():
            for average in self.averages:
                torch._foreach_lerp_(average, self.weights, 1 - self.model.ema_decay)


def benchmark(config: DictConfig) -> None:
    """Prints the medians of an iteration under Lightning and bare, and of their ratios.

    Both run in one process by turns of ``config.block`` iterations, so that what else the machine
    does meets both. The framework's side draws batches from the loader, logs to TensorBoard, moves
    the progress bar and watches the run's health as a training run does; the bare side does none of
    this. The options are conf/benchmark.yaml's.
    """
    refuse_unfit_values(config, _KINDS)
    refuse_what_cannot_work(config)
    refuse_data_that_does_not_fit(config)
    processes = bare_trainer(config).world_size
    if processes > 1:
        raise ValueError(
            f"The bare loop has one process, and this trainer {processes}: take one device "
            "(trainer=default, cpu or gpu)."
        )
    config.dataset.name = dataset_name(config.dataset)
    pl.seed_everything(config.seed, verbose=False)
    model: ImageGAN = instantiate(config.model)
    if type(model) not in (GAN, CGAN, DCGAN) or model.penalty or model.n_critic > 1:
        raise ValueError(
            f"The bare loop trains the plain alternating game, not {type(model).__name__}'s: "
            "compare model=gan, cgan or dcgan without a penalty."
        )
    datamodule: MNISTDataModule = instantiate(config.dataset)
    datamodule.prepare_data()
    datamodule.setup()
    batch = next(iter(datamodule.train_dataloader()))
    with tempfile.TemporaryDirectory() as folder:
        trainer: pl.Trainer = instantiate(
            config.trainer,
            max_steps=config.block * (config.rounds + 1),
            default_root_dir=folder,
            logger=TensorBoardLogger(folder, name="", version=""),
            enable_checkpointing=False,
            callbacks=[TrainingProgress(), Health()],
            _convert_="all",
        )
        turns = _BareLoop(model, trainer.strategy.batch_to_device(batch), config.block)
        trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        trainer.fit(model, datamodule)
    # The first round warms both up.
    framework, bare = turns.framework_ms[1:], turns.bare_ms[1:]
    ratios = sorted(f / b for f, b in zip(framework, bare, strict=True))
    print(
        f"{type(model).__name__} on {trainer.strategy.root_device}, batch {len(batch.image)}, "
        f"{torch.get_num_threads()} threads, {config.rounds} rounds of {config.block} iterations\n"
        f"framework {statistics.median(framework):.2f} ms, bare loop {statistics.median(bare):.2f} "
        f"ms an iteration (medians)\n"
        f"framework / bare {statistics.median(ratios):.3f} "
        f"(quartiles {ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f})"
    )
