"""Fully connected networks: a simple GAN's, and those of the GAN and cGAN papers.

``weight_range`` initialises weights from U(-weight_range, weight_range), and biases at 0, as the
2014 networks do; None keeps torch's own initialisation. ``unit_range`` has pixels in [0, 1], as the
2014 papers do: a discriminator rescales its input, which makes it smaller, and a dropped pixel
background, not grey; a generator ends in the papers' sigmoid, rescaled to [-1, 1], not in tanh, to
whose pixels the same weights would mean twice the logits.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gan_zoo.networks.layers import Chain, batch_normed, initialise_uniform, one_hot
from gan_zoo.ranges import Count, Positive, Share, UnfitArgument, checked


def _layers(
    features: int,
    hidden: Sequence[int],
    activation: nn.Module,
    norm: Sequence[bool],
    dropout: float = 0.0,
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width, normed in zip(hidden, norm, strict=True):
        layers += batch_normed(nn.Linear(features, width, bias=not normed), activation, norm=normed)
        if dropout:
            layers.append(nn.Dropout(dropout))
        features = width
    return layers


class _RescaledSigmoid(nn.Module):
    """2 sigmoid(x) - 1."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / 2).tanh()


def _to_image(features: int, channels: int, image_size: int, unit_range: bool) -> list[nn.Module]:
    shape = (channels, image_size, image_size)
    bounded = _RescaledSigmoid() if unit_range else nn.Tanh()
    return [nn.Linear(features, channels * image_size**2), bounded, nn.Unflatten(1, shape)]


class MLPGenerator(Chain):
    """A simple generator: LeakyReLU layers that widen, tanh at the end.

        images = MLPGenerator()(torch.rand(16, 256) * 2 - 1)  # (16, 1, 28, 28)

    Without ``norm``, batch norm in the hidden layers, it tends to make few digits; a list says it
    of each. With
    ``marginal_bias`` a GAN begins its training with ``begin_at`` the training images' mean.
    """

    to_begin: Tensor

    @checked
    def __init__(
        self,
        latent_dim: Count = 256,
        channels: Count = 1,
        image_size: Count = 28,
        hidden: Sequence[Count] = (256, 512, 1024),
        negative_slope: float = 0.2,
        norm: bool | Sequence[bool] = True,
        unit_range: bool = False,
        marginal_bias: bool = False,
        weight_range: Positive | None = None,
    ) -> None:
        normed = [norm] * len(hidden) if isinstance(norm, bool) else norm
        if len(normed) != len(hidden):
            problem = f"has {len(normed)} values for {len(hidden)} hidden layers."
            raise UnfitArgument("norm", problem)
        super().__init__(
            *_layers(latent_dim, hidden, nn.LeakyReLU(negative_slope), normed),
            *_to_image([latent_dim, *hidden][-1], channels, image_size, unit_range),
        )
        self.unit_range = unit_range
        # In checkpoints, so that what is resumed or begun with another run's weights keeps its own.
        if marginal_bias:
            self.register_buffer("to_begin", torch.tensor(True))
        initialise_uniform(self, weight_range)

    @torch.no_grad()
    def begin_at(self, mean: Tensor) -> None:
        """Sets the output's bias; with weights of 0 it would draw this (C, H, W) image in [-1, 1].

        Its logits in [0, 1], of pixels no nearer than 1e-7 to either end (pylearn2's
        init_sigmoid_bias_from_marginals, as the GAN paper's authors use it).
        """
        logits = ((mean.double() + 1) / 2).clamp(1e-7, 1 - 1e-7).logit()
        bias = cast(nn.Linear, self.net[-3]).bias
        bias.copy_((logits if self.unit_range else logits / 2).flatten())
        self.to_begin.fill_(False)


class MLPDiscriminator(Chain):
    """A simple discriminator.

        logits = MLPDiscriminator()(torch.rand(16, 1, 28, 28))  # (16, 1)

    LeakyReLU layers that narrow, each followed by dropout.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Count = 28,
        hidden: Sequence[Count] = (1024, 512, 256),
        negative_slope: float = 0.2,
        dropout: Share = 0.3,
    ) -> None:
        features, plain = channels * image_size**2, [False] * len(hidden)
        super().__init__(
            nn.Flatten(),
            *_layers(features, hidden, nn.LeakyReLU(negative_slope), plain, dropout),
            nn.Linear([features, *hidden][-1], 1),
        )


class Maxout(nn.Module):
    """Goodfellow et al. 2013 (1302.4389), eq. 1.

        hidden = Maxout(784, units=240, pieces=5)(torch.rand(16, 784))  # (16, 240)

    Each of the ``units`` is the maximum of several linear pieces.
    """

    @checked
    def __init__(self, in_features: Count, units: Count = 240, pieces: Count = 5) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, units * pieces)
        self.shape = (units, pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, self.shape).amax(2)


class MaxoutDiscriminator(Chain):
    """The discriminator of the GAN paper's MNIST experiment.

        logits = MaxoutDiscriminator(unit_range=True, weight_range=0.005)(torch.rand(16, 1, 28, 28))

    1406.2661 says maxout with dropout; the sizes are in its authors' code: two layers of 240 units
    of 5 pieces, dropout .2 on the image (``input_dropout``) and .5 on both layers, weights from
    U(-.005, .005).
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Count = 28,
        units: Count = 240,
        pieces: Count = 5,
        input_dropout: Share = 0.2,
        dropout: Share = 0.5,
        unit_range: bool = False,
        weight_range: Positive | None = None,
    ) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Dropout(input_dropout),
            Maxout(channels * image_size**2, units, pieces),
            nn.Dropout(dropout),
            Maxout(units, units, pieces),
            nn.Dropout(dropout),
            nn.Linear(units, 1),
        )
        self.unit_range = unit_range
        initialise_uniform(self, weight_range)

    def forward(self, image: Tensor) -> Tensor:
        return self.net((image + 1) / 2 if self.unit_range else image)


