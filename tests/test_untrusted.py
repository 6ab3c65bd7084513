"""Files from others run no code: neither checkpoints nor runs' folders, whatever is in them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra._internal.instantiate import _instantiate2 as hydra_instantiate
from hydra.utils import get_object, instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gan_zoo.data.mnist import InMemoryImages
from gan_zoo.files import CONFIG_DIR
from gan_zoo.metrics import evaluator
from gan_zoo.plotting import save_png
from gan_zoo.run.configuration import composed
from gan_zoo.run.resume import Resumed, resumed_configuration
from gan_zoo.training.checkpoints import CheckpointFiles, model_of, read_checkpoint
from gan_zoo.training.untrusted import PARTS, listed, vouched
from tests.same_end import read_checkpoint as last_checkpoint

Run = Callable[..., CompletedProcess[str]]
Change = Callable[[Any], object]

TOUCH = {"_target_": "torch.utils.collect_env.run", "command": "touch marker"}
CREATED = "${oc.create:'{_target_: torch.utils.collect_env.run, command: touch marker}'}"
SMALL = ("model=cgan", "dataset=digits", "trainer=cpu", "trainer.max_steps=2",
         "dataset.batch_size=8", "callbacks.metrics=null", "callbacks.health=null",
         "model.generator.joint_units=8", "model.discriminator.joint_units=8")  # fmt: skip

# What a listed class does when it is made, whatever its arguments are.
KINDS = {
    nn.Module: "makes tensors",
    Optimizer: "keeps tensors and numbers",
    LRScheduler: "keeps an optimizer and numbers, and changes its rates",
    pl.LightningDataModule: "keeps its arguments; later reads pictures, bytes and text",
    pl.Callback: "keeps its arguments; later writes below the trainer's folder, which is the run's",
    Logger: "writes below the folder that it is given, which is the run's",
    pl.Trainer: "keeps its arguments; names of strategies and devices are looked up in tables",
}
FUNCTIONS = {
    **dict.fromkeys(
        (f"torch.nn.init.{name}_" for name in (
            "kaiming_normal", "kaiming_uniform", "normal", "trunc_normal", "uniform",
            "xavier_normal", "xavier_uniform",
        )),
        "fills a tensor with random numbers",
    ),
    **dict.fromkeys(
        (f"gan_zoo.data.digit_pairs.{name}" for name in ("colored", "edges", "negatives")),
        "makes images of images",
    ),
}  # fmt: skip
# Not listed for a file, as its constructor opens a folder that may hold code.
# What is of a session that resumes a run.
SESSION = {"paths": {"data_dir": "data"}, "trust": [], "resume": {}, "print_config": "short"}
REFUSED = "gan_zoo.networks.text.SentenceTransformerEncoder"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    from gan_zoo.cli import main
    from gan_zoo.train import train

    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *SMALL, "hydra.run.dir=here"])
        assert main(train, "train") == 0
    return folder / "here"


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of it in the working folder of commands."""
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here"


def test_every_callable_that_a_file_can_name_is_a_constructor_known_to_be_harmless() -> None:
    unknown = []
    for name in sorted(set().union(*map(listed, PARTS)) - {REFUSED}):
        found = get_object(name)
        if isinstance(found, type):
            known = any(issubclass(found, kind) for kind in KINDS)
        else:
            known = name in FUNCTIONS and inspect.isfunction(found)
        if not known:
            unknown.append(name)
    assert unknown == []


def test_all_that_the_projects_own_configurations_build_is_listed() -> None:
    names: set[str] = set()
    for part, folders in {"model": ["model"], "dataset": ["dataset"], "logger": ["logger"]}.items():
        for file in (path for f in folders for path in (CONFIG_DIR / f).rglob("*.yaml")):
            target = (yaml.safe_load(file.read_text()) or {}).get("_target_", "???")
            assert target == "???" or target in listed(part)
            names.add(target)
    assert len(names) > 40


_SEEN: list[list[str]] = []


