"""The family of models that make images from noise: NoiseToImage, PenalisedGAN, ImageGAN.

NoiseToImage has one generator, one discriminator, sampling and grids, and leaves their losses open;
PenalisedGAN adds gradient penalties. ImageGAN is the game that most papers vary: an adversarial
loss on the discriminator's logits.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.data.base import BatchSource, ImageBatch
from gan_zoo.losses import AdversarialLoss, Penalty, adversarial_loss, gradient_penalty
from gan_zoo.models.passes import in_chunks, on_both
from gan_zoo.models.protocols import CHUNK, Generated
from gan_zoo.networks.layers import one_hot, spectrally_normalised
from gan_zoo.ranges import Count, NonNegative, Range, UnfitArgument, checked, refuse_unfit
from gan_zoo.training.averaging import has_batch_norm
from gan_zoo.training.module import AdversarialModule, Loss, OptimizerFactory, Phase

Noise = Callable[..., Tensor]
NetworkFactory = Callable[..., nn.Module]
adam = functools.partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))
uniform = functools.partial(nn.init.uniform_, a=-1.0, b=1.0)
normal = nn.init.normal_


class NoiseToImage(AdversarialModule):
    """A generator from noise (and a label) to images, and a discriminator; their losses are open.

    The generator runs forward once an iteration: the discriminator trains on its detached images,
    then the generator back-propagates through the same ones. (Goodfellow et al. 2014, Algorithm 1,
    draws fresh noise for the generator; the gradients have the same expectation up to the
    discriminator's one step.)

    Args:
        generator: (noise (B, latent_dim)[, label (B,)]) -> images (B, C, H, W) in [-1, 1]; by
            default the paper's, for MNIST. One with a buffer ``to_begin`` that is true, as
            MLPGenerator's ``marginal_bias``, has ``begin_at`` called with the mean of the data
            module's training images before its first iteration.
        discriminator: (images[, label]) -> what the model's losses take; by default the paper's.
        optimizer_g, optimizer_d: factories of the players' optimizers.
        noise: fills a tensor in place with the latent distribution, as torch.nn.init's functions
            do; takes ``generator=``.
        latent_dim: length of the noise vector.
        num_classes: number of classes that both networks are conditioned on; None for none.
        n_critic: the discriminator's steps to one of the generator (k in 1406.2661, Algorithm 1).
        spectral_norm: whether the discriminators' layers are spectrally normalised.
        averaged: more networks to average than the generator; see AdversarialModule.

    Attributes:
        paper_networks: the default networks: (latent_dim[, num_classes]) -> generator, and
            ([num_classes]) -> discriminator.
    """

    paper_networks: ClassVar[tuple[NetworkFactory, NetworkFactory]]
    batch_types: ClassVar[tuple[type, ...]] = (ImageBatch,)
    published: ClassVar[Mapping[tuple[str, str], str]] = {}
    steered: ClassVar[Mapping[str, tuple[tuple[float, ...], str]]] = {}
    targets: Mapping[str, tuple[float, float]] = {}

    @checked
    def __init__(
        self,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        optimizer_g: OptimizerFactory = adam,
        optimizer_d: OptimizerFactory = adam,
        noise: Noise = uniform,
        latent_dim: Count = 100,
        num_classes: Count | None = None,
        n_critic: Count = 1,
        spectral_norm: bool = False,
        averaged: Mapping[str, tuple[str, nn.Module]] | None = None,
        **options: Any,
    ) -> None:
        condition = {} if num_classes is None else {"num_classes": num_classes}
        if generator is None:
            generator = self.paper_networks[0](latent_dim, **condition)
        if discriminator is None:
            discriminator = self.paper_networks[1](**condition)
        if num_classes is not None:
            _refuse_without_labels("generator", generator)
            _refuse_without_labels("discriminator", discriminator)
        super().__init__(
            optimizers={"d": optimizer_d, "g": optimizer_g},
            averaged={"generator": ("g", generator), **(averaged or {})},
            **options,
        )
        try:
            noise(torch.empty(1), generator=torch.Generator())
        except RuntimeError as error:
            raise UnfitArgument("noise", f"can't be drawn: {error}") from error
        self.generator = generator
        self.spectral_norm = spectral_norm
        self.discriminator = self.normalised(discriminator)
        # Hydra's partials judge their target at each call, which takes longer than to draw.
        bound: Any = noise
        if isinstance(bound, functools.partial):
            noise = functools.partial(bound.func, *bound.args, **bound.keywords)
        self.noise = noise
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.n_critic = n_critic

    def normalised(self, discriminator: nn.Module) -> nn.Module:
        """A discriminator, spectrally normalised where that is asked for."""
        return spectrally_normalised(discriminator) if self.spectral_norm else discriminator

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if not getattr(self.generator, "to_begin", False):
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise UnfitArgument("marginal_bias", "is true, and needs a data module's images.")
        n = len(data.train)
        parts = (range(begin, min(begin + CHUNK, n)) for begin in range(0, n, CHUNK))
        mean = sum(data.train.__getitems__(part).image.sum(0) for part in parts) / n
        for network in {self.generator, self.network("generator")}:
            cast(Any, network).begin_at(mean)

    def players(self) -> dict[str, nn.Module]:
        return {"d": self.discriminator, "g": self.generator}

    def phases(self) -> list[Phase]:
        return [
            Phase("d", "d", self.discriminator_loss),
            Phase("g", "g", self.generator_loss, self.n_critic, through_generators=True),
        ]

    def generate(self, batch: ImageBatch) -> Any:
        noise = self.draw_noise(len(batch.image))
        return self._conditioned(self.generator, noise, batch.label)

    def discriminator_loss(self, batch: ImageBatch, fake: Any) -> Loss:
        """The discriminator's objective on real images and on detached generated ones."""
        raise NotImplementedError

    def generator_loss(self, batch: ImageBatch, fake: Any) -> Loss:
        """The generator's objective on images that it made."""
        raise NotImplementedError

    def discriminate(self, image: Tensor, label: Tensor) -> Tensor:
        """The discriminator's output for images, which are of these labels if it takes any."""
        return self._conditioned(self.discriminator, image, label)

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, latent_dim) from the latent distribution, on the model's device.

        With ``generator``, the noise is drawn on that generator's device and is the same on all.
        """
        device = self.device if generator is None else generator.device
        noise = torch.empty(n, self.latent_dim, device=device)
        return self.noise(noise, generator=generator).to(self.device)

    def certainty(self, terms: Mapping[str, float]) -> float | None:
        """See Watched."""
        return None

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        noise: Tensor | None = None,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        ema: bool = True,
        chunk_size: int = 500,
    ) -> Tensor:
        """Generates images in eval mode, without gradients.

        Args:
            n: how many.
            noise: (n, latent_dim); drawn where not given.
            labels: (n,) int64, for conditional models; by default 0, 1, ..., 9, 0, 1, ...; or
                weights of the classes, (n, num_classes).
            generator: source of the noise; torch's global one by default.
            ema: use the generator's moving average where there is one.
            chunk_size: images to make at once; bounds the memory, does not change the images.

        Returns:
            (n, C, H, W) in [-1, 1], on the model's device.
        """
        noise = self.draw_noise(n, generator) if noise is None else noise.to(self.device)
        labels = self._checked_labels(n, labels)
        network = self.network("generator", ema)
        return in_chunks(
            [network],
            lambda z, label: self.finished(self._conditioned(network, z, label)),
            (noise, labels),
            chunk_size,
        )

    def finished(self, images: Tensor) -> Tensor:
        """Images as people and metrics see them, from the generator's output."""
        return images

    def sample_inputs(
        self, asked: Mapping[str, Sequence[Any]], n: int | None, generator: torch.Generator
    ) -> dict[str, Any]:
        """``sample``'s arguments for samples that a user asks for: noise and conditions.

        Args:
            asked: condition -> its values as plain numbers; ``labels`` are repeated up to n.
            n: how many; by default one for each label, or 64.
            generator: source of the noise.
        """
        known = {"labels"} if self.num_classes else set()
        for name in asked.keys() - known:
            raise ValueError(
                f"This checkpoint's {type(self).__name__} takes no {name}: leave {name} out."
            )
        labels = asked.get("labels")
        n = n or len(labels or [0] * 64)
        inputs: dict[str, Any] = {"noise": self.draw_noise(n, generator)}
        if self.num_classes:
            labels = range(self.num_classes) if labels is None else labels
            if not labels:
                raise UnfitArgument("labels", "is []; it has to be whole numbers.")
            self._refuse_labels(labels)
            inputs["labels"] = torch.tensor(labels).repeat(-(-n // len(labels)))[:n]
        return inputs

    def sample_in_parts(
        self, inputs: Mapping[str, Any], ema: bool = True
    ) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """``sample`` of any number of its arguments, CHUNK at a time: these, and their images."""
        for begin in range(0, len(inputs["noise"]), CHUNK):
            part = {name: values[begin : begin + CHUNK] for name, values in inputs.items()}
            yield part, self.sample(len(part["noise"]), **part, ema=ema)

    def between(
        self, start: Mapping[str, Any], end: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        """``sample``'s arguments on the way between two of ``sample_inputs``' (share 0 and 1).

        Noise goes along the great circle (slerp), on which normal noise keeps its length; uniform
        noise goes there by way of the normal values of the same quantiles. Labels become weights of
        the classes.
        """
        inputs: dict[str, Any] = {"noise": self._noise_between(start["noise"], end["noise"], share)}
        if self.num_classes:
            first, last = (
                one_hot(x["labels"], self.num_classes, torch.float32) for x in (start, end)
            )
            inputs["labels"] = torch.lerp(first, last, share)
        return inputs

    def _noise_between(self, start: Tensor, end: Tensor, share: float) -> Tensor:
        bounds = uniform_bounds(self.noise)
        if bounds is None:
            return spherical(start, end, share)
        low, high = bounds
        # The ends' quantiles would be infinite.
        first, last = (
            torch.special.ndtri(((x - low) / (high - low)).clamp(1e-6, 1 - 1e-6))
            for x in (start, end)
        )
        met = spherical(first, last, share)
        return low + (high - low) * torch.special.ndtr(met)

    def generated_images(
        self, n: int, source: BatchSource, generator: torch.Generator, ema: bool = True
    ) -> Iterator[dict[str, Generated]]:
        """See Sampled."""
        for part, images in self.sample_in_parts(self.sample_inputs({}, n, generator), ema):
            yield self.by_domain(images, part.get("labels"))

    def real_images(self, batch: Any) -> dict[str, Generated]:
        """See Sampled."""
        return self.by_domain(batch.image, batch.label if self.num_classes else None)

    def by_domain(self, images: Tensor, labels: Tensor | None) -> dict[str, Generated]:
        """A chunk for ``generated_images``, from what ``sample`` gave for these labels."""
        return {"": Generated(images, labels)}

    def grid_inputs(self, generator: torch.Generator, examples: Any) -> dict[str, Tensor]:
        """Noise, and labels of conditional models: ``sample``'s keyword arguments.

        Conditional models show 8 noise vectors, a column each, under every class; the others 64.
        """
        noise = self.draw_noise(8 if self.num_classes else 64, generator)
        if not self.num_classes:
            return {"noise": noise}
        labels = torch.arange(self.num_classes, device=self.device).repeat_interleave(8)
        return {"noise": noise.repeat(self.num_classes, 1), "labels": labels}

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        """See Sampled."""
        return self.sample(len(inputs["noise"]), **inputs), 8

    def real_grid(self, examples: Any) -> tuple[Tensor, int]:
        """See Sampled."""
        return examples.image[:64], 8

    def _conditioned(self, network: nn.Module, x: Tensor, label: Tensor) -> Tensor:
        return network(x) if self.num_classes is None else network(x, label)

    def _checked_labels(self, n: int, labels: Tensor | None) -> Tensor:
        if self.num_classes is None:
            if labels is not None:
                raise ValueError("This model is unconditional: it takes no labels.")
            return torch.zeros(n, dtype=torch.int64)
        if labels is None:
            return torch.arange(n, device=self.device) % self.num_classes
        if len(labels) != n:
            raise UnfitArgument("labels", f"has {len(labels)} values for {n} images.")
        if labels.dim() == 2:
            return labels.to(self.device)
        if labels.min() < 0 or labels.max() >= self.num_classes:
            self._refuse_labels(labels.tolist())
        return labels.to(self.device)

    def _refuse_labels(self, labels: Sequence[Any]) -> None:
        assert self.num_classes is not None
        for place, label in enumerate(labels):
            kind = Annotated[int, Range(0, self.num_classes - 1)]
            refuse_unfit(f"labels[{place}]", label, kind)


class PenalisedGAN(NoiseToImage):
    """NoiseToImage with a gradient penalty on the discriminator; its losses are open.

    Args:
        args: NoiseToImage's generator and discriminator; the latter gives logits.
        penalty: a name in gan_zoo.losses.GRADIENT_PENALTIES, a function like those, or None. It
            needs a discriminator without batch norm that is not compiled.
        lambda_gp: weight of the penalty.
        penalty_interval: 1 adds the penalty to each discriminator loss; n > 1 makes it a phase of
            its own in every n-th iteration, weighted n-fold (Karras et al. 2020, 1912.04958,
            section 3.1).
    """

    @checked
    def __init__(
        self,
        *args: Any,
        penalty: str | Penalty | None = None,
        lambda_gp: NonNegative = 10.0,
        penalty_interval: Count = 1,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.penalty = gradient_penalty(penalty)
        self.lambda_gp = lambda_gp
        self.penalty_interval = penalty_interval
        self._has_batch_norm = has_batch_norm(self.discriminator)
        if self.penalty is not None:
            _refuse_penalty(self.discriminator)
            if penalty_interval > 1 and self.accumulate_grad_batches > 1:
                # Gradients of two phases of one player would be added up over different iterations.
                raise UnfitArgument(
                    "accumulate_grad_batches",
                    f"is {self.accumulate_grad_batches}; with model.penalty_interval="
                    f"{penalty_interval} it has to be 1 (model.penalty_interval=1 adds the penalty "
                    "to each loss).",
                )

    def phases(self) -> list[Phase]:
        discriminator, generator = super().phases()
        if self.penalty is None or self.penalty_interval == 1:
            return [discriminator, generator]
        lazy = Phase("penalty", "d", self.penalty_loss, self.penalty_interval)
        return [discriminator, lazy, generator]

    def with_penalty(self, loss: Loss, batch: ImageBatch, fake: Tensor) -> Loss:
        """The discriminator's loss and terms, with the penalty's where it is due each iteration."""
        if self.penalty is None or self.penalty_interval > 1:
            return loss
        penalty, terms = self.penalty_loss(batch, fake)
        return loss[0] + penalty, loss[1] | terms

    def penalty_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        """The gradient penalty times lambda_gp and its interval; its terms are unweighted."""
        if self.penalty is None:
            raise ValueError("This model has no gradient penalty.")
        value, norms = self.penalty(
            lambda image: self.discriminate(image, batch.label), batch.image, fake.detach()
        )
        terms = {"penalty": value, "gradient_norm": norms}
        return self.penalty_interval * self.lambda_gp * value, terms

    def logits_of_both(self, batch: ImageBatch, fake: Tensor) -> Sequence[Tensor]:
        """The discriminator's logits of real and of generated images.

        They are judged in one pass, or in two where it has batch norm, which would mix them.
        """
        return on_both(
            self.discriminate,
            (batch.image, batch.label),
            (fake, batch.label),
            apart=self._has_batch_norm,
        )


class ImageGAN(PenalisedGAN):
    """PenalisedGAN with an adversarial loss on the discriminator's logits.

    Args:
        args: NoiseToImage's generator and discriminator; the latter gives logits.
        loss: a name in gan_zoo.losses.ADVERSARIAL_LOSSES, or an AdversarialLoss.
        packing: how many images the discriminator judges at once, as channels of one, all real or
            all generated: PacGAN (Lin et al. 2017, 1712.04086, section 3). It takes a discriminator
            of so many times the channels, batches that can be divided by it, and neither labels nor
            a penalty.

    Attributes:
        packs: whether ``packing`` may be above 1.
    """

    packs: ClassVar[bool] = True

    @checked
    def __init__(
        self,
        *args: Any,
        loss: str | AdversarialLoss = "non_saturating",
        packing: Count = 1,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.adversarial = adversarial_loss(loss)
        self.packing = packing
        if packing > 1 and not self.packs:
            raise UnfitArgument("packing", f"is {packing}; {type(self).__name__} takes 1 alone.")
        if packing > 1 and (self.num_classes is not None or self.penalty is not None):
            what = (
                "labels" if self.num_classes is not None else "a penalty of each image's gradient"
            )
            raise UnfitArgument("packing", f"is {packing}; with {what} it has to be 1.")

    def discriminate(self, image: Tensor, label: Tensor) -> Tensor:
        if self.packing == 1:
            return super().discriminate(image, label)
        # The last batch of images held out may be shorter.
        image = image[: len(image) // self.packing * self.packing]
        return self.discriminator(image.unflatten(0, (-1, self.packing)).flatten(1, 2))

    def discriminator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        fake = fake.detach()
        if len(fake) % self.packing:
            raise ValueError(
                f"model.packing={self.packing} takes batches that can be divided by it, and "
                f"dataset.batch_size is {len(fake)}."
            )
        return self.discriminator_objective(batch, fake, *self.logits_of_both(batch, fake))

    def discriminator_objective(
        self, batch: ImageBatch, fake: Tensor, real_logits: Tensor, fake_logits: Tensor
    ) -> Loss:
        """The adversarial loss of these logits, and the penalty where it is due each iteration."""
        loss = self.adversarial.discriminator(real_logits, fake_logits)
        with torch.no_grad():
            terms = {
                "d_real": self.adversarial.output(real_logits),
                "d_fake": self.adversarial.output(fake_logits),
            }
        return self.with_penalty((loss, terms), batch, fake)

    def generator_loss(self, batch: ImageBatch, fake: Tensor) -> Loss:
        return self.adversarial.generator(self.discriminate(fake, batch.label)), {}

    def certainty(self, terms: Mapping[str, float]) -> float | None:
        return self.adversarial.certainty(terms)

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """D on held-out real images: below ``train/d_real`` where D knows those by heart."""
        logits = self.discriminate(batch.image, batch.label)
        if not len(logits):
            return
        value = self.adversarial.output(logits).mean()
        self.log("val/d_real", value, batch_size=len(batch.image), sync_dist=True)


def uniform_bounds(noise: Noise) -> tuple[float, float] | None:
    """The ends of a uniform distribution; None for any other noise."""
    if getattr(noise, "func", noise) is not nn.init.uniform_:
        return None
    given = getattr(noise, "keywords", {})
    return given.get("a", 0.0), given.get("b", 1.0)


def spherical(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Rows (N, D) between those of two tensors, by Shoemake's slerp (1985); shares 0 and 1 end it.

    Rows in the same or the opposite direction have no single great circle; they go straight.
    """
    directions = F.normalize(start, dim=1), F.normalize(end, dim=1)
    angle = (directions[0] * directions[1]).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    straight = sine < 1e-4
    sine = torch.where(straight, 1.0, sine)
    round_ = ((1 - share) * angle).sin() / sine * start + (share * angle).sin() / sine * end
    return torch.where(straight, torch.lerp(start, end, share), round_)


def _refuse_without_labels(name: str, network: nn.Module) -> None:
    try:
        inspect.signature(network.forward).bind("inputs", "labels")
    except TypeError as error:
        raise UnfitArgument(
            name,
            f"is {type(network).__name__}, which takes no labels, and this model gives it some: "
            f"take one that does (model/{name}=dcgan_mnist, say), or a model without classes "
            "(model=gan, say).",
        ) from error


def _refuse_penalty(discriminator: nn.Module) -> None:
    if has_batch_norm(discriminator):
        raise UnfitArgument(
            "penalty",
            "is taken on each image alone, and batch norm in the discriminator mixes the images of "
            "a batch: drop the penalty (model.penalty=null), or the batch norm "
            "(model.discriminator.norm=false).",
        )
    for module in discriminator.modules():
        if isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl:
            raise UnfitArgument(
                "penalty",
                "differentiates the discriminator twice, which torch.compile's inductor can't: "
                "leave the discriminator uncompiled, or drop the penalty.",
            )
