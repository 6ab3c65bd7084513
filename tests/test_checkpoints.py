"""Checkpoint files: damage is found, whatever bit it is, and plain data alone is read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_zoo.training.checkpoints import (
    CheckpointFiles,
    DamagedCheckpoint,
    read_checkpoint,
)
from tests.same_end import differing


@pytest.fixture
def checkpoint() -> dict[str, Any]:
    torch.manual_seed(0)
    weights = {"generator.weight": torch.randn(40, 40), "count": torch.tensor(3)}
    return {"config": {"model": {"latent_dim": 4}}, "state_dict": weights, "global_step": 7}


def test_each_flipped_bit_is_found_or_changes_nothing(
    tmp_path: Path, checkpoint: dict[str, Any]
) -> None:
    # The seal is the zip file's own: torch writes a CRC-32 of each part, and does not look at it.
    file = tmp_path / "a.ckpt"
    CheckpointFiles().save_checkpoint(checkpoint, file)
    content = file.read_bytes()
    draw, found = random.Random(0), 0
    for _ in range(600):
        place, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
        file.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        try:
            read = read_checkpoint(file)
        except ValueError:
            found += 1
        else:
            assert differing(read, checkpoint) == [], (place, bit)
    # Of a file this small a tenth is padding.
    assert found > 500


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_damaged(
    tmp_path: Path, checkpoint: dict[str, Any], share: float
) -> None:
    file = tmp_path / "a.ckpt"
    CheckpointFiles().save_checkpoint(checkpoint, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedCheckpoint, match=r"a\.ckpt"):
        read_checkpoint(file)


def test_a_checkpoint_is_written_whole_or_not_at_all(
    tmp_path: Path, checkpoint: dict[str, Any]
) -> None:
    file = tmp_path / "a.ckpt"
    CheckpointFiles().save_checkpoint(checkpoint, file)
    before = file.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        CheckpointFiles().save_checkpoint({"config": lambda: None}, file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
