"""What ``speed`` means on the device that trains: precision, memory layout, determinism."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from omegaconf import DictConfig

from gan_zoo.ranges import UnfitArgument
from gan_zoo.training.module import AdversarialModule

Speed = Literal["default", "fast", "exact"]
_FLOAT32 = ("32-true", "32", 32)
_GRAPHS = "CUDA graphs where the model allows them"


class Mathematics(NamedTuple):
    """How a run computes.

    Attributes:
        trainer: Lightning's options for it, in place of the configuration's.
        channels_last: whether the weights of convolutions have their channels last.
        graphs: whether iterations are recorded as CUDA graphs, on one GPU where the model's can be.
        tf32: whether convolutions on an NVIDIA GPU stay in TF32, torch's default for float32.
        words: it in words; empty for ``speed=default`` alone.
    """

    trainer: dict[str, Any]
    channels_last: bool
    graphs: bool
    tf32: bool
    words: str

    def prepare(self, model: AdversarialModule) -> None:
        """Gives the model's weights their memory layout, and says whether to record it.

        ``tf32`` is set for the process, so for what else it computes on a GPU too.
        """
        torch.backends.cudnn.allow_tf32 = self.tf32
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        model.graphs = self.graphs


def mathematics(config: DictConfig, device: Callable[[], torch.device]) -> Mathematics:
    """What the configuration's ``speed`` chooses.

    - ``default`` computes as the trainer's options say, in float32 unless they say otherwise, and
      records CUDA graphs if ``cuda_graphs`` is true.
    - ``fast`` computes in bfloat16 where the device has instructions for it, with float32 weights
      (``bf16-mixed``), and has the channels of convolutions last in memory. On one GPU it records
      whole iterations as CUDA graphs, where the model's can be.
    - ``exact`` computes in float32, also convolutions, by deterministic algorithms alone: a GPU
      then gives the same bits each time.

    Args:
        device: tells what trains, if that matters.

    Raises:
        UnfitArgument: if the trainer's own options contradict it.
    """
    precision = config.trainer.precision
    if config.speed == "exact":
        if precision not in _FLOAT32:
            problem = f"is {precision}, and speed=exact computes in 32-true."
            raise UnfitArgument("trainer.precision", problem)
        if config.trainer.deterministic not in (None, True):
            problem = f"is {config.trainer.deterministic}, and speed=exact needs true or null."
            raise UnfitArgument("trainer.deterministic", problem)
        if config.cuda_graphs:
            raise UnfitArgument("cuda_graphs", "is true, and speed=exact records none.")
        options = {"deterministic": True, "benchmark": False}
        words = "exact: float32 and deterministic algorithms"
        return Mathematics(options, config.channels_last, False, False, words)
    if config.speed == "default" and not config.cuda_graphs:
        return Mathematics({}, config.channels_last, False, True, "")
    used = device()
    graphs = used.type == "cuda"
    if config.speed == "default":
        words = _GRAPHS if graphs else "no CUDA graphs, as no GPU trains"
        return Mathematics({}, config.channels_last, graphs, True, words)
    also = "channels last" + f", {_GRAPHS}" * graphs
    if precision in _FLOAT32 and _has_bfloat16(used):
        words = f"fast: bfloat16 with float32 weights, {also}"
        return Mathematics({"precision": "bf16-mixed"}, True, graphs, True, words)
    why = "no instructions for bfloat16 here" if precision in _FLOAT32 else "trainer.precision"
    return Mathematics({}, True, graphs, True, f"fast: {precision} ({why}), {also}")


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 by itself; where it emulates it, it is slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
