"""What DiscoGAN and CycleGAN share: two generators between two domains, two discriminators.

Domains are named a and b; a2b is the generator from a to b, and so for everything else. Images of
the two are never paired in training.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gan_zoo.data import ImagePair, PointPair
from gan_zoo.data.base import BatchSource
from gan_zoo.losses import AdversarialLoss, adversarial_loss
from gan_zoo.models.noise_to_image import adam
from gan_zoo.models.passes import in_chunks, on_both
from gan_zoo.models.protocols import CHUNK, Generated
from gan_zoo.networks.layers import spectrally_normalised
from gan_zoo.plotting import interleaved, scatter_plots
from gan_zoo.randomness import some_rows
from gan_zoo.ranges import checked
from gan_zoo.training.averaging import has_batch_norm
from gan_zoo.training.module import AdversarialModule, Loss, OptimizerFactory, Phase

Direction = Literal["a2b", "b2a"]
DIRECTIONS: tuple[Direction, ...] = ("a2b", "b2a")
Domain = Literal["a", "b"]
_GRID_COLUMNS = 10


class Translated(NamedTuple):
    """What the generators made of a batch.

    Attributes:
        b: of the batch's a, for domain b.
        a: of the batch's b, for domain a.
    """

    b: Tensor
    a: Tensor


class Translator(AdversarialModule):
    """Two generators that translate between two domains, each judged by that domain's critic.

    Both generators are one player and both discriminators another, as in either paper's code.
    Logged: ``d_real`` and ``d_fake``, averaged over the domains; of the validation set
    ``val/cycle_a`` and ``val/cycle_b``, the mean absolute error of a -> b -> a and of b -> a -> b,
    and where the dataset knows the true counterparts also ``val/error_a2b`` and ``val/error_b2a``,
    that of the translations.

    Args:
        generator: makes a generator: images (B, C, H, W) or points (B, 2) -> the same shape.
        discriminator: makes a discriminator: the same -> logits.
        optimizer_g, optimizer_d: factories of the players' optimizers.
        loss: a name in gan_zoo.losses.ADVERSARIAL_LOSSES, or an AdversarialLoss.
        spectral_norm: whether the discriminators' layers are spectrally normalised.

    Attributes:
        judged: the domains whose discriminators play; both.
    """

    batch_types: ClassVar[tuple[type, ...]] = (ImagePair, PointPair)
    published: ClassVar[Mapping[tuple[str, str], str]] = {}
    steered: ClassVar[Mapping[str, tuple[tuple[float, ...], str]]] = {}
    targets: ClassVar[Mapping[str, tuple[float, float]]] = {}

    @checked
    def __init__(
        self,
        generator: Callable[[], nn.Module],
        discriminator: Callable[[], nn.Module],
        *,
        optimizer_g: OptimizerFactory = adam,
        optimizer_d: OptimizerFactory = adam,
        loss: str | AdversarialLoss = "non_saturating",
        spectral_norm: bool = False,
        **options: Any,
    ) -> None:
        generator_a2b, generator_b2a = generator(), generator()
        super().__init__(
            optimizers={"d": optimizer_d, "g": optimizer_g},
            averaged={"generator_a2b": ("g", generator_a2b), "generator_b2a": ("g", generator_b2a)},
            **options,
        )
        self.adversarial = adversarial_loss(loss)
        self.generator_a2b = generator_a2b
        self.generator_b2a = generator_b2a
        self.discriminator_a = discriminator()
        self.discriminator_b = discriminator()
        if spectral_norm:
            for network in (self.discriminator_a, self.discriminator_b):
                spectrally_normalised(network)
        self.judged: tuple[Domain, ...] = ("a", "b")
        self._has_batch_norm = has_batch_norm(self.discriminator_a)

    def players(self) -> dict[str, nn.Module]:
        return {
            "d": nn.ModuleList([self.discriminator_a, self.discriminator_b]),
            "g": nn.ModuleList([self.generator_a2b, self.generator_b2a]),
        }

    def phases(self) -> list[Phase]:
        return [
            Phase("d", "d", self.discriminator_loss),
            Phase("g", "g", self.generator_loss, through_generators=True),
        ]

    def generate(self, batch: ImagePair | PointPair) -> Translated:
        return Translated(b=self.generator_a2b(batch.a), a=self.generator_b2a(batch.b))

    def shown_to_discriminator(self, fake: Translated) -> Translated:
        """The generated examples that the discriminators train on."""
        return fake

    def discriminator_loss(self, batch: ImagePair | PointPair, fake: Translated) -> Loss:
        """The sum of the objectives of the discriminators that play."""
        fake = self.shown_to_discriminator(Translated(*(x.detach() for x in fake)))
        losses, real_outputs, fake_outputs = [], [], []
        for domain in self.judged:
            real_logits, fake_logits = on_both(
                self.get_submodule(f"discriminator_{domain}"),
                (getattr(batch, domain),),
                (getattr(fake, domain),),
                apart=self._has_batch_norm,
            )
            losses.append(self.adversarial.discriminator(real_logits, fake_logits))
            real_outputs.append(self.adversarial.output(real_logits.detach()).mean())
            fake_outputs.append(self.adversarial.output(fake_logits.detach()).mean())
        return torch.stack(losses).sum(), {
            "d_real": torch.stack(real_outputs),
            "d_fake": torch.stack(fake_outputs),
        }

    def generator_loss(self, batch: ImagePair | PointPair, fake: Translated) -> Loss:
        """Both generators' objective."""
        raise NotImplementedError

    @checked
    def sample(
        self,
        n: int,
        *,
        source: Tensor,
        direction: Direction = "a2b",
        ema: bool = True,
        chunk_size: int = 64,
    ) -> Tensor:
        """Translates in eval mode, without gradients.

        Args:
            n: how many of the source's examples, from the first on.
            source: (n or more, ...) examples of the domain that the direction starts from.
            ema: use the generators' moving averages where there are any.
            chunk_size: examples to translate at once.

        Returns:
            (n, ...) examples of the other domain, on the model's device.
        """
        if len(source) < n:
            raise ValueError(f"{n} examples are asked for, and the source has {len(source)}.")
        network = self.network(f"generator_{direction}", ema)
        return in_chunks([network], network, (source[:n].to(self.device),), chunk_size)

    def generated_images(
        self, n: int, source: BatchSource, generator: torch.Generator, ema: bool = True
    ) -> Iterator[dict[str, Generated]]:
        for rows in some_rows(len(source), n).split(CHUNK):
            batch = source.__getitems__(rows.tolist())
            yield {
                direction[2]: real._replace(
                    image=self.sample(
                        len(real.image), source=real.image, direction=direction, ema=ema
                    )
                )
                for direction, real in zip(
                    DIRECTIONS, self.real_images(batch).values(), strict=True
                )
            }

    def real_images(self, batch: ImagePair | PointPair) -> dict[str, Generated]:
        def labels(known: Tensor) -> Tensor | None:
            # Angles are no classes, and -1 is no class that is known.
            return None if known.is_floating_point() or (known < 0).any() else known

        return {
            "a": Generated(batch.a, labels(batch.label_a)),
            "b": Generated(batch.b, labels(batch.label_b)),
        }

    def certainty(self, terms: Mapping[str, float]) -> float | None:
        """See Watched."""
        return self.adversarial.certainty(terms)

    def validation_step(self, batch: ImagePair | PointPair, batch_idx: int) -> None:
        fake = self.generate(batch)
        errors = {
            "cycle_a": self.generator_b2a(fake.b) - batch.a,
            "cycle_b": self.generator_a2b(fake.a) - batch.b,
        }
        if getattr(self.trainer.datamodule, "aligned", False):  # type: ignore[attr-defined]
            errors |= {"error_a2b": fake.b - batch.b, "error_b2a": fake.a - batch.a}
        for name, error in errors.items():
            self.log(f"val/{name}", error.abs().mean(), batch_size=len(batch.a), sync_dist=True)

    def grid_inputs(
        self, generator: torch.Generator, examples: ImagePair | PointPair
    ) -> dict[str, Tensor]:
        """The examples that the grid translates."""
        inputs = {"a": examples.a, "b": examples.b}
        if isinstance(examples, PointPair):
            return inputs | {"label_a": examples.label_a, "label_b": examples.label_b}
        return {name: images[:_GRID_COLUMNS] for name, images in inputs.items()}

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        """Rows: a, translated, reconstructed; b, translated, reconstructed.

        Points are plotted: each domain with what the other's points, coloured by their modes, are
        translated to.
        """
        sets = []
        for there, back in (DIRECTIONS, DIRECTIONS[::-1]):
            source = inputs[there[0]].to(self.device)
            translated = self.sample(len(source), source=source, direction=there)
            again = self.sample(len(source), source=translated, direction=back)
            sets.append(torch.stack([source, translated, again], 1))
        (a, a2b, _), (b, b2a, _) = (s.unbind(1) for s in sets)
        if a.dim() == 2:
            panels = {
                "a to b": (b, a2b, inputs["label_a"]),
                "b to a": (a, b2a, inputs["label_b"]),
            }
            return scatter_plots(panels), 1
        columns = len(a)
        return torch.cat([interleaved(s, columns) for s in sets]), columns

    def real_grid(self, examples: ImagePair | PointPair) -> tuple[Tensor, int]:
        a, b = examples.a, examples.b
        if isinstance(examples, PointPair):
            panels = {"a": (a, a, examples.label_a), "b": (b, b, examples.label_b)}
            return scatter_plots(panels), 1
        columns = min(_GRID_COLUMNS, len(a))
        return interleaved(torch.stack((a, b), 1)[: 3 * columns], columns), columns
