"""Plain torch networks, by family. They know nothing of Lightning, losses or data.

Built without arguments they fit MNIST's 28 x 28 grey images, or what their docstring says. All
raise ``UnfitArgument``, a ValueError, for sizes that their layers can't make.
"""
