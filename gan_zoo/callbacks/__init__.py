"""What happens around training: sample grids, checkpoints, the progress bar."""

from gan_zoo.callbacks.checkpoint import Checkpoint
from gan_zoo.callbacks.progress import TrainingProgress
from gan_zoo.callbacks.sample_grid import SampleGrid

__all__ = ["Checkpoint", "SampleGrid", "TrainingProgress"]
