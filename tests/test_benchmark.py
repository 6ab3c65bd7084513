"""The bare loop trains as the framework does, and the benchmark tells what both take."""

from __future__ import annotations

import json
import runpy
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

import gan_zoo
from gan_zoo.benchmark import table
from gan_zoo.ranges import UnfitArgument
from gan_zoo.run.configuration import composed
from gan_zoo.timing import PARTS, BareLoop, Turns
from gan_zoo.training.module import AdversarialModule
from tests.conftest import DIGITS, FEW, ROOT, SMALLER, fit, random_batches, slow_but, small_gan
from tests.same_end import differing
from tests.test_resume import MODELS, OWN

Run = Callable[..., CompletedProcess[str]]
STEPS = 5


class _Keep(pl.Callback):
    """Keeps the batches that were trained on."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, number: int) -> None:
        self.batches.append(batch)


def seeded(loop: BareLoop) -> None:
    """An iteration that draws what the framework's does."""
    loop.model._seed_generators("iteration", loop.trainer.global_step + 1)
    loop.iterate()


@pytest.mark.parametrize("model", slow_but(FEW, MODELS))
def test_the_bare_loop_trains_as_the_framework_does(model: str, tmp_path: Path) -> None:
    own = [o for o in (*SMALLER.get(model, ()), *OWN.get(model, ())) if "accumulate" not in o]
    typed = [
        *own, DIGITS.get(model, ""), "trainer=cpu", f"trainer.max_steps={STEPS}",
        "trainer.limit_train_batches=3", "trainer.limit_val_batches=0", "logger=none", "seed=3",
        "callbacks.metrics=null", "callbacks.sample_grid=null",
    ]  # fmt: skip
    dataset = None if model in DIGITS else "digits"
    built = gan_zoo.build(model, dataset, [t for t in typed if t], folder=tmp_path / "run")
    kept = _Keep()
    built.trainer.callbacks.append(kept)  # type: ignore[attr-defined]
    bare: AdversarialModule = gan_zoo.build(
        model, dataset, [t for t in typed if t], folder=tmp_path / "bare"
    ).model
    built.trainer.fit(built.model, built.data)
    loop = BareLoop(bare, kept.batches, STEPS, data=built.data)
    for _ in range(STEPS):
        seeded(loop)
    trained, same = built.model.state_dict(), loop.model.state_dict()
    assert differing(dict(trained), dict(same)) == []
    assert differing(dict(bare.state_dict()), dict(same))


