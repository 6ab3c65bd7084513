"""CoGAN, Coupled GANs: Liu and Tuzel 2016, arXiv 1606.07536.

    max_{g1, g2} min_{f1, f2}  E[-log f1(x1)] + E[-log(1 - f1(g1(z)))]
                             + E[-log f2(x2)] + E[-log(1 - f2(g2(z)))]

Two GANs, one for each domain, on one noise z. The generators' layers near the noise, which decide
what is in the picture, are the same objects in both, and so are the discriminators' layers near the
logit. No pair of images is ever trained on; that g1(z) and g2(z) show the same comes from sharing.

The generators minimise the non-saturating -log f(g(z)), as in the authors' code; the game is
averaged over the domains. The paper's unsupervised domain adaptation is ``adapt``: a linear
classifier on the discriminator's features, trained along with it on the labels of domain a, and
used on domain b. As in the authors' code, the features of a generated pair are drawn together, by
their squared Euclidean distance and the weight ``lambda_match``: without it each domain's first
layer is free to give features of its own, which the classifier does not know.

What differs from the paper in ``model=cogan``: a quarter of the generator's channels, faster rates
that fall in the second half, a gradient penalty on real images (R1, Mescheder et al. 2018,
1801.04406), and a moving average of the generator. ``experiment=paper/cogan`` is the authors'
PyTorch code.
"""

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.data import ImageBatch, ImagePair
from gan_zoo.models.noise_to_image import ImageGAN, Noise, normal
from gan_zoo.models.protocols import Generated
from gan_zoo.networks.cogan import CoupledDiscriminator, CoupledGenerator
from gan_zoo.plotting import interleaved
from gan_zoo.ranges import Count, NonNegative, UnfitArgument, checked
from gan_zoo.training.module import Loss


class CoGAN(ImageGAN):
    """ImageGAN on pairs of images, (B, 2, C, H, W) with domain a first.

        model = CoGAN()
        pl.Trainer(max_steps=1000).fit(model, loader)    # of ImagePair
        pairs = model.sample(64)    # (64, 2, 1, 28, 28)

    Also logged with ``adapt``: ``classification_loss`` and ``source_accuracy`` on domain a, and of
    the validation set, without training on its labels, ``val/source_accuracy`` and
    ``val/target_accuracy``.

    Args:
        args: generator of pairs, and discriminator of pairs with logits (B, 2).
        adapt: train a classifier on the labels of domain a, to be used on b.
        num_source_classes: how many classes domain a has; None where it has no labels.
        lambda_classification: weight of the classifier's cross-entropy.
        lambda_match: weight of the squared distance of a generated pair's features.
        penalty: r1, r1_r2 or None. Of a pair these are the sum of both discriminators', as each
            logit depends on one image alone; those that have a norm at 1 would tie them.
    """

    graphable = True
    packs = False
    paper_networks = (CoupledGenerator, CoupledDiscriminator)
    batch_types = (ImagePair,)

    @checked
    def __init__(
        self,
        *args: Any,
        noise: Noise = normal,
        adapt: bool = False,
        num_source_classes: Count | None = None,
        lambda_classification: NonNegative = 10.0,
        lambda_match: NonNegative = 0.01,
        penalty: Literal["r1", "r1_r2"] | None = None,
        **options: Any,
    ) -> None:
        if adapt and num_source_classes is None:
            raise UnfitArgument(
                "adapt",
                "is true; it learns from the labels of domain a, and this dataset has none "
                "(dataset=mnist_usps has).",
            )
        super().__init__(*args, noise=noise, penalty=penalty, **options)
        self.adapt = adapt
        self.lambda_classification = lambda_classification
        self.lambda_match = lambda_match
        if adapt:
            features = cast(CoupledDiscriminator, self.discriminator).fc_units
            self.classifier = nn.Linear(features, cast(int, num_source_classes))

    def players(self) -> dict[str, nn.Module]:
        players = super().players()
        if self.adapt:
            players["d"] = nn.ModuleList([self.discriminator, self.classifier])
        return players

    def as_seen(self, batch: ImagePair) -> ImageBatch:
        return ImageBatch(torch.stack((batch.a, batch.b), 1), batch.label_a)

    def discriminator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        if not self.adapt:
            return super().discriminator_loss(batch, fake)
        discriminator = cast(CoupledDiscriminator, self.discriminator)
        features = discriminator.features(torch.cat((batch.image, fake.detach())))
        real_logits, fake_logits = discriminator.logits(features).chunk(2)
        loss, terms = self.discriminator_objective(batch, fake, real_logits, fake_logits)
        real_features, fake_features = features.chunk(2)
        scores = self.classifier(real_features[:, 0])
        classification = F.cross_entropy(scores, batch.label)
        match = (fake_features[:, 0] - fake_features[:, 1]).square().sum(1).mean()
        loss = loss + self.lambda_classification * classification + self.lambda_match * match
        right = scores.argmax(1).eq(batch.label).float()
        return loss, {
            **terms,
            "classification_loss": classification,
            "match": match,
            "source_accuracy": right,
        }

    @torch.no_grad()
    def classify(self, pair: Tensor) -> Tensor:
        """Classes (B, 2) of pairs of images, each by its own domain's branch."""
        discriminator = cast(CoupledDiscriminator, self.discriminator)
        return self.classifier(discriminator.features(pair)).argmax(2)

    def validation_step(self, batch: ImagePair, batch_idx: int) -> None:  # type: ignore[override]
        """D on held-out real images, and with ``adapt`` its classifier on both domains."""
        pair = self.as_seen(batch)
        super().validation_step(pair, batch_idx)
        if self.adapt:
            classes = self.classify(pair.image)
            for domain, labels in enumerate((batch.label_a, batch.label_b)):
                self.log(
                    f"val/{('source', 'target')[domain]}_accuracy",
                    classes[:, domain].eq(labels).float().mean(),
                    batch_size=len(labels),
                    sync_dist=True,
                )

    def real_images(self, batch: ImagePair) -> dict[str, Generated]:
        return super().real_images(self.as_seen(batch))

    def by_domain(self, images: Tensor, labels: Tensor | None) -> dict[str, Generated]:
        return {"a": Generated(images[:, 0], labels), "b": Generated(images[:, 1], labels)}

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        """Pairs of the same noise, the one domain's image above the other's."""
        pairs, columns = super().sample_grid(inputs)
        return interleaved(pairs[:32], columns), columns

    def real_grid(self, examples: ImagePair) -> tuple[Tensor, int]:
        return interleaved(self.as_seen(examples).image[:32], 8), 8
