"""The README's commands run, shortened."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from tests.conftest import ROOT, slow_but


def blocks(page: Path) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.S)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page) for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line.startswith("python scripts/")]


BLOCKS = blocks(ROOT / "README.md")
COMMANDS = commands(ROOT / "README.md")
# Those of the other pages, but what needs days, a GPU, a stranger's scripts or files of one's own,
# which has tests of its own.
ELSEWHERE = (
    "results.py", "reproduce.py", "peers.py", "trainer=gpu", "model=all", "--config-dir", "trust=",
    "submitit_slurm",
)  # fmt: skip
OTHERS = [
    command
    for page in sorted((ROOT / "docs").glob("*.md"))
    for command in commands(page)
    if command not in COMMANDS and not any(part in command for part in ELSEWHERE)
]
SHORTER = {
    "train.py": ["trainer.max_steps=3", "trainer=cpu", "callbacks.metrics=null"],
    "search.py": [
        "trainer.max_steps=3",
        "trainer=cpu",
        "n_trials=2",
        "dataset=digits",
        "callbacks.metrics.num_samples=20",
    ],
    "sample.py": [],
    "export.py": [],
    "compare.py": [],
    "benchmark.py": ["block=1", "rounds=3", "dataset=digits"],
    "evaluate.py": ["num_samples=30"],
    "train_evaluator.py": ["dataset=digits", "epochs=1"],
}
NEEDS_MEASURES = re.compile("which=best|monitor=|search=")
CAPTIONS = ("dataset.name=digits", "dataset.batch_size=2", "dataset.encoder_steps=2")
TWO_DOMAINS = ("dataset.name=digits", "dataset.batch_size=2", "model.generator.base_channels=4")


def shorter(script: str, command: str) -> list[str]:
    """Options that make it short; without measures where the command needs none."""
    few = "callbacks.metrics.num_samples=20"
    return [
        few if option == "callbacks.metrics=null" and NEEDS_MEASURES.search(command) else option
        for option in SHORTER[script]
    ]


def data_of(command: str) -> list[str]:
    """The small data that takes the place of a training command's."""
    if "unpaired_folder" in command:
        return ["dataset=unpaired_folder", "model.generator.base_channels=4"]
    if "image_folder" in command or "own_pictures" in command:
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
    if re.search("model=(cogan|discogan|cyclegan)$", command):
        return list(TWO_DOMAINS)
    if re.search("model=stackgan(_pp)?$", command):
        return list(CAPTIONS)
    return ["dataset=digits"]


def test_the_first_two_lines_set_up_train_and_test() -> None:
    assert BLOCKS[0].endswith("scripts/train.py model=cgan\n")
    assert BLOCKS[1].endswith("-m pytest\n")
    assert all(block.startswith("python3 -m venv .venv && ") for block in BLOCKS[:2])


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_blocks_are_valid_in_a_shell(page: Path) -> None:
    for block in blocks(page):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert checked.returncode == 0, (block, checked.stderr)


@pytest.mark.parametrize("command", slow_but(COMMANDS, [*COMMANDS, *OTHERS]))
def test_commands_run(
    run: Callable[..., CompletedProcess[str]], tmp_path: Path, command: str
) -> None:
    script, *arguments = shlex.split(command, comments=True)[1:]
    name = Path(script).name
    assert (ROOT / script).is_file()
    if "input=" in command:
        run("train.py", "model=cyclegan", *TWO_DOMAINS, *SHORTER["train.py"],
            "hydra.run.dir=RUN_FOLDER")  # fmt: skip
    elif "captions=" in command:
        run("train.py", "model=stackgan", *CAPTIONS, *SHORTER["train.py"],
            "hydra.run.dir=RUN_FOLDER")  # fmt: skip
    elif found := re.search("RUN_FOLDER|runs/default/infogan|latest|root=(FOLDER)?", command):
        places = {"root=FOLDER": "FOLDER/one", "root=": "runs/rates/one", "latest": "runs/one"}
        folder = places.get(found[0], found[0])
        run("train.py", "model=cgan", "dataset=digits", *shorter("train.py", command),
            f"hydra.run.dir={folder}")  # fmt: skip
    for folder in ("PATH/trainA", "PATH/trainB", "FOLDER_OR_IMAGE", "PATH/images", "PATH/text"):
        (tmp_path / folder).mkdir(parents=True)
        for stem in ("one", "two"):
            if folder == "PATH/text":
                (tmp_path / folder / f"{stem}.txt").write_text(f"picture {stem}\n")
            else:
                Image.new("RGB", (40, 30)).save(tmp_path / folder / f"{stem}.png")
    short = shorter(name, command)
    short = [a for a in short if "resume" not in command or a.startswith("trainer.max")]
    short += data_of(command) if name == "train.py" else []
    longer = ("trainer.max_steps", "dataset=", "num_samples=5")
    arguments = [a.replace("seed=0,1,2", "seed=0") for a in arguments if not a.startswith(longer)]
    run(name, *arguments, *[re.sub("=3$", "=5", a) for a in short])
