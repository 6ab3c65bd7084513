"""Forward passes that the families of models share."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from gan_zoo.training.averaging import eval_mode


def on_both(
    discriminate: Callable[..., Tensor],
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    apart: bool,
) -> Sequence[Tensor]:
    """A discriminator's outputs for real and for generated images.

    Args:
        discriminate: images, and what else it takes of each -> its output.
        real, fake: its arguments, B of each.
        apart: in two passes, as batch norm would mix them in one; one pass costs less.
    """
    if apart:
        return discriminate(*real), discriminate(*fake)
    return discriminate(*(torch.cat(pair) for pair in zip(real, fake, strict=True))).chunk(2)


@torch.no_grad()
def in_chunks(
    networks: Iterable[nn.Module],
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    chunk_size: int,
) -> Tensor:
    """``function`` of the inputs, a chunk at a time, with the networks in eval mode."""
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(eval_mode(network))
        chunks = zip(*(tensor.split(chunk_size) for tensor in inputs), strict=True)
        return torch.cat([function(*chunk) for chunk in chunks])
