"""Distances between two sets of features, (N, D) and (M, D), rows in any order."""

from typing import NamedTuple

import torch
from torch import Tensor

# Rows of a distance matrix that are held at a time.
_ROWS = 1000
# As in Naeem et al. 2020, who define density and coverage.
_K = 5


class Estimate(NamedTuple):
    """An estimated number and a standard deviation: the function that returns it says of what."""

    value: float
    spread: float


class Fidelity(NamedTuple):
    """Naeem et al. 2020 (2002.09797). Quality: precision, density; variety: recall, coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Heusel et al. 2017 (1706.08500), eq. 6: between the Gaussians fitted to two sets.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), with unbiased covariances. It is biased:
    fewer rows give larger values, so compare it at equal numbers only. The paper takes 50,000
    generated images.
    """
    a, b = a.double(), b.double()
    # (C_a C_b)^(1/2) has the trace of (C_a^(1/2) C_b C_a^(1/2))^(1/2), which is symmetric.
    values, vectors = torch.linalg.eigh(a.T.cov())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cov_b = b.T.cov()
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return (means + values.sum() + cov_b.trace() - 2 * cross).item()


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0
) -> Estimate:
    """Binkowski et al. 2018 (1801.01401), section 4: the KID, an unbiased estimate of MMD^2.

    The kernel is (x.y / D + 1)^3. As in the paper, ``subsets`` random subsets of ``size`` rows (all
    rows where there are fewer) of each set; their mean, and the standard deviation over subsets.
    Features should be standardised: with large ones the cubic kernel gives noise.
    """
    size = min(size, len(a), len(b))
    if size < 2:
        raise ValueError("The kernel distance needs at least two images in each set.")
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        x, y = (
            rows[torch.randperm(len(rows), generator=random)[:size].to(rows.device)].double()
            for rows in (a, b)
        )
        xx, yy, xy = ((u @ v.T / u.shape[1] + 1) ** 3 for u, v in ((x, x), (y, y), (x, y)))
        pairs = size * (size - 1)
        within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / pairs
        found.append(within - 2 * xy.mean())
    values = torch.stack(found)
    return Estimate(values.mean().item(), values.std().item() if subsets > 1 else 0.0)


def fidelity_and_diversity(real: Tensor, fake: Tensor) -> Fidelity:
    """Precision and recall (1904.06991), density and coverage (2002.09797, eqs. 4 to 7).

    A set's manifold is the union of balls around its rows, each with the distance to the row's
    fifth nearest neighbour in the same set as its radius. Both sets should have equally many rows;
    the papers take 10,000.
    """
    if min(len(real), len(fake)) <= _K:
        raise ValueError(f"prdc needs more than {_K} images of each set: raise num_samples.")
    real_radius, fake_radius = (
        torch.cat([torch.cdist(x, rows).kthvalue(_K + 1).values for x in rows.split(_ROWS)])
        for rows in (real, fake)
    )
    inside_real = torch.zeros(len(fake), device=fake.device)
    recalled, covered = [], []
    for rows, radius in zip(real.split(_ROWS), real_radius.split(_ROWS), strict=True):
        distance = torch.cdist(rows, fake)
        inside_real += (distance < radius[:, None]).sum(0)
        recalled.append((distance < fake_radius).any(1))
        covered.append(distance.amin(1) < radius)
    return Fidelity(
        precision=(inside_real > 0).float().mean().item(),
        recall=torch.cat(recalled).float().mean().item(),
        density=inside_real.mean().item() / _K,
        coverage=torch.cat(covered).float().mean().item(),
    )
