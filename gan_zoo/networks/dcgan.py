"""The convolutional networks of DCGAN (1511.06434): strided convolutions, batch norm, no pooling.

Hidden layers with batch norm have no bias. Where ``num_classes`` is given, both players also take
labels; None is for no condition. ``kernel_size`` is that of all convolutions: the authors' is 5,
later code often has 4. ``activation`` makes the hidden layers' activation.
"""

import itertools

from torch import Tensor, nn

from gan_zoo.networks import layers
from gan_zoo.ranges import Count, checked


class _MaybeConditional(layers.Chain):
    """Layers in a row; with ``num_classes``, the one-hot label is joined to their input."""

    def __init__(self, num_classes: int | None, *net: nn.Module) -> None:
        super().__init__(*net)
        self.num_classes = num_classes
        layers.initialise_normal(self)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        if self.num_classes is not None and label is not None:
            x = layers.join_label(x, label, self.num_classes)
        return self.net(x)


class DCGANGenerator(_MaybeConditional):
    """Projects the noise to a small map, which transposed convolutions double up to the image.

        generator = DCGANGenerator(image_size=64, channels=3, base_channels=128)
        images = generator(torch.rand(16, 100) * 2 - 1)  # (16, 3, 64, 64)

    Each layer but the last has batch norm and ReLU; the last has tanh. Channels halve with each
    doubling (the paper, at 64 px: 1024, 512, 256, 128, image). ``zeta`` scales the first map up,
    and so the images: HDCGAN's telescope.
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 100,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        kernel_size: Count = 5,
        num_classes: Count | None = None,
        activation: layers.Activation = nn.ReLU,
        zeta: Count = 1,
    ) -> None:
        doublings = layers.count_halvings(image_size)
        size, width = image_size >> doublings, base_channels << (doublings - 1)
        features = latent_dim + (num_classes or 0)
        to_map = nn.ConvTranspose2d(features, width, size, bias=False)
        project, *normed = layers.batch_normed(to_map, activation())
        telescope = [nn.Upsample(scale_factor=zeta)] if zeta > 1 else []
        net = [nn.Unflatten(1, (features, 1, 1)), project, *telescope, *normed]
        for _ in range(doublings - 1):
            up = layers.doubling(width, width // 2, kernel_size)
            net += layers.batch_normed(up, activation())
            width //= 2
        last = layers.doubling(width, channels, kernel_size, bias=True)
        super().__init__(num_classes, *net, last, nn.Tanh())


class DCGANDiscriminator(_MaybeConditional):
    """Strided convolutions halve the image to a small map; a last layer makes it a logit.

        logits = DCGANDiscriminator()(torch.rand(16, 1, 28, 28))  # (16, 1)

    Batch norm in all layers but the first, with ``norm_first`` in that too, without ``norm`` in
    none, as a gradient penalty requires. With ``zeta``, HDCGAN's telescope, images are zeta times
    ``image_size``, and there are as many layers as that size takes.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        kernel_size: Count = 5,
        norm: bool = True,
        norm_first: bool = False,
        num_classes: Count | None = None,
        activation: layers.Activation = layers.leaky_relu,
        zeta: Count = 1,
    ) -> None:
        image_size *= zeta
        count, width_in = layers.count_halvings(image_size), channels + (num_classes or 0)
        blocks = layers.halving_blocks(
            width_in, base_channels, count, kernel_size, norm, norm_first, activation
        )
        super().__init__(
            num_classes,
            *itertools.chain(*blocks),
            nn.Conv2d(base_channels << (count - 1), 1, image_size >> count),
            nn.Flatten(),
        )


class _LabelAtEachLayer(nn.Module):
    """Applies its submodules in order; the one-hot label is joined to what each of them takes."""

    def __init__(self, num_classes: int | None) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        for part in self.children():
            if self.num_classes is not None and label is not None:
                x = layers.join_label(x, label, self.num_classes)
            x = part(x)
        return x


