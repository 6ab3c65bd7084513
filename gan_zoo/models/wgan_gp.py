"""WGAN with gradient penalty: Gulrajani et al. 2017, arXiv 1704.00028.

    L_D = E_z[f(G(z))] - E_x[f(x)] + lambda E[(||grad f(x^)||_2 - 1)^2]                    (eq. 3)
    L_G = -E_z[f(G(z))],    x^ = e x + (1 - e) G(z),  one e ~ U[0, 1] for each image

The penalty stands in for WGAN's clipping. It is taken on each image alone, so the critic has no
batch norm; layer norm does instead (section 4). Algorithm 1: lambda = 10, n_critic = 5, Adam of
rate 1e-4, beta1 0 and beta2 .9. The authors' MNIST code has beta1 .5 and batches of 50.

The loss that is logged as ``loss_d`` includes the penalty; ``wasserstein_estimate`` does not.
``gradient_norm`` is the mean of ||grad f(x^)||_2, which should come to about 1.
"""

from __future__ import annotations

from typing import Any

from gan_zoo.models.wgan import WassersteinGAN

_PENALTIES = ("wgan_gp", "wgan_gp_one_sided")


class WGANGP(WassersteinGAN):
    """Keeps the critic Lipschitz by a penalty on its gradient.

    Args:
        penalty: "wgan_gp" (two-sided, the paper's) or "wgan_gp_one_sided".
        options: WassersteinGAN's.

    Raises:
        ValueError: for another penalty; for batch norm in the critic, or a compiled critic.
    """

    def __init__(self, *, penalty: str = "wgan_gp", **options: Any) -> None:
        if penalty not in _PENALTIES:
            raise ValueError(
                f"model.penalty is {penalty}; WGAN-GP is its penalty: wgan_gp or "
                "wgan_gp_one_sided. model=dcgan model.discriminator.norm=false takes any."
            )
        super().__init__(penalty=penalty, **options)
        # A factor of three about 1: a young critic's norm is twice that, however sound the run.
        self.targets = {"gradient_norm": (1 / 3 if penalty == "wgan_gp" else 0.0, 3.0)}
