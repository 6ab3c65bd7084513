"""The networks of StackGAN (1612.03242) and StackGAN++ (1710.10916): text to image, in steps.

Generators take noise and caption embeddings (B, embedding_dim) and give ``Drawn``; images are
(B, C, H, W) in [-1, 1]. The noise ends with the ``condition_dim`` standard normal values that
conditioning augmentation adds, where it is on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.networks.dcgan import halvings, initialise
from gan_zoo.ranges import Count, Few


class Drawn(NamedTuple):
    """What a generator made of noise and captions.

    Attributes:
        images: at each of its scales, the coarsest first.
        mean, log_variance: (B, condition_dim) of the conditions' distribution; None without text
            or conditioning augmentation.
    """

    images: tuple[Tensor, ...]
    mean: Tensor | None = None
    log_variance: Tensor | None = None


class ConditioningAugmentation(nn.Module):
    """StackGAN's section 3.2: the condition c = mu(phi) + sigma(phi) eps of an embedding phi.

    Args:
        embedding_dim: of the captions.
        condition_dim: of c.
        augment: False for c = mu(phi).
        gated: through a gated linear unit, as StackGAN++'s code has it; else one linear layer.
    """

    def __init__(
        self, embedding_dim: Count, condition_dim: Count, augment: bool = True, gated: bool = False
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
        """c, mu and log sigma^2, each (B, condition_dim), the last two None without augmentation.

        Args:
            caption: (B, embedding_dim).
            eps: (B, condition_dim) standard normal; not looked at without augmentation.
        """
        values = self.linear(caption)
        if self.gated:
            values = F.glu(values, 1)
        if not self.augment:
            return values, None, None
        mean, log_variance = values.chunk(2, 1)
        return mean + (0.5 * log_variance).exp() * eps, mean, log_variance


def _keep_variance(linear: nn.Linear) -> None:
    """For what embeddings enter: N(0, .02), meant for the authors' 1024 values, is faint for 64."""
    nn.init.normal_(linear.weight, 0.0, linear.in_features**-0.5)
    nn.init.zeros_(linear.bias)


