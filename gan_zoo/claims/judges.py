"""Networks that judge runs: trained when first needed, and kept in the cache."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gan_zoo.files import atomic_write, cache_dir, made_by_one
from gan_zoo.metrics.evaluator import hash_of

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)
# Part of a file's name: raise it with any change to how one of them is trained.
_TRAINING = 1


def kept_judge(
    name: str, data: Iterable[Tensor], network: Network, train: Callable[[], Network]
) -> Network:
    """The judge of that name, in eval mode.

    Args:
        data: what it is trained on; a judge of other data is another one.
        network: of its kind, for the weights that are kept.
        train: trains it.
    """
    file = cache_dir() / "judges" / f"{name}-{_TRAINING}-{hash_of(data)}.safetensors"
    with made_by_one(file):
        try:
            network.load_state_dict(load_file(file))
        except (OSError, RuntimeError, SafetensorError):
            network = train()
            try:
                with atomic_write(file) as aside:
                    save_file(network.state_dict(), aside)
            except OSError as error:
                log.warning("The judge could not be kept: %s", error)
    return network.eval()
