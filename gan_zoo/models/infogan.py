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
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_zoo.data import ImageBatch
from gan_zoo.losses import categorical_information, gaussian_information
from gan_zoo.models.base import ImageGAN, Loss
from gan_zoo.networks.infogan import Categories, Codes, Posterior
from gan_zoo.ranges import NonNegative, Range, fits, refuse_unfit

# The sweep of a continuous code in the grid: beyond what it was trained on, as the paper's.
_SWEEP = torch.linspace(-2, 2, 9)


class Coded(NamedTuple):
    """Generated images and the codes that they were made from.

    Attributes:
        image: (B, C, H, W) in [-1, 1].
        codes: (B, K + L): the K categories as numbers, then the L continuous codes.
    """

    image: Tensor
    codes: Tensor


class Recogniser(Protocol):
    """A discriminator with InfoGAN's Q."""

    def recognise(self, image: Tensor) -> tuple[Tensor, Posterior]:
        """D's logits (B, 1) of images (B, C, H, W), and what Q reads from them."""


class InfoGAN(ImageGAN):
    """ImageGAN whose generator also takes codes, which its discriminator's Q reads.

    Logged beside the base's figures, in nats: ``mutual_information`` of the categorical codes
    beside its ceiling H(c), ``mutual_information_ceiling``, and ``mutual_information_continuous``.

    Args:
        discriminator: (images) -> logits (B, 1); a Recogniser too.
        categorical_codes: number of categories of each categorical code.
        continuous_codes: number of continuous codes.
        lambda_info: weight of the categorical codes' mutual information.
        lambda_info_continuous: weight of the continuous codes'.
        options: ImageGAN's. ``latent_dim`` is the noise's alone; the generator takes latent_dim +
            sum(categorical_codes) + continuous_codes values.

    Raises:
        ValueError: for codes or weights out of range, or no code at all.
    """

    def __init__(
        self,
        *,
        categorical_codes: Sequence[Categories] = (10,),
        continuous_codes: Codes = 2,
        lambda_info: float = 1.0,
        lambda_info_continuous: float = 1.0,
        **options: Any,
    ) -> None:
        refuse_unfit("model.categorical_codes", categorical_codes, Sequence[Categories])
        refuse_unfit("model.continuous_codes", continuous_codes, Codes)
        refuse_unfit("model.lambda_info", lambda_info, NonNegative)
        refuse_unfit("model.lambda_info_continuous", lambda_info_continuous, NonNegative)
        if not categorical_codes and not continuous_codes:
            raise ValueError("InfoGAN without codes is a GAN: model=dcgan trains one.")
        super().__init__(**options)
        self.categorical_codes = tuple(categorical_codes)
        self.continuous_codes = continuous_codes
        self.lambda_info = lambda_info
        self.lambda_info_continuous = lambda_info_continuous

    def draw_codes(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, K + L) from the codes' distributions; ``generator`` as draw_noise's."""
        device = self.device if generator is None else generator.device
        drawn = [
            torch.randint(count, (n, 1), generator=generator, device=device).float()
            for count in self.categorical_codes
        ]
        uniform = torch.rand(n, self.continuous_codes, generator=generator, device=device)
        return torch.cat([*drawn, 2 * uniform - 1], 1).to(self.device)

    def latent(self, noise: Tensor, codes: Tensor) -> Tensor:
        """The generator's input: noise, one-hot categorical codes, continuous codes."""
        categories = codes[:, : len(self.categorical_codes)].long().unbind(1)
        one_hot = [
            F.one_hot(category, count).to(noise.dtype)
            for category, count in zip(categories, self.categorical_codes, strict=True)
        ]
        return torch.cat([noise, *one_hot, codes[:, len(self.categorical_codes) :]], 1)

    def generate(self, batch: ImageBatch) -> Coded:
        n = len(batch.image)
        codes = self.draw_codes(n)
        return Coded(self.generator(self.latent(self.draw_noise(n), codes)), codes)

    def discriminator_loss(self, batch: ImageBatch, fake: Coded) -> Loss:  # type: ignore[override]
        image = fake.image.detach()
        real_logits = self.discriminate(batch.image, batch.label)
        fake_logits, posterior = self._recognise(image)
        loss, terms = self.discriminator_objective(batch, image, real_logits, fake_logits)
        information, more = self.information(fake.codes, posterior)
        return loss - information, terms | more

    def penalty_loss(self, batch: ImageBatch, fake: Any) -> Loss:
        return super().penalty_loss(batch, fake.image if isinstance(fake, Coded) else fake)

    def generator_loss(self, batch: ImageBatch, fake: Coded) -> Loss:  # type: ignore[override]
        logits, posterior = self._recognise(fake.image)
        information, _ = self.information(fake.codes, posterior)
        return self.adversarial.generator(logits) - information, {}

    def _recognise(self, image: Tensor) -> tuple[Tensor, Posterior]:
        return cast(Recogniser, self.discriminator).recognise(image)

    def information(self, codes: Tensor, posterior: Posterior) -> Loss:
        """The weighted lower bound on the mutual information of codes and images, and its parts."""
        total = codes.new_zeros(())
        terms = {}
        if self.categorical_codes:
            categories = codes[:, : len(self.categorical_codes)].long().unbind(1)
            parts = [
                categorical_information(*pair)
                for pair in zip(posterior.logits, categories, strict=True)
            ]
            terms["mutual_information"] = torch.stack(parts).sum()
            total = total + self.lambda_info * terms["mutual_information"]
        if self.continuous_codes:
            continuous = codes[:, len(self.categorical_codes) :]
            bound = gaussian_information(posterior.mean, posterior.log_std, continuous)
            terms["mutual_information_continuous"] = bound
            total = total + self.lambda_info_continuous * bound
        return total, terms

    def figures(self) -> dict[str, Tensor]:
        if not self.categorical_codes:
            return {}
        ceiling = sum(math.log(count) for count in self.categorical_codes)
        return {"mutual_information_ceiling": torch.tensor(ceiling)}

    def sample(
        self,
        n: int,
        *,
        noise: Tensor | None = None,
        codes: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """As ImageGAN's, with ``codes`` (n, K + L), drawn where not given.

        Raises:
            ValueError: for codes of another shape.
        """
        noise = self.draw_noise(n, generator) if noise is None else noise.to(self.device)
        codes = self.draw_codes(n, generator) if codes is None else codes.to(self.device)
        expected = (n, len(self.categorical_codes) + self.continuous_codes)
        if codes.shape != expected:
            raise ValueError(f"codes have the shape {tuple(codes.shape)}; it has to be {expected}.")
        return super().sample(n, noise=self.latent(noise, codes), **options)

    def sample_inputs(
        self, asked: Mapping[str, Sequence[Any]], n: int | None, generator: torch.Generator
    ) -> dict[str, Any]:
        """As ImageGAN's, with ``codes``: for each code a value, a list of values, or None.

        Lists are combined, the last one varying fastest; the combinations go round until there are
        n. One round has one noise vector and one draw of the codes that are None.
        """
        codes = asked.get("codes")
        inputs = super().sample_inputs(
            {k: v for k, v in asked.items() if k != "codes"}, n, generator
        )
        if codes is None:
            return inputs | {"codes": self.draw_codes(len(inputs["noise"]), generator)}
        combinations = torch.tensor(list(itertools.product(*self._choices(codes))))
        n = n or len(combinations)
        rounds = -(-n // len(combinations))
        chosen = combinations.repeat(rounds, 1)[:n].to(self.device)
        drawn, noise = (
            draw(rounds, generator).repeat_interleave(len(combinations), 0)[:n]
            for draw in (self.draw_codes, self.draw_noise)
        )
        return {"noise": noise, "codes": torch.where(chosen.isnan(), drawn, chosen)}

    def grid_inputs(self, generator: torch.Generator, examples: Any) -> dict[str, Tensor]:
        """One noise vector under every category of the first code, a row each, and, a block of
        columns for each continuous code, its sweep from -2 to 2 with the others at 0.

        Without categorical codes a row is a noise vector of its own, without continuous ones a
        column is.
        """
        rows = self.categorical_codes[0] if self.categorical_codes else 8
        columns = self._grid_columns()
        noise_rows = 1 if self.categorical_codes else rows
        noise_columns = 1 if self.continuous_codes else columns
        noise = self.draw_noise(noise_rows * noise_columns, generator)
        noise = noise.view(noise_rows, noise_columns, -1).expand(rows, columns, -1)
        codes = torch.zeros(rows, columns, len(self.categorical_codes) + self.continuous_codes)
        if self.categorical_codes:
            codes[:, :, 0] = torch.arange(rows)[:, None]
        for code in range(self.continuous_codes):
            block = slice(code * len(_SWEEP), (code + 1) * len(_SWEEP))
            codes[:, block, len(self.categorical_codes) + code] = _SWEEP
        return {"noise": noise.flatten(0, 1), "codes": codes.flatten(0, 1)}

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        return super().sample_grid(inputs)[0], self._grid_columns()

    def _grid_columns(self) -> int:
        return self.continuous_codes * len(_SWEEP) or 8

    def _choices(self, codes: Sequence[Any]) -> list[list[float]]:
        expected = len(self.categorical_codes) + self.continuous_codes
        if len(codes) != expected:
            raise ValueError(
                f"codes={list(codes)}: this model has {expected} codes, the categorical ones first "
                f"({', '.join(map(str, self.categorical_codes)) or 'none'} categories), so that "
                "many values, lists of values or nulls are wanted."
            )
        choices = []
        for code, values in zip(
            itertools.chain(self.categorical_codes, [0] * self.continuous_codes), codes, strict=True
        ):
            values = values if isinstance(values, Sequence) else [values]
            for value in values:
                kind = Annotated[int, Range(0, code - 1)] if code else float
                if not fits(value, kind | None):
                    wanted = f"a whole number from 0 to {code - 1}" if code else "a number"
                    raise ValueError(f"codes={list(codes)}: {value} has to be {wanted}, or null.")
            if not values:
                raise ValueError(f"codes={list(codes)}: an empty list chooses nothing.")
            choices.append([math.nan if value is None else float(value) for value in values])
        return choices
