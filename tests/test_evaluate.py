"""The evaluation commands as people type them, and metrics in training."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_zoo import evaluate, load
from gan_zoo.callbacks import Metrics
from gan_zoo.console import progress
from gan_zoo.evaluate import data_of
from gan_zoo.files import read_json
from gan_zoo.metrics import evaluator as evaluators
from gan_zoo.metrics.measures import Figure
from tests.conftest import FEW, ROOT, slow_but
from tests.same_end import read_checkpoint
from tests.test_train import DIGITS, SHORT, SMALLER

Run = Callable[..., CompletedProcess[str]]
ONE_DOMAIN = ("gan", "cgan", "dcgan", "infogan", "wgan", "wgan_gp", "began", "hdcgan")
FIGURES = {
    "fid", "kid", "score", "precision", "recall", "density", "coverage", "modes", "modes_kl",
    "rarest", "commonest",
    "ms_ssim_within", "ms_ssim_between", "parzen", "memorisation", "nearest_train", "nearest_test",
}  # fmt: skip
LABELLED = {"accuracy", "one_nn"}


def train(run: Run, model: str, *options: str) -> None:
    short = [DIGITS.get(model, SHORT[0]), *SHORT[1:2], "trainer.max_steps=2"]
    if not any(option.startswith("callbacks.metrics") for option in options):
        short.append("callbacks.metrics=null")
    run("train.py", f"model={model}", *short, *SMALLER.get(model, ()), "hydra.run.dir=here",
        *options)  # fmt: skip


def evaluation(folder: Path, key: str = "last.ckpt") -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())["evaluation"][key]


@pytest.mark.parametrize("model", slow_but({*FEW} - {"cyclegan"}, [*ONE_DOMAIN, *DIGITS]))
def test_every_model_is_measured(run: Run, tmp_path: Path, model: str) -> None:
    train(run, model)
    result = run("evaluate.py", "checkpoint=here", "num_samples=30")
    found = evaluation(tmp_path / "here")
    figures = found["figures"]
    domains = [""] if model in ONE_DOMAIN or model.startswith("stackgan") else ["a", "b"]
    labelled = model in ("cgan", "cyclegan", "stackgan", "stackgan_pp")
    for name in FIGURES | (LABELLED if labelled else set()):
        for domain in domains:
            key = f"{name}_{domain}" if domain else name
            if name.startswith("ms_ssim") and key not in figures:
                # No two of the few images are of one class, or all are.
                continue
            assert figures[key]["n_fake"] in (15, 30)
            assert figures[key]["value"] == figures[key]["value"]
            assert key in result.stdout
    assert ("accuracy" in figures or "accuracy_b" in figures) == labelled
    assert {"step", "weights", "seed", "resize", "evaluators"} <= found.keys()
    assert [len(e["hash"]) for e in found["evaluators"].values()] == [12] * len(domains)
    pictures = sorted(path.name for path in (tmp_path / "here").glob("nearest*.png"))
    assert pictures == [f"nearest{'_' if d else ''}{d}.png" for d in domains]
    # The run's own figures are still there.
    assert json.loads((tmp_path / "here" / "metrics.json").read_text())["steps"] == 2


def test_points_have_their_modes_counted(run: Run, tmp_path: Path) -> None:
    run("train.py", "experiment=discogan_toy", "trainer=cpu", "trainer.max_steps=2",
        "hydra.run.dir=here")  # fmt: skip
    run("evaluate.py", "checkpoint=here", "num_samples=500")
    figures = evaluation(tmp_path / "here")["figures"]
    assert set(figures) == {"modes_a", "modes_b", "near_a_mode_a", "near_a_mode_b"}
    assert (figures["modes_a"]["floor"], figures["modes_b"]["floor"]) == (5, 10)


def test_one_seed_gives_the_same_figures_and_others_are_kept(run: Run, tmp_path: Path) -> None:
    train(run, "cgan", "model.ema_decay=0.9")
    command = ("evaluate.py", "checkpoint=here", "num_samples=40")
    run(*command)
    first = evaluation(tmp_path / "here")
    assert first["weights"] == "moving average"
    run(*command)
    assert evaluation(tmp_path / "here") == first
    # One alone replaces itself alone; the checkpoint's file means the same as the run's folder.
    run("evaluate.py", "checkpoint=here/checkpoints/last.ckpt", "num_samples=60", "metrics=[fid]")
    again = evaluation(tmp_path / "here")
    assert again["figures"]["fid"]["n_fake"] == 60
    assert again["figures"]["kid"] == first["figures"]["kid"]
    run(*command, "ema=false", "metrics=[accuracy]")
    raw = evaluation(tmp_path / "here", "last.ckpt (raw)")
    assert (raw["weights"], set(raw["figures"])) == ("raw", {"accuracy"})
    run(*command, "seed=1", "metrics=[fid]")
    assert evaluation(tmp_path / "here")["figures"]["fid"]["value"] != again["figures"]["fid"]
    # Going on with the run does not lose them.
    run("train.py", "resume=here", "trainer.max_steps=3")
    assert evaluation(tmp_path / "here", "last.ckpt (raw)") == raw


def test_evaluations_that_end_together_all_leave_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, names = tmp_path / "metrics.json", ["fid", "kid", "score"]

    def slow_read(*args: Any) -> Any:
        found = read_json(*args)
        time.sleep(0.1)
        return found

    monkeypatch.setattr(evaluate, "read_json", slow_read)
    with ThreadPoolExecutor(3) as threads:
        for name in names:
            row = evaluate.Row(Figure(1.0, None, 5, 5), None)
            threads.submit(evaluate._write, file, "last.ckpt", {"step": 2}, {name: row})
    assert set(evaluation(tmp_path)["figures"]) == set(names)
    assert [place.name for place in tmp_path.iterdir()] == ["metrics.json"]


def test_a_lone_checkpoint_is_measured_where_it_lies(run: Run, tmp_path: Path) -> None:
    train(run, "gan")
    alone = tmp_path / "alone" / "kept.ckpt"
    alone.parent.mkdir()
    (tmp_path / "here" / "checkpoints" / "last.ckpt").rename(alone)
    run("evaluate.py", f"checkpoint={alone}", "num_samples=20", "metrics=[fid,modes]")
    assert set(evaluation(alone.parent, "kept.ckpt")["figures"]) == {
        "fid",
        "modes",
        "modes_kl",
        "rarest",
        "commonest",
    }


def test_the_papers_figure_is_beside_ours_for_its_data_alone(run: Run, tmp_path: Path) -> None:
    train(run, "gan")
    run("evaluate.py", "checkpoint=here", "num_samples=20", "metrics=[parzen]")
    assert "paper" not in evaluation(tmp_path / "here")["figures"]["parzen"]
    model = load(tmp_path / "here")
    assert model.published["mnist", "parzen"] == "225 ± 2"


def test_stacked_mnist_has_a_thousand_modes_to_cover(run: Run, tmp_path: Path) -> None:
    run("train.py", "model=dcgan", "dataset=stacked_mnist", "dataset.name=digits", "trainer=cpu",
        "dataset.train_size=300", "dataset.test_size=90", "dataset.batch_size=16",
        "model.generator.base_channels=8", "model.discriminator.base_channels=8",
        "trainer.max_steps=2", "hydra.run.dir=here")  # fmt: skip
    run("evaluate.py", "checkpoint=here", "num_samples=80", "metrics=[modes,fid,score]")
    found = evaluation(tmp_path / "here")
    assert found["evaluators"][""]["name"] == "digits"
    modes = found["figures"]["modes"]
    assert 1 <= modes["value"] <= 80
    assert modes["detail"] == "of 1,000"
    # 80 real stacks are of nearly 80 kinds.
    assert 60 < modes["floor"] <= 80
    assert data_of(load(tmp_path / "here")).measured_images == 26_000


def test_bad_input_gets_a_line_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    train(run, "gan")
    before = (tmp_path / "here" / "metrics.json").read_text()
    for arguments, culprit in (
        ([], "checkpoint is missing"),
        (["checkpoint=gone"], "no checkpoint 'gone'"),
        (["checkpoint=here", "which=best"], "no 'here/checkpoints/best.ckpt'"),
        (["checkpoint=here", "which=first"], "which is first; it has to be last or best"),
        (["checkpoint=here/checkpoints/last.ckpt", "which=best"], "last.ckpt' is a file"),
        (["checkpoint=gone", "which=best"], "no 'gone/checkpoints/best.ckpt'"),
        (["checkpoint=here", "metrics=[fidd]"], "no metric 'fidd'"),
        (["checkpoint=here", "metrics=[]"], "empty list"),
        (["checkpoint=here", "metrics=[accuracy]"], "accuracy needs a model that is asked"),
        (["checkpoint=here", "num_samples=0"], "num_samples is 0"),
        (["checkpoint=here", "num_samples=many"], "num_samples is many"),
        (["checkpoint=here", "seed=-1"], "seed is -1"),
        (["checkpoint=here", "sead=1"], "did you mean seed?"),
    ):
        result = run("evaluate.py", *arguments, check=False)
        assert result.returncode == 1
        assert culprit in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
    assert (tmp_path / "here" / "metrics.json").read_text() == before
    for arguments, culprit in (
        (["epochs=0"], "epochs is 0"),
        (["output=weights.pt"], ".safetensors"),
        (["domain=b"], "domain is 'b'"),
        (["dataset=gaussian_mixture", "domain=a", "dataset.seed=0"], "no images"),
    ):
        arguments = [*arguments] if "dataset=gaussian_mixture" in arguments else [
            "dataset=digits", *arguments
        ]  # fmt: skip
        result = run("train_evaluator.py", *arguments, check=False)
        assert result.returncode == 1
        assert culprit in result.stderr.splitlines()[-1]


def test_an_evaluator_is_trained_by_command(run: Run, tmp_path: Path) -> None:
    result = run("train_evaluator.py", "dataset=digits", "epochs=1", "output=e.safetensors")
    evaluator = evaluators.load_evaluator(tmp_path / "e.safetensors")
    assert evaluator.name == "digits"
    assert f"hash {evaluator.hash}" in result.stdout
    with safe_open(tmp_path / "e.safetensors", "pt") as content:
        assert float(content.metadata()["accuracy"]) == evaluator.accuracy
    train(run, "gan")
    command = ("evaluate.py", "checkpoint=here", "num_samples=20", "metrics=[fid]")
    run(*command, "evaluator=e.safetensors")
    assert evaluation(tmp_path / "here")["evaluators"][""]["hash"] == evaluator.hash
    for file, culprit in (("gone", "no evaluator 'gone'"), ("here/metrics.json", "is damaged")):
        result = run(*command, f"evaluator={file}", check=False)
        assert result.returncode == 1
        assert culprit in result.stderr.splitlines()[-1]


def test_names_from_files_are_no_markup(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = evaluators.packaged_evaluator("mnist")
    assert evaluator is not None
    evaluator.name = "[/red] :smile:"
    evaluators.save_evaluator(evaluator, tmp_path / "e.safetensors")
    train(run, "gan")
    command = ("evaluate.py", "checkpoint=here", "num_samples=20", "metrics=[fid]")
    result = run(*command, "evaluator=e.safetensors")
    assert f"evaluator: [/red] :smile: {evaluator.hash}" in result.stdout
    # As on a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress() as stage:
        stage("[/red]")(0.5)


MEASURED = ("callbacks.metrics.every_n_steps=2", "callbacks.metrics.num_samples=40",
            "callbacks.metrics.max_share=null")  # fmt: skip


def test_metrics_in_training(run: Run, tmp_path: Path) -> None:
    run("train.py", "model=cgan", *SHORT[:2], "trainer.max_steps=5", *MEASURED,
        "hydra.run.dir=here")  # fmt: skip
    events = EventAccumulator(str(tmp_path / "here")).Reload()
    fids = events.Scalars("metrics/fid")
    # At the interval, and after the last iteration.
    assert [event.step for event in fids] == [2, 4, 5]
    scalars = set(events.Tags()["scalars"])
    assert {"metrics/score", "metrics/precision", "metrics/coverage", "metrics/modes"} <= scalars
    assert {"metrics/accuracy", "metrics_floor/fid", "metrics_floor/accuracy"} <= scalars
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert metrics["metrics/fid"] == pytest.approx(fids[-1].value)
    best = min(fids, key=lambda event: event.value)
    # The floor is a line in charts.
    floors = events.Scalars("metrics_floor/fid")
    assert [event.step for event in floors] == [2, 4, 5]
    assert len({event.value for event in floors}) == 1
    column = events.Scalars("best/fid")
    assert (column[-1].step, column[-1].value) == (best.step, best.value)
    assert metrics["best/fid"] == pytest.approx(best.value)
    assert metrics["best/step"] == best.step
    best_one = read_checkpoint(tmp_path / "here/checkpoints/best.ckpt")
    assert best_one["global_step"] == best.step
    # It is not resumed.
    assert "optimizer_states" not in best_one
    # They don't change what is trained, and a resumed run continues the record.
    run("train.py", "model=cgan", *SHORT[:2], "trainer.max_steps=5", "~callbacks.metrics",
        "hydra.run.dir=without")  # fmt: skip
    weights = [read_checkpoint(tmp_path / name)["state_dict"] for name in ("here", "without")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    run("train.py", "resume=here", "trainer.max_steps=6")
    state = read_checkpoint(tmp_path / "here")["callbacks"]["Metrics"]
    assert state["best"] <= metrics["best/fid"]
    outputs = []
    for asked in (["here"], ["here", "which=best"], ["here/checkpoints/best.ckpt"]):
        result = run("sample.py", f"checkpoint={asked[0]}", *asked[1:], "num_samples=4",
                     f"output={len(outputs)}.png")  # fmt: skip
        outputs.append((tmp_path / f"{len(outputs)}.png").read_bytes())
        assert ("last.ckpt" if asked == ["here"] else "best.ckpt") in result.stdout
    assert (outputs[0] == outputs[1]) == (state["best_step"] == 6)
    assert outputs[1] == outputs[2]
    run("evaluate.py", "checkpoint=here", "which=best", "num_samples=20", "metrics=[fid]")
    assert evaluation(tmp_path / "here", "best.ckpt")["step"] == state["best_step"]


def test_when_distances_were_first_reached(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of an untrained net, and of no net.
    monkeypatch.setattr("gan_zoo.callbacks.metrics.LEVELS", (10**6, 0))
    run("train.py", "model=cgan", *SHORT[:2], "trainer.max_steps=5", *MEASURED,
        "dataset.batch_size=16", "hydra.run.dir=here")  # fmt: skip
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    reached = {key: value for key, value in metrics.items() if key.startswith("reached/")}
    assert reached.keys() == {"reached/fid_1000000_seconds", "reached/fid_1000000_images"}
    assert reached["reached/fid_1000000_images"] == 2 * 16
    # Measuring is not training.
    trained = read_checkpoint(tmp_path / "here")["callbacks"]["Metrics"]["seconds"]
    assert 0 < reached["reached/fid_1000000_seconds"] < trained < metrics["seconds"]
    events = EventAccumulator(str(tmp_path / "here")).Reload()
    assert [event.step for event in events.Scalars("reached/fid_1000000_images")] == [2]
    run("train.py", "resume=here", "trainer.max_steps=8")
    again = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert {key: again[key] for key in reached} == reached
    assert read_checkpoint(tmp_path / "here")["callbacks"]["Metrics"]["seconds"] > trained


def test_the_best_checkpoint_is_chosen_on_validation_images(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def parts(*options: str) -> set[str]:
        shutil.rmtree(tmp_path / "cache" / "floors", ignore_errors=True)
        run("train.py", "model=gan", *SHORT[:2], "trainer.max_steps=2", *MEASURED,
            *options, GAN_ZOO_CACHE_DIR="cache")  # fmt: skip
        return {path.name.split("-")[1] for path in (tmp_path / "cache" / "floors").iterdir()}

    assert parts("hydra.run.dir=here") == {"val"}
    run(
        "evaluate.py",
        "checkpoint=here",
        "num_samples=20",
        "metrics=[fid]",
        GAN_ZOO_CACHE_DIR="fresh",
    )
    assert [path.name.split("-")[1] for path in (tmp_path / "fresh" / "floors").iterdir()] == [
        "test"
    ]
    assert "images are held out" not in caplog.text
    # The log of a run in this process reaches its file alone.
    assert parts("hydra.run.dir=all", "dataset.val_size=0") == {"train"}
    text = (tmp_path / "all" / "train.log").read_text()
    assert text.count("images are held out (dataset.val_size)") == 1


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("precision_a", [0.2, 0.9, 0.5], 0.9),
        ("modes", [3.0, 9.0, 5.0], 9.0),
        ("fid_b", [3.0, 1.0, 2.0], 1.0),
        ("modes_kl", [3.0, 1.0, 2.0], 1.0),
        ("modes_kl_a", [3.0, 1.0, 2.0], 1.0),
    ],
)
def test_the_best_is_the_highest_or_the_lowest_as_the_measure_says(
    tmp_path: Path, monitor: str, values: list[float], best: float
) -> None:
    class Trainer:
        loggers = ()
        global_step = 0
        default_root_dir = str(tmp_path)

        def save_checkpoint(self, path: Path, weights_only: bool) -> None:
            path.parent.mkdir(exist_ok=True)
            path.write_text(str(self.global_step))

    metrics, trainer = Metrics(monitor=monitor), Trainer()
    for trainer.global_step, value in enumerate(values):
        metrics._keep_best(trainer, {monitor: value})  # type: ignore[arg-type]
    assert metrics.best == best
    assert (tmp_path / "checkpoints" / "best.ckpt").read_text() == str(values.index(best))


def test_two_domains_are_measured_in_training_with_their_mean(run: Run, tmp_path: Path) -> None:
    train(run, "cyclegan", *MEASURED)
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    mean = (metrics["metrics/fid_a"] + metrics["metrics/fid_b"]) / 2
    assert metrics["metrics/fid"] == pytest.approx(mean)


def test_a_run_shorter_than_the_interval_is_measured_at_its_end(run: Run, tmp_path: Path) -> None:
    train(run, "gan", "callbacks.metrics.num_samples=40")
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert metrics["best/step"] == metrics["steps"] < Metrics().every_n_steps
    assert metrics["best/fid"] == metrics["metrics/fid"]
    best = read_checkpoint(tmp_path / "here" / "checkpoints" / "best.ckpt")
    assert best["global_step"] == metrics["steps"]


def test_points_are_not_measured(run: Run, tmp_path: Path) -> None:
    run("train.py", "experiment=discogan_toy", "trainer=cpu", "trainer.max_steps=2", *MEASURED,
        "hydra.run.dir=toy")  # fmt: skip
    assert "metrics/fid" not in json.loads((tmp_path / "toy" / "metrics.json").read_text())


def test_measuring_takes_no_more_than_its_share() -> None:
    class Strategy:
        def broadcast(self, value: int) -> int:
            return value

    class Trainer:
        strategy = Strategy()
        is_global_zero = True

    def intervals(*measurements: tuple[float, float]) -> list[int]:
        metrics = Metrics(every_n_steps=100, max_share=0.05)
        found = []
        for cost, step_time in measurements:
            metrics._bound(Trainer(), cost, step_time)  # type: ignore[arg-type]
            found.append(metrics._interval)
            # As resumed.
            state = metrics.state_dict()
            metrics = Metrics(every_n_steps=100, max_share=0.05)
            metrics.load_state_dict(state)
        return found

    fast, slow, stalled = (1.0, 0.3), (1.0, 0.05), (20.0, 0.05)
    assert intervals(fast, fast, fast) == [100, 100, 100]
    # 1 s is 5 % of 20 s, which are 400 iterations of .05 s.
    assert intervals(slow, slow, slow) == [100, 400, 400]
    # One that was stopped for a while changes nothing, whichever it is.
    for place in range(5):
        measurements = [fast] * 5
        measurements[place] = stalled
        assert intervals(*measurements) == [100] * 5
    # A machine that was busy for a while is forgotten.
    assert intervals(*[slow] * 5, *[fast] * 5)[-1] == 100


@pytest.mark.parametrize(
    ("option", "value"),
    [("metrics", ["parzen"]), ("num_samples", 1), ("every_n_steps", 0), ("max_share", 0)],
)
def test_options_out_of_range_are_named(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{option} "):
        Metrics(**{option: value})


@pytest.mark.slow
def test_two_processes_measure_together(spawn: Run, tmp_path: Path) -> None:
    (tmp_path / "rank_figures.py").write_text(
        "import json, pathlib, pytorch_lightning as pl\n"
        "class Keep(pl.Callback):\n"
        "    def on_fit_end(self, trainer, model):\n"
        "        metrics, = [c for c in trainer.callbacks if type(c).__name__ == 'Metrics']\n"
        "        path = pathlib.Path(f'figures{trainer.global_rank}')\n"
        "        path.write_text(json.dumps([metrics.measured, metrics.best]))\n"
    )
    spawn(
        str(ROOT / "scripts" / "train.py"), "model=cgan", "dataset=digits", "trainer=ddp_cpu",
        "dataset.batch_size=16", "trainer.max_steps=3", *MEASURED,
        "+callbacks.keep._target_=rank_figures.Keep", "hydra.run.dir=here",
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )  # fmt: skip
    ranks = [json.loads((tmp_path / f"figures{rank}").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert {"metrics/fid", "metrics/accuracy"} <= ranks[0][0].keys()
    assert (tmp_path / "here" / "checkpoints" / "best.ckpt").is_file()


def picture_folder(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(seed)
    for number in range(count):
        pixels = torch.randint(0, 256, (32, 32, 3), generator=random, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")


def test_pictures_without_classes_are_measured_by_their_pixels(run: Run, tmp_path: Path) -> None:
    for part in ("trainA", "trainB"):
        picture_folder(tmp_path / "pictures" / part, 6, 0)
    run("train.py", "model=cyclegan", "dataset=unpaired_folder", "dataset.root=pictures",
        "dataset.image_size=32", "model.generator.base_channels=4", "trainer=cpu",
        "trainer.max_steps=2", *MEASURED, "hydra.run.dir=here")  # fmt: skip
    result = run("evaluate.py", "checkpoint=here", check=False)
    assert result.returncode == 1
    assert "testA and testB" in result.stderr
    for part in ("testA", "testB"):
        picture_folder(tmp_path / "pictures" / part, 4, 1)
    run("evaluate.py", "checkpoint=here")
    found = evaluation(tmp_path / "here")
    assert {"parzen_a", "parzen_b", "memorisation_a", "nearest_test_b"} <= found["figures"].keys()
    assert found["figures"]["parzen_a"]["n_fake"] == 4
    assert found["evaluators"] == {}
    # Their borders are no frame.
    assert found["resize"] == "32 to 28 pixels, bilinear, antialiased"
    result = run("evaluate.py", "checkpoint=here", "metrics=[fid]", check=False)
    assert "fid needs the classes of the images" in result.stderr


@pytest.mark.slow
def test_captioned_folders_have_an_evaluator_of_all_their_classes(run: Run, tmp_path: Path) -> None:
    for kind in range(5):
        picture_folder(tmp_path / "flowers" / "images" / f"kind{kind}", 4, kind)
        (tmp_path / "flowers" / "text" / f"kind{kind}").mkdir(parents=True)
        for number in range(4):
            text = tmp_path / "flowers" / "text" / f"kind{kind}" / f"{number}.txt"
            text.write_text(f"a picture of kind number {kind}\n")
    run("train.py", "model=stackgan_pp", "dataset=caption_folder", "dataset.root=flowers",
        "dataset.image_size=32", "dataset.batch_size=4", "dataset.encoder_steps=2", "trainer=cpu",
        "trainer.max_steps=2", "hydra.run.dir=here")  # fmt: skip
    run("evaluate.py", "checkpoint=here", "num_samples=12", "metrics=[fid,accuracy,modes]")
    found = evaluation(tmp_path / "here")
    assert found["figures"]["modes"]["detail"].startswith("of 5")
    # The test class is not among the training pictures, and the evaluator knows it all the same.
    data = data_of(load(tmp_path / "here"))
    test = set(data.labelled("", "test").labels.tolist())
    assert test.isdisjoint(data.labelled("", "train").labels.tolist())
    known = data.evaluator_images("", train=True)
    assert test < set(known.labels.tolist())
    # Batches may mix the parts.
    first, last = (known.__getitems__([row]).image for row in (0, len(known) - 1))
    mixed = known.__getitems__([len(known) - 1, 0])
    assert mixed.label.tolist() == known.labels[[-1, 0]].tolist()
    assert torch.equal(mixed.image[:1], last)
    assert mixed.image[1:].shape == first.shape


@pytest.mark.slow
def test_usps_has_an_evaluator_of_its_own(run: Run, tmp_path: Path) -> None:
    run("train.py", "model=cogan", "dataset=mnist_usps", "dataset.name=digits",
        "dataset.val_size=0", *SMALLER["cogan"], "trainer=cpu", "trainer.max_steps=2",
        "hydra.run.dir=here")  # fmt: skip
    run("evaluate.py", "checkpoint=here", "num_samples=20", "metrics=[fid]")
    found = evaluation(tmp_path / "here")
    assert [e["name"] for e in found["evaluators"].values()] == ["digits", "digits_usps"]