class MNISTGenerator(_LabelAtEachLayer):
    """The generator of DCGAN's appendix, as in its authors' code for MNIST, which is conditional.

    [noise, label] -> FC -> [., label] -> FC to a quarter-size map -> [., label] -> transposed
    convolution -> [., label] -> transposed convolution to the image. Batch norm without scale and
    shift, no biases; ``affine`` adds them, which an ``activation`` of mean 0 needs. tanh replaces
    the code's sigmoid on [0, 1]. Without ``num_classes`` there are no labels, and with ``affine``
    the layers are those of InfoGAN's networks. Images have sides that are multiples of 4; with
    ``zeta``, HDCGAN's telescope, they are that many times ``image_size``.

        images = MNISTGenerator(num_classes=10)(torch.rand(10, 100), torch.arange(10))
    """

    @checked
    def __init__(
        self,
        latent_dim: Count = 100,
        num_classes: Count | None = None,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        fc_units: Count = 1024,
        kernel_size: Count = 5,
        affine: bool = False,
        activation: layers.Activation = nn.ReLU,
        zeta: Count = 1,
    ) -> None:
        super().__init__(num_classes)
        size, classes = layers.quarter_size(zeta * image_size), num_classes or 0
        width = 2 * base_channels

        def normed(layer: layers.Weighted) -> list[nn.Module]:
            return layers.batch_normed(layer, activation(), affine)

        fc = nn.Linear(latent_dim + classes, fc_units, bias=False)
        self.fc = nn.Sequential(*normed(fc))
        to_map = nn.Linear(fc_units + classes, width * size**2, bias=False)
        self.project = nn.Sequential(*normed(to_map), nn.Unflatten(1, (width, size, size)))
        up = layers.doubling(width + classes, base_channels, kernel_size)
        self.up = nn.Sequential(*normed(up))
        last = layers.doubling(base_channels + classes, channels, kernel_size, bias=affine)
        self.to_image = nn.Sequential(last, nn.Tanh())
        layers.initialise_normal(self)


class MNISTDiscriminator(_LabelAtEachLayer):
    """The discriminator of DCGAN's appendix, as in its authors' code for MNIST.

    [image, label] -> convolution -> [., label] -> convolution -> [., label] -> FC -> [., label] ->
    logit. Both convolutions have stride 2. LeakyReLU(.2); batch norm without scale and shift in the
    middle layers, no biases. Sizes and other options are MNISTGenerator's.

    Without ``norm``, as a gradient penalty requires, there is no batch norm; layers have biases,
    and weights begin with He's variance (1502.01852): with N(0, .02) the signal would vanish.

        logits = MNISTDiscriminator(num_classes=10)(torch.rand(10, 1, 28, 28), torch.arange(10))
    """

    @checked
    def __init__(
        self,
        num_classes: Count | None = None,
        channels: Count = 1,
        image_size: Count = 28,
        base_channels: Count = 64,
        fc_units: Count = 1024,
        kernel_size: Count = 5,
        affine: bool = False,
        norm: bool = True,
        activation: layers.Activation = layers.leaky_relu,
        zeta: Count = 1,
    ) -> None:
        super().__init__(num_classes)
        size, classes = layers.quarter_size(zeta * image_size), num_classes or 0
        width, padding = 2 * base_channels, (kernel_size - 1) // 2
        # Of the layers that never have batch norm.
        outer = affine or not norm

        def normed(layer: layers.Weighted) -> list[nn.Module]:
            return layers.batch_normed(layer, activation(), affine, norm)

        def halving(width_in: int, width: int, bias: bool) -> nn.Conv2d:
            return nn.Conv2d(width_in + classes, width, kernel_size, 2, padding, bias=bias)

        self.down = nn.Sequential(halving(channels, base_channels, bias=outer), activation())
        again = halving(base_channels, width, bias=not norm)
        self.down_again = nn.Sequential(*normed(again), nn.Flatten())
        fc = nn.Linear(width * size**2 + classes, fc_units, bias=not norm)
        self.fc = nn.Sequential(*normed(fc))
        self.to_logit = nn.Linear(fc_units + classes, 1, bias=outer)
        if norm:
            layers.initialise_normal(self)
        else:
            layers.initialise(self, lambda layer: nn.init.kaiming_normal_(layer.weight, 0.2))
