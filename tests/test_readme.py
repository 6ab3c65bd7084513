"""The README's commands run, shortened."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from tests.conftest import ROOT

BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python ")]
SHORTER = {
    "train.py": ["trainer.max_steps=3", "trainer=cpu", "callbacks.metrics=null"],
    "sample.py": [],
    "export.py": [],
    "compare.py": [],
    "benchmark.py": ["block=1", "rounds=3", "dataset=digits"],
    "evaluate.py": ["num_samples=30"],
    "train_evaluator.py": ["dataset=digits", "epochs=1"],
}
CAPTIONS = ("dataset.name=digits", "dataset.batch_size=2", "dataset.encoder_steps=2")
TWO_DOMAINS = ("dataset.name=digits", "dataset.batch_size=2", "model.generator.base_channels=4")


def data_of(command: str) -> list[str]:
    """The small data that takes the place of a training command's."""
    if "unpaired_folder" in command:
        return ["dataset=unpaired_folder", "model.generator.base_channels=4"]
    if "image_folder" in command:
        small = ("image_size=32", "batch_size=2", "val_size=0")
        return ["dataset=image_folder", *(f"dataset.{option}" for option in small)]
    if "caption_folder" in command:
        small = ("image_size=16", "batch_size=2", "encoder_steps=2", "test_share=0")
        return ["dataset=caption_folder", *(f"dataset.{option}" for option in small)]
    if "mnist_usps" in command:
        return ["dataset=mnist_usps", *TWO_DOMAINS]
    if "discogan_toy" in command or "resume" in command:
        return []
    if "experiment=paper" in command:
        return ["dataset=digits", "dataset.val_size=0"]
    return ["dataset=digits"]


def test_the_first_two_lines_set_up_train_and_test() -> None:
    assert BLOCKS[0].endswith("scripts/train.py model=cgan\n")
    assert BLOCKS[1].endswith("-m pytest\n")
    assert all(block.startswith("python3 -m venv .venv && ") for block in BLOCKS[:2])


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(
    run: Callable[..., CompletedProcess[str]], tmp_path: Path, command: str
) -> None:
    script, *arguments = shlex.split(command)[1:]
    name = Path(script).name
    assert (ROOT / script).is_file()
    if "input=" in command:
        run("train.py", "model=cyclegan", *TWO_DOMAINS, *SHORTER["train.py"],
            "hydra.run.dir=RUN_FOLDER")  # fmt: skip
    elif "captions=" in command:
        run("train.py", "model=stackgan", *CAPTIONS, *SHORTER["train.py"],
            "hydra.run.dir=RUN_FOLDER")  # fmt: skip
    elif re.search("RUN_FOLDER|latest|root=", command):
        folder = "RUN_FOLDER" if "RUN_FOLDER" in command else "runs/rates/one"
        run("train.py", "model=cgan", "dataset=digits", *SHORTER["train.py"],
            f"hydra.run.dir={folder}")  # fmt: skip
    for folder in ("PATH/trainA", "PATH/trainB", "FOLDER_OR_IMAGE", "PATH/images", "PATH/text"):
        (tmp_path / folder).mkdir(parents=True)
        for stem in ("one", "two"):
            if folder == "PATH/text":
                (tmp_path / folder / f"{stem}.txt").write_text(f"picture {stem}\n")
            else:
                Image.new("RGB", (40, 30)).save(tmp_path / folder / f"{stem}.png")
    shorter = [a for a in SHORTER[name] if "resume" not in command or a.startswith("trainer.max")]
    shorter += data_of(command) if name == "train.py" else []
    longer = ("trainer.max_steps", "dataset=", "num_samples=5")
    arguments = [a.replace("seed=0,1,2", "seed=0") for a in arguments if not a.startswith(longer)]
    run(name, *arguments, *[a.replace("=3", "=5") for a in shorter])
