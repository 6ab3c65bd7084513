"""What several networks share: blocks, conditioning, initialisation and the sizes of maps."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gan_zoo.ranges import UnfitArgument

Activation = Callable[[], nn.Module]
Weighted = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
leaky_relu = functools.partial(nn.LeakyReLU, 0.2)


class Chain(nn.Module):
    """Layers in a row, ``net``: the base of networks that are nothing else."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def batch_normed(
    layer: Weighted, activation: nn.Module, affine: bool = True, norm: bool = True
) -> list[nn.Module]:
    """The layer, batch norm of its outputs (with scale and shift if ``affine``), an activation.

    Without ``norm`` it leaves batch norm out.
    """
    if not norm:
        return [layer, activation]
    if isinstance(layer, nn.Linear):
        return [layer, nn.BatchNorm1d(layer.out_features, affine=affine), activation]
    return [layer, nn.BatchNorm2d(layer.out_channels, affine=affine), activation]


def doubling(width_in: int, width: int, kernel_size: int, bias: bool = False) -> nn.ConvTranspose2d:
    """A transposed convolution that exactly doubles a map's sides."""
    padding = (kernel_size - 1) // 2
    return nn.ConvTranspose2d(
        width_in, width, kernel_size, 2, padding, output_padding=kernel_size % 2, bias=bias
    )


def halving_blocks(
    channels: int,
    base_channels: int,
    count: int,
    kernel_size: int = 4,
    norm: bool = True,
    norm_first: bool = False,
    activation: Activation = leaky_relu,
) -> list[list[nn.Module]]:
    """``count`` blocks of strided convolution, batch norm and activation that halve a map's sides.

    Channels are ``base_channels`` after the first block and double with each further one. ``norm``
    puts batch norm in the place of the bias, in the first block only with ``norm_first``.
    """
    blocks, width_in = [], channels
    for level in range(count):
        width, normed = base_channels << level, norm and (norm_first or level > 0)
        layer = nn.Conv2d(width_in, width, kernel_size, 2, (kernel_size - 1) // 2, bias=not normed)
        blocks.append(batch_normed(layer, activation(), norm=normed))
        width_in = width
    return blocks


class Residual(Chain):
    """``activation(x + net(x))``."""

    def __init__(self, *layers: nn.Module, activation: nn.Module | None = None) -> None:
        super().__init__(*layers)
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.net(x))


def spectrally_normalised(network: nn.Module) -> nn.Module:
    """The network, each linear and convolutional layer divided by its largest singular value.

    Miyato et al. 2018 (1802.05957), section 2.1, by torch's parametrisation: one step of power
    iteration in each forward pass of training.

    Raises:
        UnfitArgument: for a layer that begins with zeros, which has no such value.
    """
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    for layer in [module for module in network.modules() if isinstance(module, kinds)]:
        # A recipe may be looked at without memory for its weights.
        if layer.weight.device.type != "meta" and not layer.weight.any():
            raise UnfitArgument(
                "spectral_norm",
                f"divides layers by their largest singular value, and {type(network).__name__} "
                "begins with one of zeros: leave it out.",
            )
        if not parametrize.is_parametrized(layer, "weight"):
            nn.utils.parametrizations.spectral_norm(layer)
    return network


class Crop(nn.Module):
    """Keeps the top left ``size`` x ``size`` pixels of a map."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :, : self.size, : self.size]


def join_condition(x: Tensor, condition: Tensor) -> Tensor:
    """Features (B, N) or maps (B, N, H, W), followed at each place by a condition (B, D)."""
    if x.dim() == 4:
        condition = condition[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, condition], 1)


def one_hot(label: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Labels (B,) int64 as vectors (B, num_classes); such vectors stay, as between two labels."""
    return (label if label.dim() == 2 else F.one_hot(label, num_classes)).to(dtype)


