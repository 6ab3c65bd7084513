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

In ``model=stackgan`` also: 16 and 32 pixels (64 and 256), an eighth to a half of the channels, and
of D's last map no reduction to 512; a condition of 32 values (128); embeddings of 64 values of an
encoder that is trained here (1,024); faster rates; a lambda of .001; a moving average of the
generators (none); 35 % of the iterations for Stage I (half); right, wrong and generated pairs in
one batch where image and caption join (each kind apart); wrong captions of which half are of
another digit in the same colours, and a quarter of the same digit in them (of any other class).
``experiment=paper/stackgan`` has the paper's values.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gan_zoo.data.captions import CaptionBatch
from gan_zoo.models.stages import TwoStages
from gan_zoo.networks.stackgan import StageOneGenerator, StageTwoGenerator
from gan_zoo.networks.text_to_image import ScaleImages, TextDiscriminator
from gan_zoo.ranges import Count, checked
from gan_zoo.training.averaging import eval_mode
from gan_zoo.training.module import Loss


class StackGAN(TwoStages):
    """TextToImage in two stages that are trained in turn.

        model = StackGAN()
        pl.Trainer(max_steps=1000).fit(model, MNISTCaptionsDataModule(...))
        images = model.sample(4, captions=["a thin green seven"] * 4)

    Each stage has its own generator and discriminator, optimizers and schedules. ``sample`` gives
    the images of the last stage that has been trained.

    Args:
        generator, discriminator: Stage I's; all four are by default the paper's for 32 pixels.
        generator_2, discriminator_2: Stage II's.
        embedding_dim: length of the captions' embeddings.
    """

    graphable = True

    @checked
    def __init__(
        self,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        generator_2: nn.Module | None = None,
        discriminator_2: nn.Module | None = None,
        *,
        embedding_dim: Count = 64,
        **options: Any,
    ) -> None:
        generator_2 = StageTwoGenerator(embedding_dim) if generator_2 is None else generator_2
        super().__init__(
            StageOneGenerator(embedding_dim=embedding_dim) if generator is None else generator,
            TextDiscriminator(embedding_dim=embedding_dim, factor=2)
            if discriminator is None
            else discriminator,
            averaged={"generator_2": ("g_2", generator_2)},
            embedding_dim=embedding_dim,
            **options,
        )
        self.optimizer_factories = {
            **self.optimizer_factories,
            "d_2": self.optimizer_factories["d"],
            "g_2": self.optimizer_factories["g"],
        }
        self.generator_2 = generator_2
        self.discriminator_2 = self.normalised(
            TextDiscriminator(embedding_dim=embedding_dim)
            if discriminator_2 is None
            else discriminator_2
        )

    def players(self) -> dict[str, nn.Module]:
        return {
            **super().players(),
            "d_2": self.discriminator_2,
            "g_2": self.generator_2,
        }

    def generate(self, batch: CaptionBatch) -> ScaleImages:  # type: ignore[override]
        noise = self.draw_noise(len(batch.image))
        if self.stage == 1:
            return self.images_of([self.generator], noise, batch.caption)
        coarse = self.network("generator")
        latent, eps = self._parts(noise)
        with torch.no_grad(), eval_mode(coarse):
            image = coarse(latent, batch.caption).images[0]
        return self.generator_2(image, eps, batch.caption)

    def images_of(
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
        names = ("generator", "generator_2")[: self.last_stage]
        return [self.network(name, ema) for name in names]

    def judges(self) -> list[TextDiscriminator]:
        return [self._judge_of(self.stage)]

    def trained_judges(self) -> list[TextDiscriminator]:
        return [self._judge_of(self.last_stage)]

    def _judge_of(self, stage: int) -> TextDiscriminator:
        return cast(TextDiscriminator, (self.discriminator, self.discriminator_2)[stage - 1])

    def discriminator_loss(self, batch: CaptionBatch, fake: ScaleImages) -> Loss:  # type: ignore[override]
        (judge,) = self.judges()
        real, drawn = judge.features(batch.image), judge.features(fake.images[-1].detach())
        return self.matching(judge, real, drawn, batch, weight=0.5)

    def generator_loss(self, batch: CaptionBatch, fake: ScaleImages) -> Loss:  # type: ignore[override]
        (judge,) = self.judges()
        kl, terms = self.kl(fake)
        logits = self.generated_logits(judge, judge.features(fake.images[-1]), batch)
        return self.adversarial.generator(logits) + kl, terms
