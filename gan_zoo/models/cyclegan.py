"""CycleGAN: Zhu, Park, Isola and Efros 2017, arXiv 1703.10593.

    L = L_GAN(G, D_Y) + L_GAN(F, D_X) + lambda L_cyc(G, F)                                  (eq. 3)
    L_cyc = E[|F(G(x)) - x|_1] + E[|G(F(y)) - y|_1]                                         (eq. 2)

With X and Y called a and b here. L_GAN is least squares: G minimises E[(D(G(x)) - 1)^2], and D half
of E[(D(y) - 1)^2] + E[D(G(x))^2], which keeps D slower than G (section 4). The discriminators train
on images from a pool of the last 50 generated ones (section 4). Where colours should stay, an
identity term |G(y) - y|_1 of half the cycle's weight is added (section 5.2); the authors' first
code has it on by default.

Here the discriminators step before the generators, on the same forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_zoo.data import ImagePair, PointPair
from gan_zoo.models.base import Loss, Phase
from gan_zoo.models.translation import Translated, Translator
from gan_zoo.ranges import Natural, NonNegative, refuse_unfit


class ImagePool:
    """Generated images, old and new, for a discriminator to train on (Shrivastava et al. 2017).

    Until it is full it keeps each image and returns it. From then on each image is, by even odds,
    returned itself or put in the place of one drawn from the pool, which is returned.

    Args:
        size: how many to keep; 0 keeps none and returns what comes.

    Raises:
        ValueError: for a size below 0.
    """

    def __init__(self, size: int) -> None:
        refuse_unfit("model.pool_size", size, Natural)
        self.size = size
        self.images: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """(B, ...) detached images -> (B, ...) to train on."""
        if not self.size:
            return images
        # No image is drawn twice from as many as the pool has, so that all can be swapped at once.
        return torch.cat([self._swapped(chunk) for chunk in images.split(self.size)])

    def _swapped(self, images: Tensor) -> Tensor:
        # What a checkpoint brought back may lie on another device.
        self.images = images[:0] if self.images is None else self.images.to(images.device)
        room = self.size - len(self.images)
        kept, rest = images[:room], images[room:]
        if len(kept):
            self.images = torch.cat((self.images, kept))
        if not len(rest):
            return images
        old = torch.rand(len(rest)) < 0.5
        places = torch.randperm(self.size)[: len(rest)][old].to(images.device)
        positions = old.nonzero().squeeze(1).to(images.device)
        shown = rest.clone()
        shown[positions] = self.images[places]
        self.images[places] = rest[positions]
        return torch.cat((kept, shown))


class CycleGAN(Translator):
    """Translators with cycle consistency, image pools and an identity term.

    Logged beside Translator's figures, unweighted: ``game`` (both generators'), ``cycle_a`` (a -> b
    -> a), ``cycle_b`` and ``identity``, where their weights are not 0. The paper's ablation
    (section 5.1.4) is made by weights: cycle alone is lambda_gan=0, GAN alone both cycle weights 0,
    forward or backward cycle alone the other one 0.

    Args:
        lambda_gan: weight of the adversarial game; 0 trains no discriminators.
        lambda_cycle_a: of a -> b -> a, the paper's forward cycle.
        lambda_cycle_b: of b -> a -> b, the backward one.
        lambda_identity: of both identity terms, in parts of the cycle weights (the paper's .5
            where it has them).
        pool_size: images in each discriminator's pool.
        options: Translator's.

    Raises:
        ValueError: for a weight below 0, all weights 0, or a pool smaller than nothing.
    """

    batch_types = (ImagePair,)

    def __init__(
        self,
        *,
        lambda_gan: float = 1.0,
        lambda_cycle_a: float = 10.0,
        lambda_cycle_b: float = 10.0,
        lambda_identity: float = 0.0,
        pool_size: int = 50,
        **options: Any,
    ) -> None:
        weights = {
            "lambda_gan": lambda_gan,
            "lambda_cycle_a": lambda_cycle_a,
            "lambda_cycle_b": lambda_cycle_b,
            "lambda_identity": lambda_identity,
        }
        for option, weight in weights.items():
            refuse_unfit(f"model.{option}", weight, NonNegative)
        if not lambda_gan + lambda_cycle_a + lambda_cycle_b:
            raise ValueError(
                "model.lambda_gan, lambda_cycle_a and lambda_cycle_b are 0: nothing is left to "
                "learn."
            )
        super().__init__(**options)
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
