"""Plain torch networks, by family. They know nothing of Lightning, losses or data.

Generators map noise (B, latent_dim) to images (B, C, H, W) in [-1, 1]; discriminators map images to
logits, and critics to scores, (B, 1). Conditional ones also take class labels (B,) int64. What
differs from this is said where it does.

Arguments that mean the same in all of them, which classes describe only where they add to this:

- ``latent_dim``: length of the noise vector.
- ``channels``, ``image_size``: shape of the images. By default they fit MNIST's 28 x 28 grey
  images, or what the class says. DCGAN's strided layers, which many networks have, need 4, 5, 6 or
  7 times a power of two.
- ``base_channels``: channels of the largest hidden map; they double each time its side is halved.
- ``num_classes``: how many labels there are.
- ``hidden``, and names in ``_units``: widths of hidden layers.
- ``dropout``: probability that a hidden unit is dropped in training.
- ``negative_slope``: of LeakyReLU; 0 makes it a ReLU.

A constructor raises ``UnfitArgument``, a ValueError, for what is out of range, or sizes its layers
can't make.
"""
