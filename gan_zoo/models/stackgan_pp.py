"""StackGAN++, or StackGAN-v2: Zhang et al. 2017, arXiv 1710.10916.

One generator draws an image at each of several scales, s_i = G_i(h_i), of hidden maps that grow out
of each other; each scale has a discriminator. With c as StackGAN's (section 4.1 and 4.2)

    L_{D_i} = -E[log D_i(x_i)] - E[log(1 - D_i(s_i))]                 is the image real?
              -E[log D_i(x_i, c)] - E[log(1 - D_i(s_i, c))]           does it fit the caption?
    L_G     = sum_i -E[log D_i(s_i)] - E[log D_i(s_i, c)] + lambda KL(...)
              + alpha sum_{i > 1} colour consistency of s_i and s_{i-1}

Without captions only the first lines are left, and alpha is 50 in the paper; with them it is 0, as
captions hold the scales together.

What differs from the paper, as in the authors' code (StackGAN-v2): the non-saturating loss; D also
learning that real images with captions of another class are wrong, which adds -E[log(1 - D_i(x_i,
c'))] to its second line in full (StackGAN halves both kinds of wrong pair); the coarser image fixed
in the colour term; and an average of the generator (decay .999) to sample from. There a wrong
pair's image also counts as real in the unconditional part, which here is the same image and would
count twice. D reduces the caption by a layer of its own, as StackGAN's, instead of taking the
generator's mu.

In ``model=stackgan_pp`` also: 8, 16 and 32 pixels, a quarter of the generator's channels and half
of D's; D judges the last map without the authors' layers that reduce it to 512 channels; a
condition of 32 values (128); embeddings of 64 values of an encoder that is trained here (1,024);
faster rates that fall to 0 in the second half; a weight of .001 for the KL divergence (2 of its
mean over 128 dimensions, .016 of the divergence); pairs in one batch and wrong captions as
StackGAN's. ``experiment=paper/stackgan_pp`` has the authors' values.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from gan_zoo.data.base import ImageBatch
from gan_zoo.data.captions import CaptionBatch
from gan_zoo.losses import colour_consistency
from gan_zoo.models.text_to_image import TextToImage
from gan_zoo.networks.stackgan_pp import TreeDiscriminators, TreeGenerator, scale_discriminator
from gan_zoo.networks.text_to_image import ScaleImages, TextDiscriminator
from gan_zoo.ranges import Count, NonNegative, checked
from gan_zoo.training.module import Loss

_ALPHA_WITHOUT_TEXT = 50.0


class StackGANPP(TextToImage):
    """TextToImage at all scales at once; without text, images from noise alone.

        model = StackGANPP()
        pl.Trainer(max_steps=1000).fit(model, MNISTCaptionsDataModule(...))
        images = model.sample(4, captions=["a thin green seven"] * 4)

    Also logged, each averaged over the scales: ``d_real_alone`` and
    ``d_fake_alone``, what D says of images by themselves, and ``colour_gap``, the unweighted colour
    term.

    Args:
        generator: (noise[, caption]) -> ScaleImages; by default the paper's for 32 pixels.
        discriminator: a TextDiscriminator for each scale, the coarsest first.
        embedding_dim: length of the captions' embeddings; None for a model without text.
        lambda_colour: alpha above; None for the paper's 50 without text and 0 with it.
    """

    graphable = True
    batch_types: ClassVar[tuple[type, ...]] = (CaptionBatch, ImageBatch)

    @checked
    def __init__(
        self,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        embedding_dim: Count | None = 64,
        lambda_colour: NonNegative | None = None,
        **options: Any,
    ) -> None:
        if generator is None:
            generator = TreeGenerator(embedding_dim=embedding_dim)
        if discriminator is None:
            judge = functools.partial(scale_discriminator, embedding_dim=embedding_dim)
            discriminator = TreeDiscriminators(judge)
        super().__init__(
            generator,
            discriminator,
            embedding_dim=embedding_dim,
            **options,
        )
        if lambda_colour is None:
            lambda_colour = 0.0 if self.has_text else _ALPHA_WITHOUT_TEXT
        self.lambda_colour = lambda_colour

    def images_of(
        self, generators: Sequence[nn.Module], noise: Tensor, caption: Tensor | None
    ) -> ScaleImages:
        return generators[0](noise, caption)

    def generate(self, batch: CaptionBatch | ImageBatch) -> ScaleImages:
        noise = self.draw_noise(len(batch.image))
        caption = batch.caption if isinstance(batch, CaptionBatch) else None
        return self.images_of([self.generator], noise, caption)

    def judges(self) -> list[TextDiscriminator]:
        return list(cast(Iterable[TextDiscriminator], self.discriminator))

    def discriminator_loss(self, batch: CaptionBatch | ImageBatch, fake: ScaleImages) -> Loss:
        losses, outputs = [], []
        for judge, image in zip(self.judges(), fake.images, strict=True):
            real = judge.features(batch.image)
            drawn = judge.features(image.detach())
            terms = {}
            if judge.alone is not None:
                real_logits, fake_logits = judge.real(real), judge.real(drawn)
                losses.append(self.adversarial.discriminator(real_logits, fake_logits))
                with torch.no_grad():
                    terms["d_real_alone"] = self.adversarial.output(real_logits)
                    terms["d_fake_alone"] = self.adversarial.output(fake_logits)
            if isinstance(batch, CaptionBatch):
                loss, more = self.matching(judge, real, drawn, batch, weight=1.0)
                losses.append(loss)
                terms |= more
            else:
                terms = {name.removesuffix("_alone"): value for name, value in terms.items()}
            outputs.append(terms)
        joined = {name: torch.stack([terms[name] for terms in outputs]) for name in outputs[0]}
        return torch.stack(losses).sum(), joined

    def generator_loss(self, batch: CaptionBatch | ImageBatch, fake: ScaleImages) -> Loss:
        total, terms = self.kl(fake)
        for judge, image in zip(self.judges(), fake.images, strict=True):
            features = judge.features(image)
            if judge.alone is not None:
                total = total + self.adversarial.generator(judge.real(features))
            if isinstance(batch, CaptionBatch):
                logits = self.generated_logits(judge, features, batch)
                total = total + self.adversarial.generator(logits)
        pairs = zip(fake.images[1:], fake.images, strict=False)
        with torch.set_grad_enabled(self.lambda_colour > 0):
            gaps = [colour_consistency(finer, coarser.detach()) for finer, coarser in pairs]
        terms["colour_gap"] = torch.stack(gaps)
        return total + self.lambda_colour * terms["colour_gap"].sum(), terms
