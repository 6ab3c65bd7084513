"""What accompanies training: sample grids, checkpoints, metrics, health, pruning, progress."""

from gan_zoo.callbacks.checkpoint import Checkpoint
from gan_zoo.callbacks.health import Health
from gan_zoo.callbacks.metrics import Metrics
from gan_zoo.callbacks.progress import TrainingProgress
from gan_zoo.callbacks.pruning import Pruning
from gan_zoo.callbacks.sample_grid import SampleGrid

__all__ = ["Checkpoint", "Health", "Metrics", "Pruning", "SampleGrid", "TrainingProgress"]
