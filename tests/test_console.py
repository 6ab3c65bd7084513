"""What commands say, what runs and jobs are called, and how the latest run is meant."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from omegaconf import OmegaConf

from gan_zoo.callbacks import TrainingProgress
from gan_zoo.files import CONFIG_DIR
from gan_zoo.run.configuration import _words, as_typed, composed, readable, run_name, text_of
from gan_zoo.run.folder import new_folder
from tests.conftest import ROOT, slow_but

Run = Callable[..., CompletedProcess[str]]

TRAIN = str(ROOT / "scripts" / "train.py")
QUICK = ("dataset=digits", "trainer=cpu", "trainer.max_steps=2", "callbacks.metrics=null",
         "logger=none")  # fmt: skip
MEASURED = ("dataset=digits", "trainer=cpu", "trainer.max_steps=2", "logger=none",
            "callbacks.metrics.every_n_steps=1", "callbacks.metrics.num_samples=20",
            "callbacks.metrics.metrics=[fid]", "callbacks.metrics.max_share=null")  # fmt: skip
COMMANDS = ("train", "sample", "evaluate", "export", "benchmark", "train_evaluator",
            "reproduce")  # fmt: skip


# Names.


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("model.optimizer_g.lr=0.0004", "lr_g=0.0004"),
        ("model.optimizer_d.lr=0.000123456", "lr_d=0.0001235"),
        ("model.optimizer_g.betas=[0.5,0.999]", "betas_g=0.5-0.999"),
        ("model.optimizer_g.lr=-1", "lr_g=-1"),
        ("seed=3", "seed=3"),
        ("callbacks.metrics.seed=3", "metrics.seed=3"),
        ("callbacks.metrics.every_n_steps=9", "metrics.every_n_steps=9"),
        ("model.generator.hidden=[16,8]", "generator.hidden=16-8"),
        ("model.latent_dim=64", "latent_dim=64"),
        ("dataset.batch_size=8", "batch_size=8"),
        ("trainer.max_steps=7", "max_steps=7"),
        ("model.loss=hinge", "loss=hinge"),
        ("model.penalty=null", "penalty=null"),
        ("model=cgan", "model=cgan"),
        ("dataset=kmnist", "dataset=kmnist"),
        ("experiment=paper/gan", "experiment=gan"),
        ("model/generator=mlp_2014", "generator=mlp_2014"),
        ("model/optimizer@model.optimizer_g=rmsprop", "optimizer_g=rmsprop"),
        ("+model.optimizer_g.eps=1", "eps_g=1"),
        ("~callbacks.sample_grid", "no-sample_grid"),
        ("dataset.root=/some where/faces (old)/", "root=faces-old"),
        ("dataset.root='a $b;c\"d*é'", "root=a-b-c-d"),
        ("dataset.root=..", "root="),
    ],
)
def test_an_option_is_called_by_its_shortest_unambiguous_end(override: str, word: str) -> None:
    assert _words([override], composed("train"))[0] == word


def test_long_names_are_cut_where_they_are_long() -> None:
    names = _words(["seed=1", f"tags={'a' * 200}", "model.loss=hinge"], composed("train"))
    assert (names[0], names[2]) == ("seed=1", "loss=hinge")
    assert len("_".join(names)) == 80
    many = [f"model.optimizer_g.betas=[0.{n},0.999]" for n in range(60)]
    assert len("_".join(_words(many, composed("train")))) <= 80


def test_a_run_is_called_by_its_options_and_the_minute() -> None:
    given = ["model=gan", "trainer.max_steps=9", "experiment=paper/gan", "dataset=digits",
             "model.optimizer_g.lr=4e-4", "tags=[a]", "paths.data_dir=x", "logger=csv",
             "callbacks.metrics=null", "trainer=cpu", "print_config=full"]  # fmt: skip
    name = run_name(given, composed("train", given))
    assert re.fullmatch(r"experiment=gan_lr_g=4e-4_max_steps=9_\d{8}-\d{4}", name)
    assert re.fullmatch(r"\d{8}-\d{4}", run_name([], composed("train")))


def test_runs_of_the_same_minute_have_folders_of_their_own(tmp_path: Path) -> None:
    names = [new_folder(tmp_path / "runs" / "run").name for _ in range(3)]
    assert names == ["run", "run-2", "run-3"]
    (tmp_path / "elsewhere").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="elsewhere"):
        new_folder(tmp_path / "elsewhere" / "run")


def test_jobs_are_called_by_what_is_swept_groups_included(run: Run, tmp_path: Path) -> None:
    run("train.py", "-m", *QUICK, "model=gan,cgan", "model.loss=hinge,minimax", "seed=5")
    names = sorted(path.name for path in tmp_path.glob("runs/multirun/*/*-*"))
    assert names == ["0-model=gan_loss=hinge", "1-model=gan_loss=minimax",
                     "2-model=cgan_loss=hinge", "3-model=cgan_loss=minimax"]  # fmt: skip
    # Not one of these names needs a shell's quotes.
    assert [shlex.quote(name) for name in names] == names


def test_an_option_may_refer_to_another(run: Run, tmp_path: Path) -> None:
    follows = "model.latent_dim=${dataset.image_size}"
    assert f" '{follows}' " in run("train.py", *QUICK, follows).stdout
    run("train.py", "-m", *QUICK, f"{follows},8")
    names = {path.name for path in tmp_path.glob("runs/multirun/*/*-*")}
    assert names == {"0-latent_dim=dataset.image_size", "1-latent_dim=8"}


# Paths with an equals sign on the command line.


@pytest.mark.parametrize("value", ["runs/3-lr_g=0.0004_seed=1", "a=b c", "=", "a=1/b=(2)"])
def test_a_path_may_have_an_equals_sign(value: str) -> None:
    assert text_of(f"checkpoint={value}") == value
    assert as_typed(readable(f"checkpoint={value}")) == shlex.quote(f"checkpoint={value}")


def test_commands_take_such_paths_and_sweep_over_them(run: Run, tmp_path: Path) -> None:
    run("train.py", "-m", *QUICK, "seed=1,2", "hydra.sweep.dir=here")
    first, second = "here/0-seed=1", "here/1-seed=2"
    run("sample.py", f"checkpoint={first}", "num_samples=4", "output=a=b.png")
    assert (tmp_path / "a=b.png").is_file()
    told = run("sample.py", "-m", f"checkpoint={first},{second}", "num_samples=4").stdout
    assert told.count("4 images in samples.png") == 2
    assert run("train.py", f"resume={second}", "trainer.max_steps=3").returncode == 0
    told = run("train.py", *QUICK, f"init_from={first}", "hydra.run.dir=x=1").stdout
    assert f"init_from={first}" in told
    assert (tmp_path / "x=1" / "metrics.json").is_file()


# The latest run.


def test_latest_is_the_run_last_written(run: Run, tmp_path: Path) -> None:
    run("train.py", "-m", *QUICK, "seed=1,2", "hydra.sweep.dir=runs/multirun/here")
    first, second = "runs/multirun/here/0-seed=1", "runs/multirun/here/1-seed=2"
    assert f"checkpoint=latest is {second}\n" in run("sample.py", "checkpoint=latest").stdout
    told = run("train.py", f"resume={first}", "trainer.max_steps=3")
    told = run("train.py", "resume=latest", "trainer.max_steps=4")
    assert f"resume=latest is {first}\n" in told.stdout
    assert "iterations 3 to 4" in told.stdout
    told = run("train.py", "-m", *QUICK, "init_from=latest", "seed=3,4")
    assert told.stdout.count(f"init_from=latest is {first}\n") == 1
    saved = [OmegaConf.load(f) for f in tmp_path.glob("runs/multirun/2*/*/.hydra/config.yaml")]
    # Not the job before.
    assert [config.init_from for config in saved] == [first, first]  # type: ignore[union-attr]
    told = run("sample.py", "checkpoint=latest", "--cfg", "job", "--package", "checkpoint")
    assert told.stdout.startswith("runs/multirun/2")


@pytest.mark.parametrize(
    ("script", "argument", "what"),
    [
        ("train.py", "resume", "run"),
        ("train.py", "init_from", "checkpoint"),
        ("sample.py", "checkpoint", "checkpoint"),
        ("evaluate.py", "checkpoint", "checkpoint"),
    ],
)
def test_no_run_is_the_latest(run: Run, script: str, argument: str, what: str) -> None:
    refused = run(script, f"{argument}=latest", check=False)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: {argument}=latest: There is no {what} below 'runs' here, so none is the latest. "
        f"Give {argument}=RUN_FOLDER.\n"
    )


# What a run says.


def test_a_run_begins_with_three_lines_and_keeps_them(run: Run, tmp_path: Path) -> None:
    told = run("train.py", *QUICK, "seed=7", "tags=[a b]", "hydra.run.dir=here").stdout
    lines = told.splitlines()
    assert lines[1:4] == [
        "Train   gan on digits: 2 iterations, batch 128, cpu, seed 7",
        "Given   trainer=cpu trainer.max_steps=2 callbacks.metrics=null logger=none seed=7 "
        "'tags=[a b]' (print_config=full shows all options)",
        "Folder  here",
    ]
    assert [line.split()[0] for line in lines[4:]] == ["Run", "Trained", "Losses", "Look"]
    log = (tmp_path / "here" / "train.log").read_text()
    assert all(f" - {line}\n" in log for line in lines[1:])


def test_the_whole_configuration_can_be_asked_for(run: Run) -> None:
    told = run("train.py", *QUICK, "print_config=full").stdout
    assert "├── seed: 0\n" in told
    assert "negative_slope: 0.2" in told
    assert "Folder  runs/gan/digits/" in told
    refused = run("train.py", *QUICK, "print_config=ful", check=False)
    assert "print_config is ful; it has to be short or full." in refused.stderr


def test_a_resumed_run_may_print_otherwise(run: Run) -> None:
    run("train.py", *QUICK, "hydra.run.dir=here")
    told = run("train.py", "resume=here", "trainer.max_steps=3", "print_config=full").stdout
    assert "├── seed: 0\n" in told
    assert "gan on digits: iterations 2 to 3, batch 128" in told


def test_the_summary_has_the_monitored_figure_and_its_floor(run: Run) -> None:
    figure = r"fid [\d.e+]+ \(floor [\d.]+(; best [\d.]+ at step 1)?\)"
    own = ", by the evaluator of gan_zoo, which is not Inception"
    told = run("train.py", *MEASURED).stdout
    assert re.search(rf"^Scored  {figure}{own}$", told, re.M)
    told = run("train.py", "-m", *MEASURED, "seed=1,2").stdout
    # At first mention alone.
    assert re.search(rf"^Done    0-seed=1: {figure}{own}, 2 steps in \d+ s$", told, re.M)
    assert re.search(rf"^Done    1-seed=2: {figure}, 2 steps in \d+ s$", told, re.M)


def test_a_sweep_says_few_lines_and_where_to_look(run: Run) -> None:
    told = run("train.py", "-m", *QUICK, "seed=1,2", "hydra.sweep.dir=here").stdout
    lines = [line for line in told.splitlines() if "[HYDRA]" not in line]
    look = "Look    tensorboard --logdir here --samples_per_plugin images=1000"
    assert lines[1] == lines[-1] == look
    words = [line.split()[:2] for line in lines[2:6]]
    assert words == [[word, f"{n}-seed={n + 1}:"] for n in (0, 1) for word in ("Job", "Done")]
    assert lines[6].split()[0] == "seeds"
    assert len(lines) < 12


def test_warnings_and_errors_are_kept_in_the_log(run: Run, tmp_path: Path) -> None:
    (tmp_path / "warning.py").write_text(
        "import warnings, pytorch_lightning as pl\n"
        "class Warn(pl.Callback):\n"
        "    def on_train_end(self, *_):\n"
        "        warnings.warn('mind the gap')\n"
        "        raise ValueError('stopped on the way')\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        failed = run("train.py", *QUICK, "+callbacks.warn._target_=warning.Warn",
                     "hydra.run.dir=here", check=False)  # fmt: skip
    assert failed.stderr.endswith("error: stopped on the way\n")
    log = (tmp_path / "here" / "train.log").read_text()
    assert "[WARNING] - UserWarning: mind the gap\n" in log
    assert "[ERROR] - error: stopped on the way\n" in log


def test_the_profiler_prints_its_table(run: Run, tmp_path: Path) -> None:
    told = run("train.py", "debug=profiler", *QUICK, "hydra.run.dir=here")
    assert "FIT Profiler Report" in told.stdout
    assert told.stderr == ""
    assert "run_training_batch" in (tmp_path / "here" / "train.log").read_text()


# The first line.

_FIRST = "is loading PyTorch"


def test_something_is_said_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch comes later')")
    result = subprocess.run(
        [sys.executable, TRAIN, *QUICK], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert _FIRST in result.stdout
    assert result.stderr == "torch comes later\n"


@pytest.mark.parametrize(
    "asked", [["--help"], ["--hydra-help"], ["--cfg", "job"], ["-c", "job"], ["--cfg=job"],
              ["--info", "searchpath"], ["-sc", "install=bash"], ["--version"]],
)  # fmt: skip
def test_what_is_asked_for_is_all_that_is_printed(run: Run, asked: list[str]) -> None:
    assert _FIRST not in run("train.py", *asked).stdout


def test_a_configuration_may_go_into_a_file(run: Run) -> None:
    config = OmegaConf.create(run("train.py", "--cfg", "job", "seed=4").stdout)
    assert config == composed("train", ["seed=4"])


@pytest.mark.parametrize("rank", ["LOCAL_RANK", "SLURM_PROCID"])
def test_other_processes_of_a_run_do_not_say_it_again(run: Run, rank: str) -> None:
    refused = run("train.py", "seed=-1", check=False, **{rank: "1"})
    assert _FIRST not in refused.stdout
    assert _FIRST in run("train.py", "seed=-1", check=False).stdout


@pytest.mark.slow
def test_two_processes_say_everything_once(spawn: Run) -> None:
    told = spawn(TRAIN, *QUICK, "trainer=ddp_cpu").stdout
    assert told.count(_FIRST) == 1
    assert told.count("batch 128, 2 processes on cpu, seed 0") == told.count("Trained 2 steps") == 1
    assert told.count("Folder  ") == 1


# The progress bar.

SLOW = """
import time, pytorch_lightning as pl, logging
class Slow(pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        time.sleep(1.2)
        if trainer.global_step == 1:
            logging.getLogger("slow").warning("half of it")
"""


def test_the_bar_moves_by_time_and_lines_stand_above_it(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, TRAIN, *QUICK, "trainer.max_steps=3",
               "+callbacks.slow._target_=slow.Slow"]  # fmt: skip
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "100"}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=tmp_path, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    output = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        output += piece
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", output.decode())
    drawn = re.split(r"[\r\n]+", text)
    clocks: dict[str, set[str]] = {}
    for step, clock in re.findall(r"(\d/3) .*?(\d:\d\d:\d\d) left", text):
        clocks.setdefault(step, set()).add(clock)
    # Its only logging step is its last.
    assert list(clocks) == ["0/3", "1/3", "2/3", "3/3"]
    assert len(clocks["0/3"]) > 1
    assert [line[-22:] for line in drawn if "half of it" in line] == ["[WARNING] - half of it"]


class Counting(dict[str, float]):
    """A model's logged terms, which count how often they are read."""

    reads = 0

    def items(self):  # type: ignore[no-untyped-def]
        self.reads += 1
        return super().items()


@pytest.mark.parametrize(("named", "name"), [(False, ""), (True, "3-seed=1: ")])
def test_lines_come_by_time_and_losses_from_logging_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: bool, name: str
) -> None:
    class Trainer:
        global_step, log_every_n_steps, estimated_stepping_batches = 0, 100, 400
        default_root_dir = "runs/multirun/now/3-seed=1"

    class Model:
        logged = Counting({"train/images_seen": 800.0, "train/loss_d": 1.0})

    trainer, model, now = Trainer(), Model(), 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    bar = TrainingProgress()
    bar.named = named
    bar.on_train_start(trainer, model)  # type: ignore[arg-type]
    for trainer.global_step in range(1, 121):
        now += 1.0
        bar.on_train_batch_end(trainer, model, None, None, 0)  # type: ignore[arg-type]
    assert capsys.readouterr().out.splitlines() == [
        f"{name}step 30  6.2 min left",
        f"{name}step 60  5.7 min left",
        f"{name}step 90  5.2 min left",
        f"{name}step 120  loss_d 1.000  8 images/s  4.7 min left",
    ]
    assert model.logged.reads == 1
    # A second stage of ten seconds an iteration.
    for trainer.global_step in range(121, 151):
        now += 10.0
        bar.on_train_batch_end(trainer, model, None, None, 0)  # type: ignore[arg-type]
    assert capsys.readouterr().out.splitlines()[-1].endswith("8 images/s  41.7 min left")


