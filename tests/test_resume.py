"""A run that was interrupted ends where one that was not ends, to the last bit."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from omegaconf import OmegaConf

from gan_zoo.training.checkpoints import CheckpointFiles
from gan_zoo.training.module import AdversarialModule
from tests.conftest import DIGITS, ROOT, SMALLER, slow_but
from tests.same_end import assert_same_end, differing, logged, read_checkpoint, state

Run = Callable[..., CompletedProcess[str]]

TRAIN = str(ROOT / "scripts" / "train.py")
MODELS = (
    "gan", "cgan", "dcgan", "hdcgan", "infogan", "wgan", "wgan_gp", "r3gan", "cogan", "began",
    "discogan", "cyclegan", "stackgan", "stackgan_pp",
)  # fmt: skip
ITERATIONS = 10
# Epochs of three iterations with validation after each, and a checkpoint every two.
SHORT = (
    "trainer=cpu", "trainer.log_every_n_steps=1", f"trainer.max_steps={ITERATIONS}",
    "trainer.limit_train_batches=3", "callbacks.checkpoint.every_n_train_steps=2",
    "callbacks.sample_grid.every_n_steps=4", "callbacks.metrics=null",
)  # fmt: skip
# What each model has of its own to keep.
OWN = {
    "gan": ("model.accumulate_grad_batches=4", "model.penalty_interval=1"),
    "wgan": ("model.n_critic=3",),
    "wgan_gp": ("model.n_critic=3",),
    "began": ("model/scheduler=plateau", "dataset.batch_size=8"),
    "cyclegan": ("model.pool_size=6",),
    "dcgan": ("dataset.batch_size=32", "model.generator.base_channels=8"),
    "infogan": ("dataset.batch_size=32",),
}


def small(model: str) -> tuple[str, ...]:
    """A short run of that model."""
    digits = DIGITS.get(model, "dataset=digits")
    own = (*SMALLER.get(model, ()), *OWN.get(model, ()))
    return (f"model={model}", digits, "dataset.val_size=20", *SHORT, *own)


IN_ONE_PROCESS = ("same run twice", "from mid-epoch", "from an epoch's end", "with workers")
AFTER_SIGKILL = {"cpu": "after SIGKILL", "ddp_cpu": "2 processes, after SIGKILL"}
# Runs a script whose first process is killed in the midst of an iteration.
KILLED = """
import os, runpy, signal, sys
from gan_zoo.training.module import AdversarialModule

def break_off(model, batch_size):
    if model.trainer.global_step + 1 == int(os.environ["KILL_IN"]):
        os.kill(os.getpid(), signal.SIGKILL)
    end_iteration(model, batch_size)

end_iteration, AdversarialModule._end_iteration = AdversarialModule._end_iteration, break_off
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Killed(BaseException):
    """Ends a run where it stands, as nothing in it expects."""


@contextmanager
def killed_in(iteration: int) -> Iterator[None]:
    """Ends runs in the midst of that iteration."""

    def break_off(model: AdversarialModule, batch_size: int) -> None:
        if model.trainer.global_step + 1 == iteration:
            raise Killed
        end_iteration(model, batch_size)

    end_iteration = AdversarialModule._end_iteration
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversarialModule, "_end_iteration", break_off)
        with pytest.raises(Killed):
            yield


# Some whose state is more than weights, optimizers and averages; the others take as long.
QUICK_ONES = ("wgan_gp", "cyclegan", "stackgan")


@pytest.mark.parametrize("model", slow_but(QUICK_ONES, MODELS))
def test_every_model_goes_on_as_if_nothing_had_happened(
    run: Run, table: Callable[..., None], tmp_path: Path, model: str
) -> None:
    command = ("train.py", *small(model))
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run(*command, "hydra.run.dir=straight")
    run(*command, "hydra.run.dir=again")
    assert_same_end(tmp_path / "again", straight)
    with killed_in(6):
        run(*command, "hydra.run.dir=broken")
    # From within the second epoch, and then from its end; its loader has processes of its own.
    assert read_checkpoint(broken)["global_step"] == 4
    with killed_in(7):
        run("train.py", "resume=broken")
    assert read_checkpoint(broken)["global_step"] == 6
    run("train.py", "resume=broken", "dataset.num_workers=2", "resume.allow=[dataset.num_workers]")
    assert_same_end(broken, straight)
    table("model", model, **dict.fromkeys(IN_ONE_PROCESS, "exact"))


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_survives_sigkill(
    spawn: Run, table: Callable[..., None], tmp_path: Path, model: str, trainer: str
) -> None:
    killed_and_resumed(spawn, tmp_path, model, trainer)
    table("model", model, **{AFTER_SIGKILL[trainer]: "exact"})


@pytest.mark.slow
def test_two_processes_survive_sigkill(spawn: Run, tmp_path: Path) -> None:
    # Each process has an image pool of its own.
    killed_and_resumed(spawn, tmp_path, "cyclegan", "ddp_cpu")


