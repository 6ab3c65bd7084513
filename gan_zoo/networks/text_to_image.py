"""What the networks of StackGAN (1612.03242) and StackGAN++ (1710.10916) share.

Generators take noise and caption embeddings (B, embedding_dim) and return ``ScaleImages``; images
are (B, C, H, W) in [-1, 1]. The noise ends with the ``condition_dim`` standard normal values that
conditioning augmentation adds, where it is on. ``embedding_dim``, ``condition_dim`` and ``augment``
are ``ConditioningAugmentation``'s; an ``embedding_dim`` of None is for data without captions.
``image_size`` is that of the final images, which are ``factor`` times, a power of two, as large as
those that a network makes or judges.
"""

import itertools
from typing import NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.networks import layers
from gan_zoo.ranges import Count, checked


class ScaleImages(NamedTuple):
    """Images at each of a generator's scales, the coarsest first, and the conditions' distribution.

    mu and log sigma^2 are (B, condition_dim), or None without text or conditioning augmentation.
    """

    images: tuple[Tensor, ...]
    mean: Tensor | None = None
    log_variance: Tensor | None = None


class ConditioningAugmentation(nn.Module):
    """StackGAN's section 3.2: the condition c = mu(phi) + sigma(phi) eps of an embedding phi.

        condition, mean, log_variance = ConditioningAugmentation()(caption, eps)  # (B, 32) each

    ``embedding_dim`` and ``condition_dim`` are the lengths of phi and c. Without ``augment``, c =
    mu(phi). ``gated`` is through a gated linear unit, as in StackGAN++'s code, not a linear layer.
    """

    @checked
    def __init__(
        self,
        embedding_dim: Count = 64,
        condition_dim: Count = 32,
        augment: bool = True,
        gated: bool = False,
    ) -> None:
        super().__init__()
        width = condition_dim * (2 if augment else 1)
        self.condition_dim = condition_dim
        self.augment = augment
        self.gated = gated
        self.linear = nn.Linear(embedding_dim, 2 * width if gated else width)

    def initialise(self) -> None:
        """mu of about unit variance over captions, sigma 1 for any."""
        _keep_variance(self.linear)
        if self.augment:
            nn.init.zeros_(self.linear.weight[self.condition_dim : 2 * self.condition_dim])

    def forward(self, caption: Tensor, eps: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """c, mu and log sigma^2, each (B, condition_dim) as eps; mu and log sigma^2 may be None.

        Without augmentation these are None, and eps, standard normal values, is not used.
        """
        values = self.linear(caption)
        values = F.glu(values, 1) if self.gated else values
        if not self.augment:
            return values, None, None
        mean, log_variance = values.chunk(2, 1)
        return mean + (0.5 * log_variance).exp() * eps, mean, log_variance


def _keep_variance(linear: nn.Linear) -> None:
    """For layers of embeddings: N(0, .02) suits the authors' 1024 values but is weak for 64."""
    nn.init.normal_(linear.weight, 0.0, linear.in_features**-0.5)
    nn.init.zeros_(linear.bias)


class TextDiscriminator(nn.Module):
    """Says whether images are real, by themselves and together with their captions.

        discriminator = TextDiscriminator()
        features = discriminator.features(torch.rand(16, 3, 32, 32))
        logits = discriminator.fits(features, torch.randn(16, 64))  # (16, 1)

    4x4 convolutions of stride 2 with LeakyReLU(.2), batch norm in all but the first, halve the
    image to a small map; each logit is read from it after one more layer. The caption is reduced to
    ``text_dim`` values (N_d of the paper), which join the map at every place. (The authors' later
    code joins the generator's mu instead; the paper has this layer.)

    ``joint_channels`` and ``joint_kernel_size`` are of the layer that joins image and caption (in
    the paper 512 channels; kernel size in StackGAN 1, in StackGAN++ 3). With ``reduced_channels``,
    layers of that kernel size and batch norm halve the small map's channels down to so many, as in
    the authors' code (512 there); None leaves the map as it is. ``unconditional`` adds a logit for
    the image by itself; without text there always is one. ``orthogonal`` is StackGAN++'s
    initialisation instead of N(0, .02).
    """

    @checked
    def __init__(
        self,
        channels: Count = 3,
        image_size: Count = 32,
        embedding_dim: Count | None = 64,
        factor: Count = 1,
        base_channels: Count = 32,
        text_dim: Count = 128,
        joint_channels: Count = 256,
        reduced_channels: Count | None = None,
        unconditional: bool = False,
        joint_kernel_size: Count = 1,
        orthogonal: bool = False,
    ) -> None:
        super().__init__()
        # Side of the images that it judges.
        self.image_size = layers.coarse_size(image_size, factor) if factor > 1 else image_size
        count = layers.count_halvings(image_size) - (factor.bit_length() - 1)
        side, width = self.image_size >> count, base_channels << (count - 1)
        halved = layers.halving_blocks(channels, base_channels, count)
        kernel = joint_kernel_size

        def same_size(width_in: int, width: int) -> list[nn.Module]:
            layer = nn.Conv2d(width_in, width, kernel, padding="same", bias=False)
            return layers.batch_normed(layer, layers.leaky_relu())

        body = list(itertools.chain(*halved))
        while reduced_channels is not None and width > reduced_channels:
            body += same_size(width, max(width // 2, reduced_channels))
            width = max(width // 2, reduced_channels)
        self.body = nn.Sequential(*body)
        alone = unconditional or embedding_dim is None
        self.alone = nn.Sequential(nn.Conv2d(width, 1, side), nn.Flatten()) if alone else None
        self.text: nn.Sequential | None = None
        if embedding_dim is not None:
            self.text = nn.Sequential(nn.Linear(embedding_dim, text_dim), layers.leaky_relu())
            joined = same_size(width + text_dim, joint_channels)
            self.joint = nn.Sequential(*joined, nn.Conv2d(joint_channels, 1, side), nn.Flatten())
        (layers.initialise_orthogonal if orthogonal else layers.initialise_normal)(self)
        if self.text is not None:
            _keep_variance(cast(nn.Linear, self.text[0]))

    def features(self, image: Tensor) -> Tensor:
        """The small map that logits are read from, of images of its size or larger."""
        if image.shape[-1] > self.image_size:
            image = F.adaptive_avg_pool2d(image, self.image_size)
        return self.body(image)

    def fits(self, features: Tensor, caption: Tensor) -> Tensor:
        """Logits (B, 1): are images of these features real, and captions (B, E) theirs?"""
        assert self.text is not None
        return self.joint(layers.join_condition(features, self.text(caption)))

    def real(self, features: Tensor) -> Tensor:
        """Logits (B, 1): are images of these features real, whatever they show?"""
        assert self.alone is not None
        return self.alone(features)