def test_gradients_are_clipped_in_the_bare_loop_too() -> None:
    loader = random_batches(3)
    models = [small_gan(gradient_clip_val=0.01) for _ in range(2)]
    for model in models:
        model.config["seed"] = 0
    fit(models[0], loader)
    loop = BareLoop(models[1], list(loader))
    for _ in loader:
        seeded(loop)
    for a, b in zip(models[0].parameters(), loop.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_bare_loop_accumulates_nothing() -> None:
    with pytest.raises(UnfitArgument, match="accumulate_grad_batches"):
        BareLoop(small_gan(accumulate_grad_batches=2), list(random_batches(1)))


def test_sides_work_in_turn() -> None:
    turns = Turns(("a", "b", "c"), 3, torch.device("cpu"))
    order: list[str] = []
    blocks_at_end: list[int] = []

    def work(side: str) -> None:
        turns.begin(side)
        for _ in range(3):
            order.append(side)
            turns.stop(side)
            turns.pass_on(side)
        blocks_at_end.append(len(order))

    threads = [threading.Thread(target=work, args=(side,)) for side in "cab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert "".join(order) == 3 * "abc"
    assert [len(turns.seconds[side]) for side in "abc"] == [3, 3, 3]
    # What a side does after its turns would disturb the others' last ones.
    assert blocks_at_end == [9, 9, 9]


def test_a_side_that_fails_ends_the_others() -> None:
    turns = Turns(("a", "b"), 3, torch.device("cpu"))
    raised: list[Exception] = []

    def wait() -> None:
        try:
            turns.begin("b")
        except ArithmeticError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    turns.fail(ArithmeticError("diverged"))
    thread.join(10)
    assert [str(error) for error in raised] == ["diverged"]


def test_the_benchmark_tells_rates_efficiency_and_parts(run: Run, tmp_path: Path) -> None:
    result = run(
        "benchmark.py", "model=gan", "dataset=digits", "trainer=cpu", "block=2", "rounds=3",
        "output=speed.json", "plot=cost.png", "dataset.batch_size=16",
        "model.generator.hidden=[32]", "model.discriminator.hidden=[32]",
    )  # fmt: skip
    assert "efficiency" in result.stdout
    measured = json.loads((tmp_path / "speed.json").read_text())
    assert measured["batch_size"] == 16
    for side in measured["sides"].values():
        assert side["images_per_second"] == pytest.approx(1000 * 16 / side["ms"])
        low, high = side["efficiency_quartiles"]
        assert low <= side["efficiency"] <= high
    assert measured["sides"]["bare"]["efficiency"] == 1
    assert set(measured["parts"]) == set(PARTS)
    assert sum(measured["parts"].values()) == pytest.approx(1)
    assert all(measured["parts"][part] > 0 for part in ("data", "forward", "backward", "optimizer"))
    # Counted from when the command was loaded, which here other tests have done.
    assert measured["first_iteration_seconds"] > 0
    assert 100 < measured["peak_memory_mb"] <= measured["peak_memory_at_end_mb"] < 4000
    assert len(measured["held_memory_mb"]) == measured["rounds"] + 1
    assert all(
        100 < held <= measured["peak_memory_at_end_mb"] * 1.05
        for held in measured["held_memory_mb"]
    )
    assert {cost["axis"] for cost in measured["costs"]} == {"batch size", "image size", "width"}
    assert (tmp_path / "cost.png").stat().st_size > 10_000
    assert table([measured]).count("\n") == 2


@pytest.mark.slow
def test_all_models_are_measured(spawn: Run, tmp_path: Path) -> None:
    result = spawn(
        str(ROOT / "scripts" / "benchmark.py"), "model=all", "trainer=cpu", "block=1", "rounds=3",
        "output=speed.json", timeout=1200,
    )  # fmt: skip
    measured = json.loads((tmp_path / "speed.json").read_text())
    assert sorted(m["model"] for m in measured) == sorted(MODELS)
    assert all(f"| `{model}` |" in result.stdout for model in MODELS)


# Generator and discriminator of the popular scripts, worked out by hand; their linear layers before
# batch norm have a bias as well, which it takes away: 256, 512 and 1,024 in the MLP.
PEERS = {
    "gan": (
        (100 + 1) * 128 + (128 + 2) * 256 + (256 + 2) * 512 + (512 + 2) * 1024 + 1025 * 784,
        785 * 512 + 513 * 256 + 257,
    ),
    "dcgan": (
        101 * 128 * 8**2 + 2 * 128 + (9 * 128 + 1 + 2) * 128 + (9 * 128 + 1 + 2) * 64 + 9 * 64 + 1,
        (9 + 1) * 16 + (9 * 16 + 3) * 32 + (9 * 32 + 3) * 64 + (9 * 64 + 3) * 128 + 128 * 2**2 + 1,
    ),
}
PEERS["wgan_gp"] = PEERS["gan"]


@pytest.mark.parametrize("name", PEERS)
def test_peers_have_the_scripts_networks(name: str) -> None:
    config = composed("train", [f"experiment=peer/{name}"])
    model = instantiate(config.model)
    networks = (model.generator, model.discriminator)
    assert tuple(sum(p.numel() for p in n.parameters()) for n in networks) == PEERS[name]
    size = config.dataset.image_size
    images = model.generator(torch.randn(3, 100))
    assert images.shape == (3, 1, size, size)
    assert model.discriminator(images).shape == (3, 1)
    assert config.dataset.batch_size == 64
    assert not model.ema


def test_a_script_is_timed_by_the_batches_that_it_tells(tmp_path: Path) -> None:
    peers = runpy.run_path(str(ROOT / "scripts" / "peers.py"))
    script = tmp_path / "gan.py"
    script.write_text(
        "import time\nfor i in range(0, 10**6, 5):\n"
        "    time.sleep(.05)\n    print(f'[Epoch 0/200] [Batch {i}/938] [D loss: 1.0]')\n"
    )
    # A line each 50 ms tells of five batches.
    assert 9 < peers["peer_ms"](script, tmp_path, 40) < 40
    script.write_text("raise SystemExit('no such dataset')")
    with pytest.raises(SystemExit, match="no such dataset"):
        peers["peer_ms"](script, tmp_path, 40)
