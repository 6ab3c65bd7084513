"""Plain torch networks, by family. They know nothing of Lightning, losses or data.

``latent_dim`` is the length of the noise vector, ``channels`` and ``image_size`` are the shape of
the images. By default they fit MNIST's 28 x 28 grey images, or what the class says. A constructor
raises ``UnfitArgument``, a ValueError, for what is out of range, or sizes its layers can't make.
"""