def join_label(x: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """``join_condition`` with labels as ``one_hot`` makes them."""
    return join_condition(x, one_hot(label, num_classes, x.dtype))


def initialise(
    network: nn.Module,
    weights: Callable[[Weighted], object],
    bias: float = 0.0,
    norms: tuple[type[nn.Module], ...] = (),
) -> None:
    """Initialises the linear and convolutional layers by ``weights``, with constant biases.

    Batch norm of the classes ``norms`` gets scales ~ N(1, .02) and shifts of 0.
    """
    for module in network.modules():
        if isinstance(module, Weighted):
            weights(module)
            if module.bias is not None:
                nn.init.constant_(module.bias, bias)
        elif isinstance(module, norms) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)  # type: ignore[arg-type]
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def initialise_normal(network: nn.Module) -> None:
    """DCGAN (1511.06434, section 4): weights ~ N(0, .02), BatchNorm2d's scales ~ N(1, .02)."""
    norms = (nn.BatchNorm2d,)
    initialise(network, lambda layer: nn.init.normal_(layer.weight, 0.0, 0.02), norms=norms)


def initialise_uniform(network: nn.Module, bound: float | None) -> None:
    """The 2014 networks: weights ~ U(-bound, bound); None leaves the network as it is."""
    if bound is not None:
        initialise(network, lambda layer: nn.init.uniform_(layer.weight, -bound, bound))


def initialise_orthogonal(network: nn.Module) -> None:
    """StackGAN++'s authors' code: orthogonal weights, all batch norm's scales ~ N(1, .02)."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    initialise(network, lambda layer: nn.init.orthogonal_(layer.weight), norms=norms)


def count_halvings(image_size: int) -> int:
    """How many stride-2 layers reduce ``image_size`` pixels to a map of 4 to 7.

    UnfitArgument if the size is not 4, 5, 6 or 7 times a power of two, 8 or more.
    """
    count = (image_size // 4).bit_length() - 1
    if count < 1 or image_size % 2**count:
        fit = (size << level for size in (4, 5, 6, 7) for level in range(1, 9))
        near = min(fit, key=lambda size: abs(size - image_size))
        raise UnfitArgument(
            "image_size",
            f"is {image_size} pixels; it has to be 4, 5, 6 or 7 times a power of two for strided "
            f"layers (28, 32, 64 or 128, say; the nearest is {near}).",
        )
    return count


def quarter_size(image_size: int) -> int:
    """The side of a map that is doubled twice to the image; UnfitArgument if there is none."""
    if image_size % 4:
        problem = f"is {image_size} pixels; it has to be a multiple of 4 (28 or 32, say)."
        raise UnfitArgument("image_size", problem)
    return image_size // 4


def sizes_up_to(size: int) -> list[int]:
    """Sides of maps from at most 4 up to ``size``, each half of the next, rounded up."""
    sizes = [size]
    while sizes[0] > 4:
        sizes.insert(0, -(-sizes[0] // 2))
    return sizes


def coarse_size(image_size: int, factor: int) -> int:
    """The side of the image that StackGAN's Stage I makes of one ``factor`` times as large.

    UnfitArgument unless the factor is a power of two that leaves 8 pixels or more.
    """
    if factor < 2 or factor & (factor - 1) or image_size % factor or image_size // factor < 8:
        raise UnfitArgument(
            "factor",
            f"is {factor}; it has to be a power of two that divides the image's {image_size} "
            "pixels and leaves 8 or more.",
        )
    return image_size // factor


def scale_sizes(image_size: int, num_scales: int) -> list[int]:
    """The sides of StackGAN++'s images, the coarsest first, each half of the next.

    UnfitArgument if there are fewer than 2, or the coarsest has fewer than 8 pixels.
    """
    if num_scales < 2 or image_size >> (num_scales - 1) < 8 or image_size % 2 ** (num_scales - 1):
        raise UnfitArgument(
            "num_scales",
            f"is {num_scales}; there can't be {num_scales} scales up to {image_size} pixels, as "
            "there have to be 2 or more, each half of the next, and the coarsest has at least 8 "
            "pixels (num_scales=3 with image_size=32, say).",
        )
    return [image_size >> scale for scale in reversed(range(num_scales))]