def killed_and_resumed(spawn: Run, tmp_path: Path, model: str, trainer: str) -> None:
    """Kills runs within iterations 6 and 9, and holds their end against one that was not."""
    options = (*small(model), f"trainer={trainer}")
    spawn(TRAIN, *options, "hydra.run.dir=straight")
    (tmp_path / "killed.py").write_text(KILLED)
    first = spawn("killed.py", TRAIN, *options, "hydra.run.dir=here", check=False, KILL_IN="6")
    assert first.returncode == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "here")["global_step"] == 4
    second = spawn("killed.py", TRAIN, "resume=here", check=False, KILL_IN="9")
    assert second.returncode == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "here")["global_step"] == 8
    spawn(TRAIN, "resume=here")
    assert_same_end(tmp_path / "here", tmp_path / "straight")


def test_a_run_may_be_trained_for_longer(run: Run, tmp_path: Path) -> None:
    # The default's rates fall over the run's length.
    options = (*small("wgan"), "model.scheduler=null")
    run("train.py", *options, "hydra.run.dir=straight")
    short = [a for a in options if not a.startswith("trainer.max_steps")]
    run("train.py", *short, "trainer.max_steps=5", "hydra.run.dir=here")
    run("train.py", "resume=here", f"trainer.max_steps={ITERATIONS}")
    here, straight = tmp_path / "here", tmp_path / "straight"
    assert differing(state(here), state(straight)) == []
    # The old end has its picture still.
    assert (here / "samples" / "step-000005.png").is_file()
    assert logged(here)["train/loss_d"] == logged(straight)["train/loss_d"]
    # The run as it is now.
    (text,) = logged(here)["run/settings/text_summary"]
    assert f"| max_steps | {ITERATIONS} |" in text[1][0].decode()
    again = run("train.py", "resume=here")
    assert "has its 10 iterations already" in again.stdout


def test_a_run_without_a_checkpoint_begins_again(run: Run, tmp_path: Path) -> None:
    command = ("train.py", *small("gan"))
    run(*command, "hydra.run.dir=straight")
    with killed_in(2):
        run(*command, "hydra.run.dir=here")
    assert not (tmp_path / "here" / "checkpoints").exists()
    run("train.py", "resume=here")
    assert_same_end(tmp_path / "here", tmp_path / "straight")


def test_changes_are_refused_unless_they_are_allowed(run: Run, tmp_path: Path) -> None:
    run("train.py", *small("gan"), "hydra.run.dir=here")
    longer = ("train.py", "resume=here", "trainer.max_steps=12")
    rates = ("model.optimizer_d.lr=0.1", "model.optimizer_g.lr=0.1")
    before = (tmp_path / "here" / ".hydra" / "config.yaml").read_bytes()
    for options, culprits in (
        (rates, ("model.optimizer_d.lr from 0.0005 to 0.1", "model.optimizer_g.lr")),
        ((*rates, "resume.allow=[model.optimizer_d]"), ("model.optimizer_g.lr",)),
        (("trainer.max_steps=9",), ("trainer.max_steps from 10 to 9",)),
        (("~callbacks.sample_grid",), ("callbacks.sample_grid.every_n_steps",)),
        (("seed=1",), ("seed from 0 to 1",)),
    ):
        refused = run(*longer, *options, check=False)
        assert refused.returncode == 1
        assert all(culprit in refused.stderr for culprit in culprits)
        assert (tmp_path / "here" / ".hydra" / "config.yaml").read_bytes() == before
    run(*longer, *rates, "resume.allow=[model.optimizer_d,model.optimizer_g]")
    # What was allowed is the run's own now.
    run("train.py", "resume=here", "trainer.max_steps=14")
    config = read_checkpoint(tmp_path / "here")["config"]
    assert config["model"]["optimizer_d"]["lr"] == 0.1


def test_an_older_versions_run_lacks_options(run: Run, tmp_path: Path) -> None:
    run("train.py", *small("gan"), "hydra.run.dir=here")
    saved = tmp_path / "here" / ".hydra" / "config.yaml"
    config = OmegaConf.load(saved)
    checkpoint = read_checkpoint(tmp_path / "here")
    for options in (config, checkpoint["config"]):
        del options["init_from"], options["trust"], options["resume"]
        del options["model"]["penalty_interval"], options["callbacks"]["checkpoint"]["keep_last"]
    OmegaConf.save(config, saved)
    for file in (tmp_path / "here" / "checkpoints").iterdir():
        CheckpointFiles().save_checkpoint(checkpoint, file)
    run("train.py", "resume=here", "trainer.max_steps=12")
    run("sample.py", "checkpoint=here", "num_samples=4")
    assert read_checkpoint(tmp_path / "here")["global_step"] == 12


def test_own_packages_have_to_be_vouched_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_gans.py").write_text(
        "from gan_zoo.models import GAN\n\nclass Mine(GAN):\n    pass\n"
    )
    run("train.py", *small("gan"), "model._target_=my_gans.Mine", "hydra.run.dir=here")
    saved = tmp_path / "here" / ".hydra" / "config.yaml"
    saved.write_text(saved.read_text().replace("trust: []", "trust: [my_gans]"))
    for command in (
        ("train.py", "resume=here", "trainer.max_steps=11"),
        ("sample.py", "checkpoint=here", "num_samples=2"),
        ("evaluate.py", "checkpoint=here", "num_samples=30", "metrics=[fid]"),
    ):
        refused = run(*command, check=False)
        assert refused.returncode == 1
        assert "my_gans.Mine" in refused.stderr
        assert "trust=my_gans" in refused.stderr
        run(*command, "trust=my_gans")
    assert read_checkpoint(tmp_path / "here")["global_step"] == 11
