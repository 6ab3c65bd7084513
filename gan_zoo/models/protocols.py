"""What a model offers besides training: to be sampled and measured, and to be watched.

Callbacks and commands know models by these protocols alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gan_zoo.data.base import BatchSource

# Images that ``generated_images`` gives at a time.
CHUNK = 500


class Generated(NamedTuple):
    """What a model generated in one domain, to be measured.

    Attributes:
        image: (N, C, H, W) in [-1, 1], or points (N, 2).
        label: (N,) int64, the classes that were asked for; None where none were.
    """

    image: Tensor
    label: Tensor | None = None


class Sampled(Protocol):
    """A model that is drawn from: for grids, metrics, and files.

    Attributes:
        config: the run's whole configuration as plain dicts.
        published: what the paper reports: (dataset, figure of ``evaluate``) -> its words.
        ema: the networks that have a moving average.
        counts: the training images seen as ``images_seen``, and each player's steps.
    """

    config: dict[str, Any]
    published: ClassVar[Mapping[tuple[str, str], str]]
    ema: nn.ModuleDict
    counts: dict[str, int]

    def share_buffers(self) -> None:
        """Copies rank 0's running statistics to all processes."""

    def sample(self, n: int, **options: Any) -> Tensor:
        """(n, ...) images in [-1, 1], in eval mode, without gradients; see the model's own."""

    def grid_inputs(self, generator: torch.Generator, examples: Any) -> dict[str, Tensor]:
        """What the model's sample grid keeps fixed through a run.

        Args:
            generator: source of randomness.
            examples: a batch of the data, on the model's device.
        """

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        """The model's most telling grid: images row by row, and how many make a row."""

    def real_grid(self, examples: Any) -> tuple[Tensor, int]:
        """Real images to hold the sample grid against."""

    def generated_images(
        self, n: int, source: BatchSource, generator: torch.Generator, ema: bool = True
    ) -> Iterator[dict[str, Generated]]:
        """What the model generates to be measured, in chunks of at most CHUNK images.

        Args:
            n: how many; a model that translates makes at most one of each of the source's images.
            source: held-out data, whose images are translated, or whose captions are drawn; where
                it has more than n, some that ``some_rows`` draws.
            generator: source of the noise.
            ema: use the moving averages where there are any.

        Returns:
            Domain ("a" and "b", or "" for the only one) -> its part of the chunk.
        """

    def real_images(self, batch: Any) -> dict[str, Generated]:
        """A batch of the data in the form that ``generated_images`` gives the model's own.

        Labels are only there where the model is asked for classes.
        """


class Watched(Protocol):
    """A model whose health can be watched from what it logs.

    Attributes:
        steered: logged terms that the model controls -> the bounds at which the control is lost,
            and what helps then.
        targets: logged terms that the objective drives into a range -> that range.
        logged: term -> its value at the last logging step, as ``train/<term>``.
    """

    steered: ClassVar[Mapping[str, tuple[tuple[float, ...], str]]]
    targets: Mapping[str, tuple[float, float]]
    logged: dict[str, float]

    def certainty(self, terms: Mapping[str, float]) -> float | None:
        """How sure the discriminator is of real and generated images; 1 has nothing left to learn.

        None where its outputs have no end to go to.

        Args:
            terms: as they are logged, with ``d_real`` and ``d_fake``.
        """