# Help.


@pytest.mark.parametrize("command", slow_but(COMMANDS[:4], COMMANDS))
def test_help_tells_a_commands_own_options(run: Run, command: str) -> None:
    help_text = run(f"{command}.py", "--help").stdout
    lines = help_text.splitlines()
    examples = [line for line in lines if line.startswith("  python scripts/")]
    assert 2 <= len(examples) <= 3
    assert all(f"scripts/{command}.py " in line for line in examples)
    told = {line.split()[0].rstrip(":,") for line in lines if line.strip()}
    options = {str(option) for option in composed(command)}
    assert options <= told
    groups = {path.name for path in CONFIG_DIR.iterdir() if path.is_dir()} - {"hydra"}
    foreign = set() if command == "train" else groups - options
    assert not {f"{group}:" for group in foreign} & set(help_text.split())
    own = [line for line in lines if ": " not in line or command != "train"]
    assert max(map(len, own)) <= 100


@pytest.mark.parametrize("command", slow_but(COMMANDS[:4], COMMANDS))
def test_the_examples_of_the_help_compose(run: Run, command: str) -> None:
    text = run(f"{command}.py", "--help").stdout
    for example in re.findall(rf"  python scripts/{command}\.py (.*)", text):
        arguments = [a for a in shlex.split(example) if "latest" not in a and a != "-m"]
        single = [re.sub(r"(=[^\[,]+),.*", r"\1", argument) for argument in arguments]
        assert run(f"{command}.py", *single, "--cfg", "job").stdout


def test_hydras_own_help_is_as_it_is(run: Run) -> None:
    assert "== Flags ==" in run("sample.py", "--hydra-help").stdout
