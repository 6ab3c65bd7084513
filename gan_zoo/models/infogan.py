"""InfoGAN: Chen et al. 2016, arXiv 1606.03657.

    min_{G,Q} max_D V(D, G) - lambda L_I(G, Q)                                              (eq. 6)
    L_I(G, Q) = E_{c ~ P(c), x ~ G(z, c)}[log Q(c | x)] + H(c) <= I(c; G(z, c))             (eq. 4)

The generator's input is noise z and codes c that nobody labels: categorical ones, as one-hot
vectors, and continuous ones, uniform on [-1, 1]. Q reads the codes from an image; it shares all of
D but the last layers. Maximising L_I, the mutual information's lower bound, makes codes visible:
on MNIST the categorical code of 10 becomes the digit, the continuous ones slant and width.

As in the authors' code, one optimizer trains D and Q together, and L_I is in both players' losses:
in D's step Q learns to read the codes, in G's step G to make them legible. The two kinds of code
have a weight each, as the continuous bound has no ceiling (the paper, too, sets lambda lower where
continuous codes are involved). Their code fixes Q's standard deviations at 1; here, as in the
paper, Q gives them (``model.discriminator.fixed_std=true`` for the code's choice).

What differs from both in ``model=infogan``: fewer channels and units; a weight of .01 for the
continuous codes (1); categories that Q reads from images distorted at random (``distortion``);
rates that fall linearly in the second half of the run; a moving average of the generator. What Q
reads from a distorted image x' is a bound all the same, as I(c; x') <= I(c; x). G then has to make
categories that slant, width and place don't tell, which leaves the digit; without it two categories
may share the 4 and the 9, in some seeds. ``experiment=paper/infogan`` is the authors' code.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from gan_zoo.data.base import ImageBatch
from gan_zoo.losses import categorical_information, gaussian_information
from gan_zoo.models.codes import CodedImageGAN, CodedImages, Codes
from gan_zoo.models.protocols import CHUNK
from gan_zoo.networks.infogan import (
    Categories,
    CodeCount,
    InfoGANDiscriminator,
    InfoGANGenerator,
    Posterior,
    distorted,
)
from gan_zoo.ranges import Count, NonNegative, UnfitArgument, checked
from gan_zoo.training.averaging import with_statistics_of
from gan_zoo.training.module import Loss


class Recogniser(Protocol):
    """A discriminator with InfoGAN's Q."""

    def recognise(self, image: Tensor) -> tuple[Tensor, Posterior]:
        """D's logits (B, 1) of images (B, C, H, W), and what Q reads from them."""


class InfoGAN(CodedImageGAN):
    """ImageGAN whose generator also takes codes, which its discriminator's Q reads.

        model = InfoGAN(categorical_codes=(10,), continuous_codes=2)
        pl.Trainer(max_steps=1000).fit(model, loader)    # of tuples (image, label)
        images = model.sample(1, codes=torch.tensor([[3.0, -2.0, 0.0]]))

    Also logged, in nats: ``mutual_information`` of the categorical codes beside
    its ceiling H(c), ``mutual_information_ceiling``, and ``mutual_information_continuous``.

    Args:
        generator: by default the paper's for MNIST. It takes latent_dim + sum(categorical_codes) +
            continuous_codes values.
        discriminator: by default the paper's: (images) -> logits (B, 1); a Recogniser too.
        latent_dim: length of the noise alone.
        categorical_codes: number of categories of each categorical code.
        continuous_codes: number of continuous codes.
        lambda_info: weight of the categorical codes' mutual information.
        lambda_info_continuous: weight of the continuous codes'.
        distortion: strength of ``gan_zoo.networks.infogan.distorted`` on the images from which Q
            reads the categories in training; 0 for none, as in the paper.
    """

    graphable = True

    @checked
    def __init__(
        self,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        latent_dim: Count = 62,
        categorical_codes: Sequence[Categories] = (10,),
        continuous_codes: CodeCount = 2,
        lambda_info: NonNegative = 1.0,
        lambda_info_continuous: NonNegative = 1.0,
        distortion: NonNegative = 0.0,
        **options: Any,
    ) -> None:
        if not categorical_codes and not continuous_codes:
            raise UnfitArgument(
                "categorical_codes", "is empty, and InfoGAN without codes is a GAN (model=dcgan)."
            )
        super().__init__(
            InfoGANGenerator(latent_dim, categorical_codes, continuous_codes)
            if generator is None
            else generator,
            InfoGANDiscriminator(categorical_codes, continuous_codes)
            if discriminator is None
            else discriminator,
            codes=Codes(tuple(categorical_codes), continuous_codes),
            latent_dim=latent_dim,
            **options,
        )
        self.lambda_info = lambda_info
        self.lambda_info_continuous = lambda_info_continuous
        self.distortion = distortion

    def discriminator_loss(self, batch: ImageBatch, fake: CodedImages) -> Loss:  # type: ignore[override]
        image = fake.image.detach()
        real_logits = self.discriminate(batch.image, batch.label)
        fake_logits, posterior = self._recognise(image)
        loss, terms = self.discriminator_objective(batch, image, real_logits, fake_logits)
        information, more = self.information(fake.codes, self._of_any_view(image, posterior))
        return loss - information, terms | more

    def penalty_loss(self, batch: ImageBatch, fake: Any) -> Loss:
        return super().penalty_loss(batch, fake.image if isinstance(fake, CodedImages) else fake)

    def generator_loss(self, batch: ImageBatch, fake: CodedImages) -> Loss:  # type: ignore[override]
        logits, posterior = self._recognise(fake.image)
        information, _ = self.information(fake.codes, self._of_any_view(fake.image, posterior))
        return self.adversarial.generator(logits) - information, {}

    def _recognise(self, image: Tensor) -> tuple[Tensor, Posterior]:
        return cast(Recogniser, self.discriminator).recognise(image)

    def _of_any_view(self, image: Tensor, posterior: Posterior) -> Posterior:
        """The posterior, with the categories that Q reads from a distorted image."""
        if not self.distortion or not self.codes.categorical:
            return posterior
        _, distant = self._recognise(distorted(image, self.distortion))
        return posterior._replace(logits=distant.logits)

    @torch.no_grad()
    def categories_of(self, images: Tensor, like: Tensor) -> Tensor:
        """Q's logits (N, K) for the first code of real images (N, C, H, W).

        Args:
            like: training images, of which batch norm takes its statistics: the discriminator's
                own are of real and generated images together.
        """
        judge = with_statistics_of(self.discriminator, like.to(self.device).split(CHUNK))
        chunks = images.to(self.device).split(CHUNK)
        return torch.cat([cast(Recogniser, judge).recognise(part)[1].logits[0] for part in chunks])

    def information(self, codes: Tensor, posterior: Posterior) -> Loss:
        """The weighted lower bound on the mutual information of codes and images, and its parts."""
        total, terms = codes.new_zeros(()), {}
        categories, continuous = self.codes.split(codes)
        if categories:
            pairs = zip(posterior.logits, categories, strict=True)
            terms["mutual_information"] = torch.stack(
                [categorical_information(*pair) for pair in pairs]
            ).sum()
            total = total + self.lambda_info * terms["mutual_information"]
        if self.codes.continuous:
            bound = gaussian_information(posterior.mean, posterior.log_std, continuous)
            terms["mutual_information_continuous"] = bound
            total = total + self.lambda_info_continuous * bound
        return total, terms

    def extra_terms(self) -> dict[str, Tensor]:
        if not self.codes.categorical:
            return {}
        return {"mutual_information_ceiling": torch.tensor(self.codes.entropy)}
