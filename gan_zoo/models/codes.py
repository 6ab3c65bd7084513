"""Models whose generator takes codes in addition to the noise: their codes, sampling and grids."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_zoo.data.base import ImageBatch
from gan_zoo.models.noise_to_image import ImageGAN
from gan_zoo.networks.layers import one_hot
from gan_zoo.plotting import titled
from gan_zoo.ranges import Range, UnfitArgument, checked, fits, shown

# The grid's values of a continuous code: beyond what it was trained on, as in the paper's figure.
_SWEEP = torch.linspace(-2, 2, 9)


class Codes(NamedTuple):
    """The codes of a generator, as rows of numbers: categories first, then values in [-1, 1].

    Attributes:
        categorical: number of categories of each categorical code.
        continuous: number of continuous codes.
    """

    categorical: tuple[int, ...]
    continuous: int

    @property
    def total(self) -> int:
        """K + L, how many codes there are."""
        return len(self.categorical) + self.continuous

    @property
    def entropy(self) -> float:
        """Of the categorical codes, in nats: the ceiling of their mutual information."""
        return sum(map(math.log, self.categorical))

    def split(self, codes: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """(B, K + L) -> K categories (B,) int64, and the continuous codes (B, L)."""
        places = len(self.categorical)
        return codes[:, :places].long().unbind(1), codes[:, places:]

    def draw(self, n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """(n, K + L) from the codes' distributions, uniform all of them."""
        categories = [
            torch.randint(count, (n, 1), generator=generator, device=device).float()
            for count in self.categorical
        ]
        uniform = torch.rand(n, self.continuous, generator=generator, device=device)
        return torch.cat([*categories, 2 * uniform - 1], 1)

    @property
    def width(self) -> int:
        """The number of values that the generator takes for them."""
        return sum(self.categorical) + self.continuous

    def as_vectors(self, codes: Tensor) -> Tensor:
        """(B, K + L) -> (B, width): categories as one-hot vectors, continuous codes as they are.

        Codes that are such vectors, as between two categories, stay.
        """
        if codes.shape[1] == self.width:
            return codes
        categories, continuous = self.split(codes)
        vectors = [
            one_hot(category, count, continuous.dtype)
            for category, count in zip(categories, self.categorical, strict=True)
        ]
        return torch.cat([*vectors, continuous], 1)

    def joined_to(self, noise: Tensor, codes: Tensor) -> Tensor:
        """The generator's input: noise, one-hot categorical codes, continuous codes."""
        return torch.cat([noise, self.as_vectors(codes)], 1)

    def combinations(self, asked: Sequence[Any]) -> Tensor:
        """All combinations (N, K + L) of the values asked for, the last code's varying fastest.

        Args:
            asked: for each code a value, a list of values, or None to have it drawn, which is nan
                in the result.

        Raises:
            UnfitArgument: for another number of codes, or a value that a code does not have.
        """
        if len(asked) != self.total:
            raise UnfitArgument(
                "codes",
                f"is {list(asked)}: this model has {self.total} codes, the categorical ones first "
                f"({', '.join(map(str, self.categorical)) or 'none'} categories); give as many "
                "values, lists of values or nulls.",
            )
        choices = []
        kinds = itertools.chain(self.categorical, [0] * self.continuous)
        for categories, values in zip(kinds, asked, strict=True):
            values = values if isinstance(values, Sequence) else [values]
            kind = Annotated[int, Range(0, categories - 1)] if categories else float
            for value in values:
                if not fits(value, kind | None):
                    expected = (
                        f"a whole number from 0 to {categories - 1}" if categories else "a number"
                    )
                    raise UnfitArgument(
                        "codes",
                        f"is {list(asked)}; {shown(value)} has to be {expected}, or null.",
                    )
            if not values:
                raise UnfitArgument("codes", f"is {list(asked)}: an empty list chooses nothing.")
            choices.append([math.nan if value is None else float(value) for value in values])
        return torch.tensor(list(itertools.product(*choices)))

    def sweep(self) -> Tensor:
        """The grid's codes (rows, columns, K + L).

        A row for each category of the first code, and side by side for each continuous code its
        sweep from -2 to 2 with the others at 0. Where there are none of a kind: 8 rows, 8 columns.
        """
        rows = self.categorical[0] if self.categorical else 8
        codes = torch.zeros(rows, self.continuous * len(_SWEEP) or 8, self.total)
        if self.categorical:
            codes[:, :, 0] = torch.arange(rows)[:, None]
        for code in range(self.continuous):
            block = slice(code * len(_SWEEP), (code + 1) * len(_SWEEP))
            codes[:, block, len(self.categorical) + code] = _SWEEP
        return codes