def _doubled(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width_in, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    """x + two 3x3 convolutions with batch norm; ``gated`` has a GLU between them, else a ReLU."""

    def __init__(self, width: int, gated: bool = False) -> None:
        super().__init__()
        inner = 2 * width if gated else width
        self.net = nn.Sequential(
            nn.Conv2d(width, inner, 3, 1, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.GLU(1) if gated else nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.net(x)
        return x if self.gated else F.relu(x)


def _beside(maps: Tensor, condition: Tensor) -> Tensor:
    """Maps (B, W, H, W') with a condition (B, D) repeated at every place: (B, W + D, H, W')."""
    tiled = condition[:, :, None, None].expand(-1, -1, *maps.shape[2:])
    return torch.cat([maps, tiled], 1)


def coarse_size(image_size: int, factor: int) -> int:
    """The side of Stage I's images.

    Raises:
        ValueError: unless the factor is a power of two that leaves 8 pixels or more.
    """
    if factor < 2 or factor & (factor - 1) or image_size % factor or image_size // factor < 8:
        raise ValueError(
            f"model.generator.factor is {factor}; it has to be a power of two that divides the "
            f"image's {image_size} pixels and leaves 8 or more."
        )
    return image_size // factor


class StageOneGenerator(nn.Module):
    """StackGAN's Stage I: noise and condition -> a small map -> doubled to the coarse image.

    A linear layer with batch norm, then nearest-neighbour doublings with 3x3 convolutions, batch
    norm and ReLU, then a 3x3 convolution and tanh; the authors' code has a residual block on the
    first map, and so has this.

    Args:
        latent_dim: length of z; the noise is (B, latent_dim + condition_dim).
        embedding_dim, condition_dim, augment: as ConditioningAugmentation's.
        channels, image_size: shape of the final images.
        factor: how many times as large those are as these.
        base_channels: channels of the last hidden map; they double towards the first (the paper:
            64, of 1024).

    Raises:
        ValueError: for a size that doublings can't make.
    """

    def __init__(
        self,
        latent_dim: Count,
        embedding_dim: Count,
        condition_dim: Count,
        channels: Count,
        image_size: Count,
        factor: Count,
        base_channels: Count = 32,
        augment: bool = True,
    ) -> None:
        super().__init__()
        side = coarse_size(image_size, factor)
        doublings = halvings(side)
        first, width = side >> doublings, base_channels << doublings
        self.latent_dim = latent_dim
        self.condition = ConditioningAugmentation(embedding_dim, condition_dim, augment)
        self.project = nn.Sequential(
            nn.Linear(latent_dim + condition_dim, width * first**2, bias=False),
            nn.BatchNorm1d(width * first**2),
            nn.Unflatten(1, (width, first, first)),
            _Residual(width),
        )
        self.up = nn.Sequential(*(_doubled(width >> i, width >> i + 1) for i in range(doublings)))
        self.to_image = nn.Sequential(nn.Conv2d(base_channels, channels, 3, 1, 1), nn.Tanh())
        initialise(self)
        self.condition.initialise()

    def forward(self, noise: Tensor, caption: Tensor) -> Drawn:
        latent, eps = noise[:, : self.latent_dim], noise[:, self.latent_dim :]
        condition, mean, log_variance = self.condition(caption, eps)
        maps = self.up(self.project(torch.cat([condition, latent], 1)))
        return Drawn((self.to_image(maps),), mean, log_variance)


class StageTwoGenerator(nn.Module):
    """StackGAN's Stage II: a coarse image and its caption, given again, -> the fine image.

    The image is halved to an inner map, which the condition joins; residual blocks follow, then
    doublings as in Stage I. There is no other noise than conditioning augmentation's.

    Args:
        embedding_dim, condition_dim, augment: as ConditioningAugmentation's.
        channels, image_size: shape of the fine images.
        factor: how many times as large they are as the coarse ones.
        base_channels: channels of the last hidden map.
        residual_blocks: how many (the paper: 4, or 2 for 128 pixels).
        encoder_halvings: from the coarse image to the inner map; None for the paper's 2 from 64
            coarse pixels on, and 1 below.

    Raises:
        ValueError: for a factor that can't be.
    """

    def __init__(
        self,
        embedding_dim: Count,
        condition_dim: Count,
        channels: Count,
        image_size: Count,
        factor: Count,
        base_channels: Count = 32,
        residual_blocks: Few = 2,
        encoder_halvings: Few | None = None,
        augment: bool = True,
    ) -> None:
        super().__init__()
        side = coarse_size(image_size, factor)
        down = encoder_halvings or (2 if side >= 64 else 1)
        doublings = down + factor.bit_length() - 1
        self.condition = ConditioningAugmentation(embedding_dim, condition_dim, augment)
        layers: list[nn.Module] = [nn.Conv2d(channels, base_channels, 3, 1, 1), nn.ReLU()]
        width = base_channels
        for _ in range(down):
            layers += [
                nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * width),
                nn.ReLU(),
            ]
            width *= 2
        self.encode = nn.Sequential(*layers)
        inner = base_channels << doublings
        self.join = nn.Sequential(
            nn.Conv2d(width + condition_dim, inner, 3, 1, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
        )
        self.refine = nn.Sequential(
            *(_Residual(inner) for _ in range(residual_blocks)),
            *(_doubled(inner >> i, inner >> i + 1) for i in range(doublings)),
            nn.Conv2d(base_channels, channels, 3, 1, 1),
            nn.Tanh(),
        )
        initialise(self)
        self.condition.initialise()

    def forward(self, image: Tensor, noise: Tensor, caption: Tensor) -> Drawn:
        condition, mean, log_variance = self.condition(caption, noise)
        joined = self.join(_beside(self.encode(image), condition))
        return Drawn((self.refine(joined),), mean, log_variance)


class TreeGenerator(nn.Module):
    """StackGAN++'s generator: one trunk of hidden maps that branches into an image at each scale.

    h_0 is made of noise and condition, h_i of h_(i-1) and the condition, twice as large; each scale
    has a 3x3 convolution and tanh to its image. Gated linear units throughout.

    Args:
        latent_dim: length of z; with text the noise is (B, latent_dim + condition_dim).
        embedding_dim: of the captions; None without text.
        condition_dim, augment: as ConditioningAugmentation's.
        channels, image_size: shape of the finest images.
        num_scales: how many scales, each twice as large as the one before.
        base_channels: channels of the finest hidden map; they double towards the coarser ones.
        residual_blocks: between two scales (the authors': 2).

    Raises:
        ValueError: for a size that doublings can't make at each scale.
    """

    def __init__(
        self,
        latent_dim: Count,
        embedding_dim: Count | None,
        condition_dim: Count,
        channels: Count,
        image_size: Count,
        num_scales: Few = 3,
        base_channels: Count = 16,
        residual_blocks: Few = 2,
        augment: bool = True,
    ) -> None:
        super().__init__()
        coarsest = scales(image_size, num_scales)[0]
        doublings = halvings(coarsest)
        first = coarsest >> doublings
        self.latent_dim = latent_dim
        self.condition = None
        if embedding_dim is None:
            condition_dim = 0
        else:
            self.condition = ConditioningAugmentation(
                embedding_dim, condition_dim, augment, gated=True
            )
        width = base_channels << (num_scales - 1)
        inner = width << doublings
        self.trunk = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(latent_dim + condition_dim, 2 * inner * first**2, bias=False),
                    nn.BatchNorm1d(2 * inner * first**2),
                    nn.GLU(1),
                    nn.Unflatten(1, (inner, first, first)),
                    *(_gated_doubled(inner >> i, inner >> i + 1) for i in range(doublings)),
                )
            ]
        )
        self.to_image = nn.ModuleList([_image_head(width, channels)])
        for _ in range(num_scales - 1):
            self.trunk.append(
                nn.Sequential(
                    _gated(width + condition_dim, width),
                    *(_Residual(width, gated=True) for _ in range(residual_blocks)),
                    _gated_doubled(width, width // 2),
                )
            )
            width //= 2
            self.to_image.append(_image_head(width, channels))
        _orthogonal(self)
        if self.condition is not None:
            self.condition.initialise()

    def forward(self, noise: Tensor, caption: Tensor | None = None) -> Drawn:
        mean = log_variance = condition = None
        if self.condition is not None:
            assert caption is not None
            eps = noise[:, self.latent_dim :]
            condition, mean, log_variance = self.condition(caption, eps)
            noise = torch.cat([condition, noise[:, : self.latent_dim]], 1)
        hidden, images = noise, []
        for depth, (branch, to_image) in enumerate(zip(self.trunk, self.to_image, strict=True)):
            if depth and condition is not None:
                hidden = _beside(hidden, condition)
            hidden = branch(hidden)
            images.append(to_image(hidden))
        return Drawn(tuple(images), mean, log_variance)


def scales(image_size: int, num_scales: int) -> list[int]:
    """The sides of StackGAN++'s images, the coarsest first.

    Raises:
        ValueError: if there are fewer than 2, or the coarsest would be no 8 pixels wide.
    """
    if num_scales < 2 or image_size >> (num_scales - 1) < 8 or image_size % 2 ** (num_scales - 1):
        raise ValueError(
            f"StackGAN++ can't draw {num_scales} scales up to {image_size} pixels: it takes 2 or "
            "more, each half as large as the next, and the coarsest of 8 pixels or more "
            "(dataset.image_size=32 with model.generator.num_scales=3, say)."
        )
    return [image_size >> depth for depth in reversed(range(num_scales))]


def _gated(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, 2 * width, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * width), nn.GLU(1)
    )


