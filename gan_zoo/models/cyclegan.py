"""CycleGAN: Zhu, Park, Isola and Efros 2017, arXiv 1703.10593.

    L = L_GAN(G, D_Y) + L_GAN(F, D_X) + lambda L_cyc(G, F)                                  (eq. 3)
    L_cyc = E[|F(G(x)) - x|_1] + E[|G(F(y)) - y|_1]                                         (eq. 2)

With X and Y called a and b here. L_GAN is least squares: G minimises E[(D(G(x)) - 1)^2], and D half
of E[(D(y) - 1)^2] + E[D(G(x))^2], which keeps D slower than G (section 4). The discriminators train
on images from a pool of the last 50 generated ones (section 4). Where colours should stay, an
identity term |G(y) - y|_1 of half the cycle's weight is added (section 5.2); the authors' first
code has it on by default.

What differs by default: the discriminators step before the generators, on the same forward pass;
under 64 pixels the networks are narrower and shallower; batches are of 16 images (1).
``experiment=paper/cyclegan`` has the paper's networks and batches.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from gan_zoo.data import ImagePair, PointPair
from gan_zoo.losses import AdversarialLoss
from gan_zoo.models.image_pool import ImagePool
from gan_zoo.models.translation import Translated, Translator
from gan_zoo.networks.cyclegan import PatchDiscriminator, ResidualGenerator
from gan_zoo.ranges import Natural, NonNegative, UnfitArgument, checked
from gan_zoo.training.module import Loss, Phase


class CycleGAN(Translator):
    """Translators with cycle consistency, image pools and an identity term.

        model = CycleGAN(lambda_identity=0.5)
        pl.Trainer(max_steps=1000).fit(model, loader)    # of ImagePair
        images = model.sample(64, source=images_a, direction="a2b")

    Also logged, unweighted: ``game`` (both generators'), ``cycle_a`` (a -> b
    -> a), ``cycle_b`` and ``identity``, where their weights are not 0. The weights make the paper's
    ablation (section 5.1.4): cycle alone is lambda_gan=0, GAN alone both cycle weights 0, forward
    or backward cycle alone the other one 0.

    Args:
        generator, discriminator: factories of the networks; by default the paper's, at the widths
            that they have for 28 grey pixels.
        loss: by default the paper's least squares.
        lambda_gan: weight of the adversarial game; 0 trains no discriminators.
        lambda_cycle_a: of a -> b -> a, the paper's forward cycle.
        lambda_cycle_b: of b -> a -> b, the backward one.
        lambda_identity: of both identity terms, in parts of the cycle weights (the paper's .5
            where it has them).
        pool_size: images in each discriminator's pool.
    """

    batch_types = (ImagePair,)

    @checked
    def __init__(
        self,
        generator: Callable[[], nn.Module] = ResidualGenerator,
        discriminator: Callable[[], nn.Module] = PatchDiscriminator,
        *,
        loss: str | AdversarialLoss = "cyclegan_least_squares",
        lambda_gan: NonNegative = 1.0,
        lambda_cycle_a: NonNegative = 10.0,
        lambda_cycle_b: NonNegative = 10.0,
        lambda_identity: NonNegative = 0.0,
        pool_size: Natural = 50,
        **options: Any,
    ) -> None:
        if not lambda_gan + lambda_cycle_a + lambda_cycle_b:
            raise UnfitArgument(
                "lambda_gan",
                "is 0, and so are lambda_cycle_a and lambda_cycle_b: nothing is left to learn.",
            )
        super().__init__(generator, discriminator, loss=loss, **options)
        self.lambda_gan = lambda_gan
        self.lambda_cycle_a = lambda_cycle_a
        self.lambda_cycle_b = lambda_cycle_b
        self.lambda_identity = lambda_identity
        self.pools = {"a": ImagePool(pool_size), "b": ImagePool(pool_size)}

    def phases(self) -> list[Phase]:
        discriminators, generators = super().phases()
        return [discriminators, generators] if self.lambda_gan else [generators]

    def shown_to_discriminator(self, fake: Translated) -> Translated:
        return Translated(a=self.pools["a"](fake.a), b=self.pools["b"](fake.b))

    def generator_loss(self, batch: ImagePair | PointPair, fake: Translated) -> Loss:
        terms, weighted = {}, []
        if self.lambda_gan:
            terms["game"] = self.adversarial.generator(
                self.discriminator_b(fake.b)
            ) + self.adversarial.generator(self.discriminator_a(fake.a))
            weighted.append(self.lambda_gan * terms["game"])
        if self.lambda_cycle_a:
            terms["cycle_a"] = F.l1_loss(self.generator_b2a(fake.b), batch.a)
            weighted.append(self.lambda_cycle_a * terms["cycle_a"])
        if self.lambda_cycle_b:
            terms["cycle_b"] = F.l1_loss(self.generator_a2b(fake.a), batch.b)
            weighted.append(self.lambda_cycle_b * terms["cycle_b"])
        if self.lambda_identity:
            of_a = F.l1_loss(self.generator_b2a(batch.a), batch.a)
            of_b = F.l1_loss(self.generator_a2b(batch.b), batch.b)
            terms["identity"] = of_a + of_b
            cycles = self.lambda_cycle_a * of_a + self.lambda_cycle_b * of_b
            weighted.append(self.lambda_identity * cycles)
        return torch.stack(weighted).sum(), terms

    def process_state(self) -> dict[str, Any]:
        pools = {
            domain: pool.images.cpu()
            for domain, pool in self.pools.items()
            if pool.images is not None
        }
        return super().process_state() | {"pools": pools}

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        super().load_process_state(state)
        for domain, images in state["pools"].items():
            self.pools[domain].images = images
