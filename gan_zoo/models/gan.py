"""Generative Adversarial Nets: Goodfellow et al. 2014, arXiv 1406.2661.

    min_G max_D V(D, G) = E_x[log D(x)] + E_z[log(1 - D(G(z)))]                            (eq. 1)

D ascends V; G descends V (``loss=minimax``) or, as section 3 does in practice and the default here
does, ascends E_z[log D(G(z))] (``loss=non_saturating``).

What differs from the paper by default: the survey's simple networks, noise of 256 uniform values
and Adam. ``experiment=gan_2014`` brings the paper's own networks, noise and SGD schedule. The
authors' code halves D's loss, and updates both players at once from the same weights; here, as in
the paper's Algorithm 1, V stands as it is and the players alternate.
"""

from __future__ import annotations

from typing import ClassVar

from gan_zoo.models.base import ImageGAN


class GAN(ImageGAN):
    """The original game, which is the base's: nothing is added to ImageGAN."""

    published: ClassVar = {("mnist", "parzen"): "225 ± 2"}