class ConditionalMLPGenerator(nn.Module):
    """The generator of the conditional GAN paper (1411.1784, section 4.1).

    Noise and one-hot label each pass through a ReLU layer of their own (200 and 1,000 units); a
    ReLU layer of 1,200 units joins them, and a linear one makes the image. The paper ends in a
    sigmoid on [0, 1], which ``unit_range`` has.

        digits = ConditionalMLPGenerator()(torch.rand(10, 100), torch.arange(10))  # (10, 1, 28, 28)

    ``norm`` is batch norm in the noise's and the joint layer, so that noise and label start with
    equal influence. The paper has none, but a dropout of .5; without it, Adam leads to one image
    per class.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 100,
        num_classes: Count = 10,
        channels: Count = 1,
        image_size: Count = 28,
        noise_units: Count = 200,
        label_units: Count = 1000,
        joint_units: Count = 1200,
        norm: bool = True,
        dropout: Share = 0.0,
        unit_range: bool = False,
        weight_range: Positive | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes

        def layer(features: int, units: int, norm: bool) -> list[nn.Module]:
            return _layers(features, [units], nn.ReLU(), [norm], dropout)

        self.noise_branch = nn.Sequential(*layer(latent_dim, noise_units, norm))
        self.label_branch = nn.Sequential(*layer(num_classes, label_units, False))
        self.joint = nn.Sequential(
            *layer(noise_units + label_units, joint_units, norm),
            *_to_image(joint_units, channels, image_size, unit_range),
        )
        initialise_uniform(self, weight_range)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        vector = one_hot(label, self.num_classes, noise.dtype)
        return self.joint(torch.cat([self.noise_branch(noise), self.label_branch(vector)], 1))


class ConditionalMaxoutDiscriminator(nn.Module):
    """The discriminator of the conditional GAN paper (1411.1784, section 4.1).

    Image and one-hot label each pass through a maxout layer of their own (240 units of 5 pieces, 50
    of 5); a maxout layer of 240 units of 4 pieces joins them, and a linear one makes the logit. The
    paper's dropout is .5. With ``weight_range`` the label's layer begins wider than the others, as
    the label is one input of 1 beside an image of many.

        logits = ConditionalMaxoutDiscriminator()(torch.rand(10, 1, 28, 28), torch.arange(10))
    """

    @checked
    def __init__(
        self,
        num_classes: Count = 10,
        channels: Count = 1,
        image_size: Count = 28,
        image_units: Count = 240,
        label_units: Count = 50,
        joint_units: Count = 240,
        dropout: Share = 0.5,
        unit_range: bool = False,
        weight_range: Positive | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.unit_range = unit_range
        self.image_branch = nn.Sequential(
            nn.Flatten(), Maxout(channels * image_size**2, image_units), nn.Dropout(dropout)
        )
        embedding = Maxout(num_classes, label_units)
        # A one-hot vector has one input that is not 0. With torch's initialisation, which expects
        # num_classes of them, or the image's range, the label has too little influence beside the
        # image to be learnt. A tenth of a digit's pixels are ink: with that many times the variance
        # both have about equal influence at first; with N(0, 1) beside 0.005, SGD diverged.
        pixels = channels * image_size**2
        std = 1.0 if weight_range is None else weight_range * math.sqrt(pixels / 10)
        nn.init.normal_(embedding.linear.weight, std=std)
        self.label_branch = nn.Sequential(embedding, nn.Dropout(dropout))
        self.joint = nn.Sequential(
            Maxout(image_units + label_units, joint_units, pieces=4),
            nn.Dropout(dropout),
            nn.Linear(joint_units, 1),
        )
        for part in (self.image_branch, self.joint):
            initialise_uniform(part, weight_range)
        if weight_range is not None:
            nn.init.zeros_(embedding.linear.bias)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        vector = one_hot(label, self.num_classes, image.dtype)
        image = (image + 1) / 2 if self.unit_range else image
        return self.joint(torch.cat([self.image_branch(image), self.label_branch(vector)], 1))