@functools.cache
def _add_hook() -> None:
    """Once, as an audit hook can't be taken away again."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not _SEEN:
            return
        if event in ("os.system", "subprocess.Popen", "os.exec", "socket.connect", "os.remove"):
            _SEEN[-1].append(f"{event} {arguments}")
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            _SEEN[-1].append(f"open {arguments}")

    sys.addaudithook(hook)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Collects what runs meanwhile that no constructor does: commands, files that are written."""
    _add_hook()
    _SEEN.append([])
    try:
        yield _SEEN[-1]
    finally:
        _SEEN.pop()


def test_making_what_is_listed_does_nothing_else() -> None:
    pl.seed_everything(0, verbose=False)
    models = sorted((CONFIG_DIR / "model").glob("*.yaml"))
    configs = [composed("train", [f"model={file.stem}", "trainer=cpu"]) for file in models]
    plain = [OmegaConf.to_container(config, resolve=True) for config in configs]
    with watched() as seen:
        for config in plain:
            for part in ("model", "dataset"):
                instantiate(vouched(config, "It")[part])
    assert seen == []


# -- the commands -----------------------------------------------------------------------------


def in_model(**options: Any) -> Change:
    return lambda checkpoint: checkpoint["config"]["model"].update(options)


CHECKPOINTS: dict[str, tuple[Change, str]] = {
    "a node that appears on resolving": (in_model(generator=CREATED), "${oc.create"),
    "a pickle that torch.load would run": (
        in_model(generator={"_target_": "torch.load", "weights_only": False,
                            "f": {"_target_": "io.BytesIO", "initial_bytes": "x"}}), "torch.load"),
    "a function below torch.nn": (
        in_model(generator={"_target_": "torch.nn.attention._fa3._fa3_import_module",
                            "module_path": "this"}), "_fa3_import_module"),
    "the data's folder is looked up": (
        lambda c: c["config"]["dataset"].update(root=CREATED), "${oc.create"),
    "an environment variable": (in_model(latent_dim="${oc.env:HOME}"), "${oc.env"),
    "a class's method": (
        in_model(generator={"_target_": "gan_zoo.models.GAN.load_from_checkpoint",
                            "checkpoint_path": "x"}), "load_from_checkpoint"),
    "positional arguments": (
        in_model(generator={"_target_": "torch.nn.ReLU", "_args_": ["x"]}), "_args_"),
    "an option that its signature has not": (
        in_model(noise={"_target_": "torch.nn.init.normal_", "hook": 1}), "model.noise.hook"),
    "a model's folder": (
        lambda c: c["config"].update(
            dataset={"_target_": "gan_zoo.data.MNISTCaptionsDataModule", "text_encoder": {
                "_target_": REFUSED, "path": "model", "embedding_dim": 4}}),
        "trust=sentence_transformers"),
    "what another part may build": (
        in_model(generator={"_target_": "pytorch_lightning.Trainer"}), "pytorch_lightning.Trainer"),
    "more values than any run has": (in_model(generator=list(range(30_000))), "too many values"),
    "what a terminal would run": (in_model(loss="\x1b]0;x\x07"), "'\\x1b]0;x"),
    "a tensor": (in_model(generator=torch.zeros(1)), "not plain data"),
    "no counts": (lambda c: c.pop("counts"), "do not fit the model"),
    "no processes": (lambda c: c.update(processes=[]), "do not fit the model"),
    "processes without terms": (lambda c: c.update(processes=[{}]), "do not fit the model"),
    "counts that are none": (lambda c: c.update(counts=5), "do not fit the model"),
}  # fmt: skip


@pytest.mark.parametrize("script", ["sample.py", "evaluate.py", "export.py"])
@pytest.mark.parametrize("about", CHECKPOINTS)
def test_a_checkpoint_runs_nothing(
    run: Run, here: Path, tmp_path: Path, script: str, about: str
) -> None:
    change, culprit = CHECKPOINTS[about]
    checkpoint = last_checkpoint(here)
    change(checkpoint)
    CheckpointFiles().save_checkpoint(checkpoint, tmp_path / "evil.ckpt")
    with watched() as seen:
        refused = run(script, "checkpoint=evil.ckpt", check=False)
    assert refused.returncode == 1
    assert culprit in refused.stderr
    assert not [event for event in seen if "touch" in event]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.ckpt", "here"]


