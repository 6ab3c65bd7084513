"""StackGAN: Zhang et al. 2016, arXiv 1612.03242.

Stage I draws the shapes and colours of a caption's embedding phi at low resolution, Stage II draws
the image anew at high resolution from that and, again, from phi. In either stage (eq. 3 to 6)

    max_D  E[log D(I, phi)] + E[log(1 - D(G(., c), phi))]
    min_G  E[log(1 - D(G(., c), phi))] + lambda KL(N(mu(phi), Sigma(phi)) || N(0, I))

with c ~ N(mu(phi), Sigma(phi)), conditioning augmentation: Stage I is given c and noise z, Stage II
Stage I's image and a c of its own, and no z. Stage I is trained first; then it is fixed, and Stage
II trained. D also learns that a real image with a caption of another class is wrong.

What differs from the paper, as in the authors' code: the generators minimise the non-saturating
-log D, and the two kinds of wrong pair weigh half each. They pair a caption with another class's
image, here it is an image with another class's caption; the pairs are the same, and D's features of
the image serve both. lambda is 1 in the paper and 2 in the code, of a KL that the code averages
over the dimensions; ``model.lambda_kl`` multiplies the divergence itself. Batch norm of the fixed
Stage I takes its running statistics, as in sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from gan_zoo.data import CaptionBatch
from gan_zoo.models.base import Loss, OptimizerFactory, Phase, eval_mode
from gan_zoo.models.text_to_image import TextToImage
from gan_zoo.networks.text_to_image import ScaleImages, TextDiscriminator
from gan_zoo.ranges import Share, refuse_unfit


class StackGAN(TextToImage):
    """TextToImage in two stages that are trained in turn.

    Each stage has its own generator and discriminator, optimizers and schedules: ``d`` and ``g`` in
    Stage I, ``d_2`` and ``g_2`` in Stage II. Losses are logged under the same names in both, with
    ``stage`` beside them. ``sample`` gives the images of the last stage that has been trained.

    A run's stage boundary is set when it begins, from ``trainer.max_steps``; one that is resumed
    with more steps spends them on Stage II.

    Args:
        generator, discriminator: Stage I's.
        generator_2, discriminator_2: Stage II's.
        optimizer_g, optimizer_d: factories of either stage's optimizers.
        stage_one_share: of the iterations, how many Stage I is trained for; 1 trains it alone, 0
            Stage II alone, on the Stage I of another run (``init_from``).
        options: TextToImage's.

    Raises:
        ValueError: for a share that is not in [0, 1]; at the start of training, without
            ``trainer.max_steps`` to share, or if Stage II would begin on an untrained Stage I.
    """

    averaged_networks: ClassVar[dict[str, str]] = {"generator": "g", "generator_2": "g_2"}

    def __init__(
        self,
        *,
        generator: nn.Module,
        discriminator: nn.Module,
        generator_2: nn.Module,
        discriminator_2: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        stage_one_share: float = 0.5,
        **options: Any,
    ) -> None:
        refuse_unfit("model.stage_one_share", stage_one_share, Share)
        super().__init__(
            generator=generator,
            discriminator=discriminator,
            optimizer_g=optimizer_g,
            optimizer_d=optimizer_d,
            augmentations=2,
            **options,
        )
        self.optimizer_factories = {
            "d": optimizer_d,
            "g": optimizer_g,
            "d_2": optimizer_d,
            "g_2": optimizer_g,
        }
        self.generator_2 = generator_2
        self.discriminator_2 = discriminator_2
        self.stage_one_share = stage_one_share
        self.stage_one_steps: int | None = None
        self._stage_one_shared = False
        self.trained_stage: Tensor
        self.register_buffer("trained_stage", torch.zeros((), dtype=torch.int64))
        self.start_averaging()

    def players(self) -> dict[str, nn.Module]:
        return {
            "d": self.discriminator,
            "g": self.generator,
            "d_2": self.discriminator_2,
            "g_2": self.generator_2,
        }

    @property
    def stage(self) -> int:
        """The stage that the coming iteration trains, 1 or 2."""
        steps = self.stage_one_steps
        return 1 if steps is None or self.trainer.global_step < steps else 2

    def phases(self) -> list[Phase]:
        players = [("d", "g"), ("d_2", "g_2")][self.stage - 1]
        return [
            phase._replace(player=player)
            for phase, player in zip(super().phases(), players, strict=True)
        ]

    def age(self, player: str) -> int | None:
        begun = (self.stage_one_steps or 0) if player.endswith("_2") else 0
        in_game = player.endswith("_2") == (self.stage == 2)
        return self.trainer.global_step - begun if in_game else None

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.stage_one_steps is None:
            steps = self.trainer.max_steps
            if steps < 0 and 0 < self.stage_one_share < 1:
                raise ValueError(
                    "trainer.max_steps=-1 can't be shared out between the stages: give a number, "
                    "or model.stage_one_share=1 or 0."
                )
            endless = steps < 0 and self.stage_one_share == 1
            self.stage_one_steps = 2**62 if endless else round(self.stage_one_share * max(steps, 0))
        if self.stage == 2 and not int(self.trained_stage):
            raise ValueError(
                "Stage II begins on a trained Stage I: init_from=RUN_FOLDER names a run that has "
                "one, or model.stage_one_share above 0 trains it first."
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.stage == 2 and not self._stage_one_shared:
            # All processes draw on the same Stage I, of which batch norm's statistics are a part.
            self.share_buffers()
            self._stage_one_shared = True

    def generate(self, batch: CaptionBatch) -> ScaleImages:  # type: ignore[override]
        noise = self.draw_noise(len(batch.image))
        if self.stage == 1:
            return self.draw([self.generator], noise, batch.caption)
        coarse = self.network("generator")
        latent, eps = self._parts(noise)
        with torch.no_grad(), eval_mode(coarse):
            image = coarse(latent, batch.caption).images[0]
        return self.generator_2(image, eps, batch.caption)

    def draw(
        self, generators: Sequence[nn.Module], noise: Tensor, caption: Tensor | None
    ) -> ScaleImages:
        latent, eps = self._parts(noise)
        coarse: ScaleImages = generators[0](latent, caption)
        if len(generators) == 1:
            return coarse
        fine: ScaleImages = generators[1](coarse.images[0], eps, caption)
        return fine._replace(images=(*coarse.images, *fine.images))

    def _parts(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Stage I's noise and Stage II's."""
        own = self.augmentation_dim // 2
        return noise[:, : self.latent_dim + own], noise[:, self.latent_dim + own :]

    def generators(self, ema: bool = True) -> list[nn.Module]:
        names = ("generator", "generator_2")[: max(1, int(self.trained_stage))]
        return [self.network(name, ema) for name in names]

    def judges(self) -> list[TextDiscriminator]:
        stages = (self.discriminator, self.discriminator_2)
        return [cast(TextDiscriminator, stages[self.stage - 1])]

    def discriminator_loss(self, batch: CaptionBatch, fake: ScaleImages) -> Loss:  # type: ignore[override]
        (judge,) = self.judges()
        real, drawn = judge.features(batch.image), judge.features(fake.images[-1].detach())
        return self.matching(judge, real, drawn, batch)

    def generator_loss(self, batch: CaptionBatch, fake: ScaleImages) -> Loss:  # type: ignore[override]
        (judge,) = self.judges()
        kl, terms = self.kl(fake)
        logits = judge.fits(judge.features(fake.images[-1]), batch.caption)
        return self.adversarial.generator(logits) + kl, terms

    def after_phase(self, phase: Phase) -> None:
        self.trained_stage.fill_(self.stage)

    def figures(self) -> dict[str, Tensor]:
        return {"stage": self.trained_stage.float()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["stage_one_steps"] = self.stage_one_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.stage_one_steps = checkpoint["stage_one_steps"]