class CodedImages(NamedTuple):
    """Generated images and the codes that they were made from.

    Attributes:
        image: (B, C, H, W) in [-1, 1].
        codes: (B, K + L): the K categories as numbers, then the L continuous codes.
    """

    image: Tensor
    codes: Tensor


class CodedImageGAN(ImageGAN):
    """ImageGAN whose generator takes noise and codes.

    Args:
        generator: (noise, one-hot categories and continuous codes in one vector) -> images.
        codes: which codes there are.
    """

    packs = False

    @checked
    def __init__(self, generator: nn.Module, *args: Any, codes: Codes, **options: Any) -> None:
        super().__init__(generator, *args, **options)
        self.codes = codes

    def draw_codes(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, K + L) from the codes' distributions; ``generator`` as draw_noise's."""
        device = self.device if generator is None else generator.device
        return self.codes.draw(n, generator, device).to(self.device)

    def generate(self, batch: ImageBatch) -> CodedImages:
        codes = self.draw_codes(len(batch.image))
        noise = self.draw_noise(len(codes))
        return CodedImages(self.generator(self.codes.joined_to(noise, codes)), codes)

    def sample(
        self,
        n: int,
        *,
        noise: Tensor | None = None,
        codes: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """As ImageGAN's, with ``codes`` (n, K + L), drawn where not given; see Codes.as_vectors."""
        noise = self.draw_noise(n, generator) if noise is None else noise.to(self.device)
        codes = self.draw_codes(n, generator) if codes is None else codes.to(self.device)
        if codes.shape not in ((n, self.codes.total), (n, self.codes.width)):
            raise UnfitArgument(
                "codes", f"is {tuple(codes.shape)}; it has to be {(n, self.codes.total)}."
            )
        return super().sample(n, noise=self.codes.joined_to(noise, codes), **options)

    def sample_inputs(
        self, asked: Mapping[str, Sequence[Any]], n: int | None, generator: torch.Generator
    ) -> dict[str, Any]:
        """As ImageGAN's, with ``codes``: see Codes.combinations, which are repeated up to n.

        One round of combinations has one noise vector, and one draw of the codes that are None.
        """
        codes = asked.get("codes")
        inputs = super().sample_inputs(
            {k: v for k, v in asked.items() if k != "codes"}, n, generator
        )
        if codes is None:
            return inputs | {"codes": self.draw_codes(len(inputs["noise"]), generator)}
        combinations = self.codes.combinations(codes)
        n = n or len(combinations)
        rounds = -(-n // len(combinations))
        chosen = combinations.repeat(rounds, 1)[:n].to(self.device)
        drawn, noise = (
            draw(rounds, generator).repeat_interleave(len(combinations), 0)[:n]
            for draw in (self.draw_codes, self.draw_noise)
        )
        return {"noise": noise, "codes": torch.where(chosen.isnan(), drawn, chosen)}

    def between(
        self, start: Mapping[str, Any], end: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        """As NoiseToImage's; codes, categorical ones as one-hot vectors, go straight."""
        first, last = (self.codes.as_vectors(inputs["codes"]) for inputs in (start, end))
        return {**super().between(start, end, share), "codes": torch.lerp(first, last, share)}

    def grid_inputs(self, generator: torch.Generator, examples: Any) -> dict[str, Tensor]:
        """One noise vector under the codes' sweep.

        Without categorical codes a row is a noise vector of its own, without continuous ones a
        column is.
        """
        codes = self.codes.sweep()
        rows, columns, _ = codes.shape
        noise_rows = 1 if self.codes.categorical else rows
        noise_columns = 1 if self.codes.continuous else columns
        noise = self.draw_noise(noise_rows * noise_columns, generator)
        noise = noise.view(noise_rows, noise_columns, -1).expand(rows, columns, -1)
        return {"noise": noise.flatten(0, 1), "codes": codes.flatten(0, 1)}

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        """A grid for each continuous code, which its columns sweep; or one, of more noise."""
        images = super().sample_grid(inputs)[0]
        rows, columns, _ = self.codes.sweep().shape
        across = images.unflatten(0, (rows, columns))
        if not self.codes.continuous:
            return titled({"columns: noise": images}, columns), 1
        first, last = _SWEEP[[0, -1]].tolist()
        blocks = {
            f"continuous code {number}: {first:g} to {last:g}": block.flatten(0, 1)
            for number, block in enumerate(across.split(len(_SWEEP), 1), start=1)
        }
        return titled(blocks, len(_SWEEP)), 1