def test_a_text_encoder_of_a_checkpoint_opens_no_folder(tmp_path: Path, here: Path) -> None:
    from gan_zoo.networks.text import text_encoder_from

    artifact = {"kind": "sentence_transformers", "options": {"path": "x", "embedding_dim": 4}}
    with pytest.raises(ValueError, match="trust=sentence_transformers"):
        text_encoder_from(artifact)
    for broken in ({"kind": "sentence_transformers"}, {"kind": ["gru"]}, {"kind": "gru"}, {}):
        with pytest.raises(ValueError, match=r"damaged|not a kind"):
            text_encoder_from(broken)


FOLDERS: dict[str, tuple[Change, str]] = {
    "a callback that appears on resolving": (
        lambda c: c["callbacks"].update(evil=CREATED), "${oc.create"),
    "Lightning's fit": (
        lambda c: c["callbacks"].update(
            evil={"_target_": "pytorch_lightning.Trainer.fit", "weights_only": False}),
        "pytorch_lightning.Trainer.fit"),
    "a callback that saves by pickle": (
        lambda c: c["callbacks"].update(
            evil={"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "dirpath": "out"}),
        "ModelCheckpoint"),
    "logs outside": (lambda c: c["logger"]["tensorboard"].update(name="../../out"), "outside"),
    "logs under a suffix that leads out": (
        lambda c: c["logger"]["tensorboard"].update(filename_suffix="/../../out"),
        "filename_suffix"),
    "a tracker's server": (
        lambda c: c["logger"].update(mlflow={
            "_target_": "gan_zoo.training.trackers.MLflow", "tracking_uri": "http://127.0.0.1:9"}),
        "tracking_uri"),
    "checkpoints elsewhere": (
        lambda c: c["callbacks"]["checkpoint"].update(dirpath="../out"), "dirpath"),
    "data that would be downloaded": (
        lambda c: c["dataset"].update(name="mnist", root="out"), "nothing is downloaded"),
    "Hydra's own node": (lambda c: c.update(hydra={"run": {"dir": "out"}}), "not as train.py"),
    "an upload": (lambda c: c["trainer"].update(model_registry="mine"), "model_registry"),
}  # fmt: skip


@pytest.mark.parametrize("about", FOLDERS)
def test_a_runs_folder_runs_nothing_and_leads_nowhere(
    run: Run, here: Path, tmp_path: Path, about: str
) -> None:
    change, culprit = FOLDERS[about]
    file = here / ".hydra" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    change(config)
    file.write_text(yaml.safe_dump(config))
    (here / ".hydra" / "follows.yaml").unlink()
    shutil.rmtree(here / "checkpoints")
    refused = run("train.py", "resume=here", "trainer.max_steps=3", check=False)
    assert refused.returncode == 1
    assert culprit in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("place", ["train.log", "samples", "checkpoints/last.ckpt", ".hydra/x"])
def test_a_link_out_of_a_runs_folder_is_refused(
    run: Run, here: Path, tmp_path: Path, place: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("before\n")
    link = here / place
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(outside if place == "samples" else outside / "file")
    refused = run("train.py", "resume=here", "trainer.max_steps=3", check=False)
    assert refused.returncode == 1
    assert str(link) in refused.stderr
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "before\n"


def test_how_a_run_was_begun_is_plain_text(run: Run, here: Path) -> None:
    overrides = here / ".hydra" / "overrides.yaml"
    overrides.write_text(yaml.safe_dump(["+a='${oc.env:HOME}'"]))
    run("train.py", "resume=here", "trainer.max_steps=3")
    logged = b"".join(file.read_bytes() for file in here.glob("events.out.tfevents.*"))
    assert b"${oc.env:HOME}" in logged
    overrides.write_text("a: ${oc.env:HOME}\n")
    refused = run("train.py", "resume=here", "trainer.max_steps=4", check=False)
    assert "not as train.py writes it" in refused.stderr


def test_what_follows_changes_no_target_and_no_trust(here: Path) -> None:
    (here / ".hydra" / "follows.yaml").write_text(yaml.safe_dump(dict.fromkeys(
        ("model._target_", "trust", "resume.allow", "callbacks.metrics._target_", "seed", "paths"),
        "trainer.max_steps"
    )))  # fmt: skip
    session = OmegaConf.create(SESSION)
    config = resumed_configuration(session, Resumed(here, ["trainer.max_steps=9"]))
    assert (config.trainer.max_steps, config.seed) == (9, 9)
    assert config.model._target_ == "gan_zoo.models.CGAN"
    assert (config.trust, config.resume, config.paths) == ([], {}, {"data_dir": "data"})


TAGS = ("!!python/object/apply:os.system ['touch marker']", "!!python/name:os.system",
        "!!python/module:this", "!!python/object/new:os.system ['touch marker']",
        "!!python/object/apply:pathlib.PosixPath [x]", "!custom x", "[", "&a [*a]")  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
def test_tags_of_yaml_make_nothing(run: Run, here: Path, tmp_path: Path, tag: str) -> None:
    file = here / ".hydra" / "config.yaml"
    file.write_text(f"{file.read_text()}\nmore: {tag}\n")
    refused = run("train.py", "resume=here", "trainer.max_steps=3", check=False)
    assert refused.returncode == 1
    assert "config.yaml" in refused.stderr or "configuration" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_references_that_multiply_end_early(run: Run, here: Path) -> None:
    lines = ["a0: &a0 [1, 1]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    file = here / ".hydra" / "config.yaml"
    file.write_text("\n".join([file.read_text(), *lines]))
    refused = run("train.py", "resume=here", "trainer.max_steps=3", check=False)
    assert "too many values" in refused.stderr


def test_a_checkpoint_that_would_unpack_to_more_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"config": {}, "state_dict": {"w": torch.zeros(10**6)}}, tmp_path / "a.ckpt")
    bomb = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(tmp_path / "a.ckpt") as old, zipfile.ZipFile(bomb, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10**5
    with pytest.raises(ValueError, match=r"bomb\.ckpt' would unpack to [34],\d"):
        read_checkpoint(bomb)


def test_names_in_a_configuration_are_no_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = evaluator.packaged_evaluator("mnist")
    monkeypatch.setattr(evaluator, "train_evaluator", lambda *_, **__: known)
    images = InMemoryImages(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.zeros(2).long())
    evaluator.evaluator_for("mnist_../../../out", lambda train: images, tmp_path / "cache")
    (written,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert written.parent == tmp_path / "cache" / "evaluators"


def test_a_picture_takes_a_links_place(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("before")
    (tmp_path / "nearest.png").symlink_to(tmp_path / "other")
    save_png(torch.zeros(3, 4, 4, dtype=torch.uint8), tmp_path / "nearest.png")
    assert (tmp_path / "other").read_text() == "before"
    assert not (tmp_path / "nearest.png").is_symlink()


def test_trust_is_of_what_is_named(
    run: Run, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import os\nfrom gan_zoo.models import CGAN\n\nclass Mine(CGAN):\n    pass\n"
    )
    checkpoint = last_checkpoint(here)
    checkpoint["config"]["model"]["_target_"] = "mine.Mine"
    assert type(model_of(checkpoint, ["mine"])).__name__ == "Mine"
    assert type(model_of(checkpoint, ["mine.Mine"])).__name__ == "Mine"
    for trust in ([], ["mine.Other"], ["min"], ["os"]):
        with pytest.raises(ValueError, match=r"trust=mine\.Mine"):
            model_of(checkpoint, trust)
    checkpoint["config"]["model"]["_target_"] = "mine.os.system"
    with pytest.raises(ValueError, match=r"mine\.os\.system"):
        model_of(checkpoint, ["mine"])


# -- whatever is in them ----------------------------------------------------------------------

TARGETS = [
    *("os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "torch.load"),
    *("hydra.utils.instantiate", "hydra.utils.get_method", "torch.utils.collect_env.run"),
    *("gan_zoo.files.os.system", "gan_zoo.cli.main", "pytorch_lightning.Trainer.fit"),
    *("functools.partial", "importlib.import_module", "torch.nn.Module.apply", "torch.hub.load"),
    *("omegaconf.OmegaConf.create", "torch.nn", "gan_zoo", "", "???", "os..system", "${target}"),
    *("torch.nn.ReLU", "torch.nn.init.normal_", "torch.optim.Adam", "gan_zoo.models.GAN"),
    *("gan_zoo.data.MNISTDataModule", "pytorch_lightning.Trainer", REFUSED),
]
TEXTS = [CREATED, "${oc.env:HOME}", "${model}", "${hydra:runtime.cwd}", "${now:%Y}", "touch marker",
         "\\${x}", "${", "$${oc.env:HOME}", "???", "x"]  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**9), st.floats(),
                   st.sampled_from([*TEXTS, *TARGETS]), st.text(max_size=5))  # fmt: skip
KEYS = st.sampled_from(["_target_", "_partial_", "_args_", "_recursive_", "_convert_", "_mode_",
                        "inplace", "input", "func", "lr", "params", "command", "f", "x", "root",
                        "__class__", "${x}", "_target_ ", "defaults"])  # fmt: skip
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=4),
        st.builds(
            lambda target, rest: {**rest, "_target_": target},
            st.sampled_from(TARGETS),
            st.dictionaries(KEYS, inner, max_size=3),
        ),
    ),
    max_leaves=12,
)
ALLOWED = {get_object(name) for name in set().union(listed("model"), listed("dataset")) - {REFUSED}}


@settings(
    derandomize=True, deadline=None, max_examples=1500, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(model=NODES, dataset=NODES)
def test_nothing_but_listed_constructors_is_ever_called(model: Any, dataset: Any) -> None:
    called, looked_up = [], []
    with pytest.MonkeyPatch.context() as patch, watched() as seen:
        original = hydra_instantiate._call_target
        patch.setattr(
            hydra_instantiate,
            "_call_target",
            lambda target, *rest: (called.append(target), original(target, *rest))[1],
        )
        for name in list(BaseContainer._resolvers):
            patch.setitem(
                BaseContainer._resolvers, name, lambda *_, **__: looked_up.append("a resolver")
            )
        for part, node in (("model", model), ("dataset", dataset)):
            try:
                checked = vouched({part: node}, "The configuration", (), (part,))
            except ValueError:
                continue
            with contextlib.suppress(Exception):
                instantiate(checked[part])
    assert {target for target in called if target not in ALLOWED} == set()
    assert looked_up == []
    assert seen == []


@settings(
    derandomize=True, deadline=None, max_examples=100, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(
    part=st.sampled_from([*PARTS, "hydra", "paths", "resume", "more"]),
    node=NODES,
    follows=st.dictionaries(st.sampled_from(["model.lr", "seed", "paths", ""]), st.text()),
)
def test_no_folder_makes_a_configuration_that_is_not_plain(
    made: Path, tmp_path_factory: pytest.TempPathFactory, part: str, node: Any, follows: Any
) -> None:
    folder = tmp_path_factory.mktemp("evil")
    (folder / ".hydra").mkdir()
    config = yaml.safe_load((made / ".hydra" / "config.yaml").read_text())
    config[part] = {**config[part], "evil": node} if isinstance(config.get(part), dict) else node
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "follows.yaml").write_text(yaml.safe_dump(follows))
    session = OmegaConf.create(SESSION)
    with watched() as seen:
        try:
            result = resumed_configuration(session, Resumed(folder, ["trainer.max_steps=9"]))
        except ValueError:
            pass
        else:
            plain: Any = OmegaConf.to_container(result, resolve=False)
            assert "${" not in str(plain)
            text = str([plain[name] for name in PARTS])
            targets = [name for name in TARGETS if f"'_target_': '{name}'" in text]
            assert set(targets) <= set().union(*map(listed, PARTS)) - {REFUSED}
    assert seen == []
