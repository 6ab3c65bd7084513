"""DiscoGAN: Kim et al. 2017, arXiv 1703.05192.

    L_G = L_GAN_B + L_const_A + L_GAN_A + L_const_B,    L_D = L_D_A + L_D_B
    L_GAN_B = -E[log D_B(G_AB(x_A))],    L_const_A = d(G_BA(G_AB(x_A)), x_A)
    L_D_B = -E[log D_B(x_B)] - E[log(1 - D_B(G_AB(x_A)))]                             (section 2)

Each generator has to fool the other domain's discriminator, and both together have to bring every
image back, which makes the relation a bijection. Nothing is paired. d is the mean squared error.

What the authors' code does beyond the paper, with an option for each: most of the generators' game
is feature matching (``feature_matching``), reconstruction has little weight at first
(``starting_rate``), and D trains in every third iteration alone and G in the others
(``d_interval``). ``experiment=paper/discogan`` is that code, at full width; by default the networks
have half of its channels, and batches are of 64 images (the paper: 200).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.data import ImagePair, PointPair
from gan_zoo.losses import feature_matching
from gan_zoo.models.translation import Translated, Translator
from gan_zoo.networks.discogan import DiscoGANDiscriminator, DiscoGANGenerator
from gan_zoo.ranges import Count, Natural, Share, UnfitArgument, checked
from gan_zoo.training.module import Loss, Phase


class DiscoGAN(Translator):
    """Translators with reconstruction in both directions.

        model = DiscoGAN()
        pl.Trainer(max_steps=1000).fit(model, loader)    # of ImagePair
        images = model.sample(64, source=images_a, direction="a2b")

    The generators minimise (1 - r) game + r reconstruction, each summed over the directions; the
    game is (1 - f) adversarial + f feature matching. r = .5 and f = 0 are the paper's sum, halved.
    Also logged: ``game``, ``reconstruction_a`` and ``reconstruction_b``.

    Args:
        generator, discriminator: factories of the networks; by default the authors' for 28 grey
            pixels. Feature matching needs discriminators with a method ``judge``, as theirs.
        reconstruction_rate: r.
        starting_rate: r in the first ``starting_steps`` iterations; None for no such start.
        starting_steps: how many those are.
        reconstruct: which domains' examples have to come back: "both", "a" or "b" alone (the
            paper's GAN with reconstruction, in which the other domain's discriminator plays alone,
            and the way back has to reconstruct and nothing else), or "none" (its standard GAN, of
            which the two directions are two).
        feature_matching: f.
        d_interval: 1 trains both players in every iteration; n > 1 the discriminators in every n-th
            and the generators in the others.
    """

    @checked
    def __init__(
        self,
        generator: Callable[[], nn.Module] = DiscoGANGenerator,
        discriminator: Callable[[], nn.Module] = DiscoGANDiscriminator,
        *,
        reconstruction_rate: Share = 0.5,
        starting_rate: Share | None = None,
        starting_steps: Natural = 10_000,
        reconstruct: Literal["both", "a", "b", "none"] = "both",
        feature_matching: Share = 0.0,
        d_interval: Count = 1,
        **options: Any,
    ) -> None:
        super().__init__(generator, discriminator, **options)
        if feature_matching and not hasattr(self.discriminator_a, "judge"):
            raise UnfitArgument(
                "feature_matching",
                "needs discriminators that tell their features, such as DiscoGANDiscriminator "
                "(model/discriminator=discogan).",
            )
        self.reconstruction_rate = reconstruction_rate
        self.starting_rate = starting_rate
        self.starting_steps = starting_steps
        self.reconstruct = ("a", "b") if reconstruct == "both" else (reconstruct,)
        if reconstruct in ("a", "b"):
            self.judged = ("b",) if reconstruct == "a" else ("a",)
        self.feature_matching = feature_matching
        self.d_interval = d_interval

    def phases(self) -> list[Phase]:
        discriminators, generators = super().phases()
        every = self.d_interval
        if every == 1:
            return [discriminators, generators]
        return [
            discriminators._replace(interval=every),
            generators._replace(interval=lambda iteration: iteration - iteration // every),
        ]

    def generator_loss(self, batch: ImagePair | PointPair, fake: Translated) -> Loss:
        rate = self.reconstruction_rate
        if self.starting_rate is not None and self.trainer.global_step < self.starting_steps:
            rate = self.starting_rate
        games = [
            self.game(getattr(batch, x), getattr(fake, x), self.get_submodule(f"discriminator_{x}"))
            for x in self.judged
        ]
        game = torch.stack(games).sum()
        terms = {"game": game}
        if "a" in self.reconstruct:
            terms["reconstruction_a"] = F.mse_loss(self.generator_b2a(fake.b), batch.a)
        if "b" in self.reconstruct:
            terms["reconstruction_b"] = F.mse_loss(self.generator_a2b(fake.a), batch.b)
        reconstruction = [value for name, value in terms.items() if name != "game"]
        if not reconstruction:
            return game, terms
        return (1 - rate) * game + rate * torch.stack(reconstruction).sum(), terms

    def game(self, real: Tensor, fake: Tensor, discriminator: Any) -> Tensor:
        """A generator's part against that discriminator: adversarial and feature matching."""
        share = self.feature_matching
        if not share:
            return self.adversarial.generator(discriminator(fake))
        logits, features = discriminator.judge(fake)
        with torch.no_grad():
            _, real_features = discriminator.judge(real)
        matching = feature_matching(real_features, features)
        return (1 - share) * self.adversarial.generator(logits) + share * matching