def _gated_doubled(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2), _gated(width_in, width))


def _image_head(width: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, channels, 3, 1, 1, bias=False), nn.Tanh())


def _orthogonal(network: nn.Module) -> None:
    """StackGAN++'s code: orthogonal weights, batch norm scales ~ N(1, .02), biases 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


class TextDiscriminator(nn.Module):
    """Judges images by themselves, and whether they fit their captions.

    4x4 convolutions of stride 2 with LeakyReLU(.2), batch norm in all but the first, halve the
    image to a small map, of which each logit is linear after one more layer. The caption is reduced
    to ``text_dim`` values, which join the map at every place. (The authors' later code gives it the
    generator's mu instead; the paper has this layer.)

    Args:
        channels, image_size: shape of the final images.
        embedding_dim: of the captions; None without text.
        factor: how many times as large those are as the ones it judges.
        base_channels: channels of the first hidden map; they double with each halving.
        text_dim: N_d of the paper.
        joint_channels: of the layer that image and caption join in (the paper: 512).
        unconditional: whether there is a logit for the image by itself; without text there is.
        joint_kernel_size: of that layer (StackGAN 1, StackGAN++ 3).
        orthogonal: StackGAN++'s initialisation instead of N(0, .02).

    Attributes:
        image_size: side of the images that it judges.

    Raises:
        ValueError: for a size that strided layers can't halve evenly.
    """

    def __init__(
        self,
        channels: Count,
        image_size: Count,
        embedding_dim: Count | None,
        factor: Count = 1,
        base_channels: Count = 32,
        text_dim: Count = 128,
        joint_channels: Count = 256,
        unconditional: bool = False,
        joint_kernel_size: Count = 1,
        orthogonal: bool = False,
    ) -> None:
        super().__init__()
        self.image_size = coarse_size(image_size, factor) if factor > 1 else image_size
        count = halvings(self.image_size)
        layers: list[nn.Module] = [nn.Conv2d(channels, base_channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = base_channels
        for _ in range(count - 1):
            layers += [
                nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * width),
                nn.LeakyReLU(0.2),
            ]
            width *= 2
        side = self.image_size >> count
        self.body = nn.Sequential(*layers)
        self.alone: nn.Module | None = None
        self.text: nn.Sequential | None = None
        if unconditional or embedding_dim is None:
            self.alone = nn.Sequential(nn.Conv2d(width, 1, side), nn.Flatten())
        if embedding_dim is not None:
            self.text = nn.Sequential(nn.Linear(embedding_dim, text_dim), nn.LeakyReLU(0.2))
            self.joint = nn.Sequential(
                nn.Conv2d(
                    width + text_dim, joint_channels, joint_kernel_size, padding="same", bias=False
                ),
                nn.BatchNorm2d(joint_channels),
                nn.LeakyReLU(0.2),
                nn.Conv2d(joint_channels, 1, side),
                nn.Flatten(),
            )
        (_orthogonal if orthogonal else initialise)(self)
        if self.text is not None:
            _keep_variance(cast(nn.Linear, self.text[0]))

    def features(self, image: Tensor) -> Tensor:
        """The small map that logits are read from, of images of its size or larger."""
        if image.shape[-1] > self.image_size:
            image = F.adaptive_avg_pool2d(image, self.image_size)
        return self.body(image)

    def fits(self, features: Tensor, caption: Tensor) -> Tensor:
        """Logits (B, 1) that images of these features are real and captions (B, E) theirs."""
        assert self.text is not None
        return self.joint(_beside(features, self.text(caption)))

    def real(self, features: Tensor) -> Tensor:
        """Logits (B, 1) that images of these features are real, whatever they show."""
        assert self.alone is not None
        return self.alone(features)


class TreeDiscriminators(nn.ModuleList):
    """A discriminator for each of StackGAN++'s scales, the coarsest first.

    Args:
        discriminator: image_size -> TextDiscriminator.
        image_size: of the finest scale.
        num_scales: how many.
    """

    def __init__(
        self, discriminator: Callable[..., TextDiscriminator], image_size: Count, num_scales: Count
    ) -> None:
        sizes: Sequence[int] = scales(image_size, num_scales)
        super().__init__(discriminator(image_size=size) for size in sizes)
