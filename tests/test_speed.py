"""What ``speed`` chooses, says and keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import gan_zoo
from gan_zoo.ranges import UnfitArgument
from gan_zoo.run import speed
from gan_zoo.run.configuration import composed
from gan_zoo.run.speed import mathematics
from tests.conftest import DIGITS, SHORT, SMALLER
from tests.test_resume import MODELS

Run = Callable[..., CompletedProcess[str]]


def configured(chosen: str, **trainer: object) -> DictConfig:
    options = {"precision": "32-true", "deterministic": None, **trainer}
    own = {"speed": chosen, "channels_last": False, "cuda_graphs": False}
    return OmegaConf.create({**own, "trainer": options})


def cpu() -> torch.device:
    return torch.device("cpu")


def test_the_default_chooses_nothing() -> None:
    assert mathematics(configured("default"), cpu) == ({}, False, False, True, "")


@pytest.mark.parametrize("has", [True, False])
def test_fast_computes_in_bfloat16_where_the_device_does(
    monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(speed, "_has_bfloat16", lambda device: has)
    chosen = mathematics(configured("fast"), cpu)
    assert chosen.trainer == ({"precision": "bf16-mixed"} if has else {})
    assert chosen.channels_last
    assert ("bfloat16 with" if has else "no instructions for bfloat16") in chosen.words


def test_fast_leaves_a_precision_that_was_chosen() -> None:
    chosen = mathematics(configured("fast", precision="16-mixed"), cpu)
    assert chosen.trainer == {}
    assert "16-mixed (trainer.precision)" in chosen.words


@pytest.mark.parametrize("chosen", ["default", "exact"])
def test_the_layout_is_an_option_of_its_own(chosen: str) -> None:
    config = configured(chosen)
    config.channels_last = True
    assert mathematics(config, cpu).channels_last
    assert composed("train", ["model=cogan"]).channels_last
    assert not composed("train", ["model=dcgan"]).channels_last


def test_graphs_may_be_had_in_float32() -> None:
    config = configured("default")
    config.cuda_graphs = True
    trainer, _, graphs, _, words = mathematics(config, lambda: torch.device("cuda"))
    assert (trainer, graphs) == ({}, True)
    assert "CUDA graphs where" in words
    chosen = mathematics(config, cpu)
    assert (chosen.graphs, chosen.words) == (False, "no CUDA graphs, as no GPU trains")
    config.speed = "exact"
    with pytest.raises(UnfitArgument, match="cuda_graphs"):
        mathematics(config, cpu)


def test_exact_is_deterministic_float32() -> None:
    chosen = mathematics(configured("exact"), cpu)
    assert chosen.trainer == {"deterministic": True, "benchmark": False}
    assert not chosen.channels_last


@pytest.mark.parametrize("chosen", ["default", "fast", "exact"])
def test_exact_alone_has_convolutions_in_float32_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str
) -> None:
    # What a job before it in the same process left.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", chosen == "exact")
    options = [*SHORT, f"speed={chosen}", "trainer=cpu", "logger=none"]
    gan_zoo.build("gan", "digits", options, folder=tmp_path)
    assert torch.backends.cudnn.allow_tf32 == (chosen != "exact")


@pytest.mark.parametrize(
    ("option", "value"), [("precision", "bf16-mixed"), ("deterministic", False)]
)
def test_exact_refuses_what_is_not(option: str, value: object) -> None:
    with pytest.raises(UnfitArgument, match=f"trainer.{option}"):
        mathematics(configured("exact", **{option: value}), cpu)


@pytest.mark.parametrize("model", MODELS)
def test_losses_are_float32_under_autocast(model: str, tmp_path: Path) -> None:
    typed = [*SMALLER.get(model, ()), *([DIGITS[model]] if model in DIGITS else [])]
    dataset = None if model in DIGITS else "digits"
    options = [*typed, "trainer=cpu", "trainer.max_steps=4", "logger=none", "dataset.batch_size=16"]
    run = gan_zoo.build(model, dataset, options, folder=tmp_path)
    run.data.prepare_data()
    run.data.setup()
    game = run.model.train()
    game._trainer = run.trainer
    batch = game.as_seen(next(iter(run.data.train_dataloader())))
    losses: dict[bool, list[float]] = {}
    for autocast in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            generated = game.generate(batch)
            for phase in game.phases():
                loss, terms = phase.loss(batch, generated)
                assert loss.dtype == torch.float32
                assert {term.dtype for term in terms.values()} <= {torch.float32}
                losses.setdefault(autocast, []).append(loss.item())
    assert losses[True] == pytest.approx(losses[False], rel=0.05, abs=0.02)


def test_a_fast_run_says_so_and_is_sampled_and_resumed(run: Run, tmp_path: Path) -> None:
    faster = ("trainer.precision=32-true", "speed=fast", "hydra.run.dir=here")
    result = run("train.py", "model=dcgan", *SHORT, *faster)
    assert "Speed   fast: " in result.stdout
    assert "channels last" in result.stdout
    checkpoint = torch.load(tmp_path / "here" / "checkpoints" / "last.ckpt", weights_only=True)
    weights = checkpoint["state_dict"].values()
    assert any(w.is_contiguous(memory_format=torch.channels_last) for w in weights if w.dim() == 4)
    (session,) = json.loads((tmp_path / "here" / "provenance.json").read_text())
    bfloat16 = torch.cpu._is_avx512_bf16_supported()
    assert session["precision"] == ("bf16-mixed" if bfloat16 else "32-true")
    run("sample.py", "checkpoint=here", "num_samples=4")
    run("train.py", "resume=here", "trainer.max_steps=8")
    assert json.loads((tmp_path / "here" / "metrics.json").read_text())["steps"] == 8
    refused = run("train.py", "resume=here", "trainer.max_steps=10", "speed=default", check=False)
    assert refused.returncode == 1
    assert "speed" in refused.stderr
