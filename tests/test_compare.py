"""What is told of runs side by side: leaderboards, pictures, and the page for a browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from gan_zoo.compare import write_leaderboard
from gan_zoo.comparison.leaderboard import ranked
from gan_zoo.comparison.page import as_page
from gan_zoo.comparison.runs import runs_below
from tests.conftest import ROOT

Run = Callable[..., CompletedProcess[str]]

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLOORS = {"metrics_floor/fid": 1.5, "metrics_floor/precision": 0.9}


def make_run(
    folder: Path,
    typed: Mapping[str, Any],
    result: Mapping[str, Any] | None = None,
    *,
    logged: Mapping[str, Mapping[int, float]] | None = None,
    reason: str = "",
    grids: Mapping[int, int] | None = None,
    max_steps: int = 30,
) -> Path:
    """A run's folder as train.py leaves it, without training: grids are grey by iteration."""
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    config = OmegaConf.create({"seed": 0, "trainer": {"max_steps": max_steps}})
    groups = {key: value for key, value in typed.items() if key in ("model", "dataset")}
    for key, value in typed.items():
        if key not in groups:
            OmegaConf.update(config, key, value, force_add=True)
    OmegaConf.save(config, hydra / "config.yaml")
    OmegaConf.save([f"{key}={value}" for key, value in typed.items()], hydra / "overrides.yaml")
    choices = {"model": "gan", "dataset": "mnist", **groups}
    OmegaConf.save({"hydra": {"runtime": {"choices": choices}}}, hydra / "hydra.yaml")
    if result is not None:
        about = {"model": "gan", "steps": max_steps, "seconds": 7.25}
        (folder / "metrics.json").write_text(json.dumps({**about, **result}))
    if reason:
        (folder / "error.txt").write_text(f"{reason}\n")
    if logged:
        with SummaryWriter(str(folder)) as writer:
            for tag, values in logged.items():
                for step, value in values.items():
                    writer.add_scalar(tag, value, step)
    for step, grey in (grids or {}).items():
        (folder / "samples").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (grey,) * 3).save(folder / "samples" / f"step-{step:06d}.png")
    return folder


def measured(best: float, **others: float) -> dict[str, float]:
    named = {f"metrics/{name}": value for name, value in others.items()}
    return {"best/fid": best, "best/step": 20, "metrics/fid": best + 1, **named, **FLOORS}


def make_sweep(root: Path) -> Path:
    """Two rates with three seeds each, one of which failed, and one goes on."""
    for job, (rate, seed, fid) in enumerate(
        [
            (0.01, 0, 9),
            (0.01, 1, 8),
            (0.01, 2, 13),
            (0.001, 0, 5),
            (0.001, 1, None),
            (0.001, 2, None),
        ]
    ):
        typed = {"model.lr": rate, "seed": seed, "trainer.max_steps": 30}
        make_run(
            root / f"{job}-lr-{rate}_seed-{seed}",
            typed,
            measured(fid, precision=fid / 20) if fid else None,
            reason="The loss is nan." if seed == 1 and not fid else "",
            logged={
                "train/loss_d": {10: 1.0, 20: 0.5},
                "metrics/fid": {20: 3.0},
                "best/fid": {20: 3.0},
            }
            if seed == 2 and not fid
            else None,
            grids={0: 0, 30: 40 * job},
        )
    return root


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


# The leaderboard.


def test_settings_are_ranked_by_the_median_over_seeds(tmp_path: Path) -> None:
    table = write_leaderboard(make_sweep(tmp_path))
    rows = rows_of(tmp_path)
    assert [(row["model.lr"], row["seeds"], row["state"]) for row in rows] == [
        ("0.001", "0", "finished"),
        ("0.01", "0 1 2", "finished"),
        ("0.001", "2", "unfinished at step 20 of 30"),
        ("0.001", "1", "failed"),
    ]
    assert "trainer.max_steps" not in rows[0]
    words = ("median", "lowest", "highest", "floor")
    assert [float(rows[1][f"best/fid {word}"]) for word in words] == [9, 8, 13, 1.5]
    assert float(rows[2]["best/fid median"]) == 3
    assert [row["folder"] for row in rows[:2]] == ["3-lr-0.001_seed-0", "1-lr-0.01_seed-1"]
    assert rows[3]["reason"] == "The loss is nan."
    assert "9 (8 to 13)" in table
    assert table.startswith("lr ")
    assert "\nreal images " in table
    text = (tmp_path / "leaderboard.md").read_text()
    assert "| real images |  | 1.5 | 1.5 | 0.9 |" in text
    assert "- 4-lr-0.001_seed-1: The loss is nan." in text


def test_without_seeds_each_run_has_a_line(tmp_path: Path) -> None:
    for job, (model, fid) in enumerate([("gan", 5.0), ("cgan", 4.0), ("dcgan", float("nan"))]):
        make_run(tmp_path / f"{job}-model-{model}", {"model": model, "seed": 3}, measured(fid))
    write_leaderboard(tmp_path)
    rows = rows_of(tmp_path)
    # What was not a number is no figure.
    assert [row["model"] for row in rows] == ["cgan", "gan", "dcgan"]
    assert "seeds" not in rows[0]
    assert rows[2]["best/fid"] == ""


def test_higher_is_better_where_it_is(tmp_path: Path) -> None:
    for seed, precision in enumerate((0.2, 0.7, 0.5)):
        figures = {"best/precision": precision, "metrics/precision": precision}
        make_run(tmp_path / str(seed), {"model.z": seed}, figures)
    assert "higher is better" in write_leaderboard(tmp_path)
    assert [row["model.z"] for row in rows_of(tmp_path)] == ["1", "2", "0"]


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for name, order in (("first", 1), ("second", -1)):
        root = make_sweep(tmp_path / name)
        # What finished last is listed last by the file system.
        for job in sorted(root.iterdir())[::order]:
            shutil.move(job, tmp_path / "aside")
            shutil.move(tmp_path / "aside", job)
        write_leaderboard(root)
        names = ("leaderboard.md", "leaderboard.csv", "grids.png")
        found.append([(root / name).read_bytes() for name in names])
    assert found[0] == found[1]


def test_a_resumed_run_is_unfinished_until_its_new_end(tmp_path: Path) -> None:
    logged = {"train/loss_d": {30: 1.0, 40: 2.0}}
    here = make_run(tmp_path / "a", {}, {**measured(3), "steps": 30}, logged=logged, max_steps=50)
    (run,) = runs_below(tmp_path)
    assert run.state == "unfinished at step 40 of 50"
    (here / "error.txt").write_text("The loss is nan.")
    (run,) = runs_below(tmp_path)
    assert run.state == "failed at step 40 of 50"
    make_run(tmp_path / "b", {}, {"steps": 30}, logged={"train/loss_d": {30: 1.0}}, max_steps=50)
    # Stopped by trainer.max_time.
    assert [run.state for run in runs_below(tmp_path)] == ["failed at step 40 of 50", ""]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '{"steps": "many"}',
        '{"steps": 1e999}',
        "[" * 10**5,
        "1" * 5000,
        "[" * 10**5 + "]" * 10**5,
    ],
    ids=["empty", "cut", "list", "word", "endless", "unclosed", "number", "deep"],
)
def test_what_is_damaged_does_not_hide_the_others(tmp_path: Path, content: str) -> None:
    make_run(tmp_path / "good", {"seed": 1}, measured(2))
    bad = make_run(tmp_path / "bad", {"seed": 2}, logged={"train/loss_d": {10: 1.0}}, grids={0: 1})
    (bad / "metrics.json").write_text(content)
    for name in ("config.yaml", "overrides.yaml", "hydra.yaml"):
        (bad / ".hydra" / name).write_text(content + "\x00: [")
    events = next(bad.glob("events*"))
    events.write_bytes(events.read_bytes() + b"\x07" * 50)
    (bad / "samples" / "step-000000.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 99)
    (bad / "samples" / "step-.png").touch()
    write_leaderboard(tmp_path)
    assert [row["folder"] for row in rows_of(tmp_path)] == ["good", "bad"]
    page = as_page(ranked(runs_below(tmp_path)), "runs")
    assert "train/loss_d" in page


def test_options_that_would_read_the_environment_or_grow_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "hunter2")
    for name, text in (
        ("a", "model:\n  x: ${oc.env:SECRET}\n"),
        ("b", "a: &a [1,1,1]\nmodel:\n  x: [*a,*a]\n"),
        ("d", f"model:\n  x: 0x{'f' * 9000}\n"),
        ("c", "model:\n  x: !!python/object/apply:os.system [touch marker]\n"),
    ):
        folder = make_run(tmp_path / name, {"model.x": name})
        (folder / ".hydra" / "config.yaml").write_text(text)
    write_leaderboard(tmp_path)
    assert "hunter2" not in as_page(ranked(runs_below(tmp_path)), "runs")
    assert sorted(row["model.x"] for row in rows_of(tmp_path)) == ["", "${oc.env:SECRET}", "b", "c"]
    assert not (tmp_path / "marker").exists()


def test_hundreds_of_runs_make_a_bounded_picture(tmp_path: Path) -> None:
    for job in range(300):
        make_run(tmp_path / f"{job}", {"model.z": job}, measured(job), grids={0: 9})
    table = write_leaderboard(tmp_path)
    assert len(table.splitlines()) > 300
    with Image.open(tmp_path / "grids.png") as picture:
        assert max(picture.size) <= 4100
    (tmp_path / "cut").mkdir()
    page = as_page(ranked(runs_below(tmp_path)), "runs", most_bytes=400_000)
    assert len(page) <= 400_000


def test_no_runs_are_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no runs below"):
        write_leaderboard(tmp_path)
    assert list(tmp_path.iterdir()) == []


# The command.


def test_a_real_sweep_is_compared_after_its_end_and_amid_it(run: Run, tmp_path: Path) -> None:
    run(
        "train.py", "-m", "dataset=digits", "trainer=cpu", "trainer.max_steps=4", "seed=1,2",
        "model=gan,cgan", "trainer.log_every_n_steps=2", "callbacks.metrics.every_n_steps=2",
        "callbacks.metrics.num_samples=20", "callbacks.metrics.max_share=null",
        "callbacks.sample_grid.every_n_steps=2", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    sweep = tmp_path / "sweep"
    result = run("compare.py", "root=sweep")
    assert result.stderr == ""
    assert "real images" in result.stdout
    assert result.stdout.splitlines()[-1] == "Look    sweep/compare.html"
    settled = (sweep / "leaderboard.csv").read_bytes()
    rows = rows_of(sweep)
    assert {row["model"]: row["seeds"] for row in rows} == {"gan": "1 2", "cgan": "1 2"}
    assert all(float(row["best/fid floor"]) > 0 for row in rows)
    # Floors are in the result, to the last digit, and not read from elsewhere.
    job = sweep / rows[0]["folder"]
    kept = json.loads((job / "metrics.json").read_text())
    assert kept["metrics_floor/fid"] > 0
    assert {f"metrics_floor/{tag[8:]}" for tag in kept if tag.startswith("metrics/")} <= kept.keys()
    assert write_leaderboard(sweep) in result.stdout
    assert (sweep / "leaderboard.csv").read_bytes() == settled
    # As it was before the job's end, its last record half written.
    (job / "metrics.json").unlink()
    events = next(job.glob("events*"))
    events.write_bytes(events.read_bytes()[:-7])
    run("compare.py", "root=sweep", "output=amid")
    last = rows_of(tmp_path / "amid")[-1]
    assert (last["state"], last["folder"]) == ("unfinished at step 4 of 4", job.name)
    assert float(last["best/fid median"]) > 0
    document = in_browser(tmp_path / "amid" / "compare.html")
    assert document.partition("<script")[0].count('class="chart') > 4


def test_runs_are_compared_wherever_they_are(run: Run, tmp_path: Path) -> None:
    a = make_run(tmp_path / "x" / "a", {"model": "gan"}, measured(3), grids={0: 1})
    b = make_run(tmp_path / "y" / "deep" / "b", {"model": "cgan"}, measured(2))
    told = run("compare.py", f"runs=[{a},y/deep/b,{b}]", "monitor=fid").stdout
    assert [row["folder"] for row in rows_of(tmp_path / "comparison")] == ["y/deep/b", "x/a"]
    assert "2 runs." in told
    run("compare.py", "runs=x/a", "output=alone")
    assert [row["folder"] for row in rows_of(tmp_path / "alone")] == ["a"]
    make_run(tmp_path / "x" / "c", {"model": "wgan"}, measured(9, precision=0.5))
    assert "by precision (higher" in run("compare.py", "root=x", "monitor=precision").stdout
    assert [row["folder"] for row in rows_of(tmp_path / "x")] == ["c", "a"]
    assert "metrics/precision" in rows_of(tmp_path / "x")[0]
    run("compare.py", f"root={tmp_path / 'x'}")
    assert (tmp_path / "x" / "compare.html").is_file()
    assert [row["folder"] for row in rows_of(tmp_path / "x")] == ["a", "c"]
    run("compare.py", "root=x/a", "output=one")
    assert [row["folder"] for row in rows_of(tmp_path / "one")] == ["a"]


# The page.

OWNED = "document.documentElement.setAttribute('owned', '')"
EVIL = (
    f"</script><script>{OWNED}</script>",
    f'"><img src=x onerror="{OWNED}">',
    f"<svg onload={OWNED}>",
    "<!--<script>",
    "{{policy}}",
    "&lt;b&gt;",
    "\x1b]0;owned\x07\n\r| x | <b>",
    "]]>\u2028\u202e'; alert(1); '",
)


def in_browser(file: Path, *flags: str, script: str = "") -> str:
    """The document that Chromium makes of a page, and of a script of the test's own after it."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    if script:
        # The page's policy would keep it from running.
        text = re.sub(r"<meta http-equiv.*?>", "", file.read_text())
        file = file.with_name("driven.html")
        file.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    return subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--virtual-time-budget=3000", f"--user-data-dir={file.parent / 'browser'}", *flags,
            "--dump-dom", file.as_uri(),
        ],
        check=True, capture_output=True, text=True, timeout=100,
    ).stdout  # fmt: skip


def page_of(root: Path, title: str = "runs") -> Path:
    file = root / "compare.html"
    file.write_text(as_page(ranked(runs_below(root)), title), encoding="utf-8")
    return file


def answers(document: str) -> dict[str, str]:
    """What a test's script has left as attributes of the root element."""
    return dict(re.findall(r'data-([a-z]+)="(.*?)"', document[: document.index(">", 20)]))


@pytest.mark.parametrize("place", ["name", "option", "key", "reason", "tag", "group", "metrics"])
def test_texts_of_strangers_stay_texts(tmp_path: Path, place: str) -> None:
    root = tmp_path / "runs"
    for n, evil in enumerate(EVIL):
        folder = root / (evil.replace("/", "") + str(n) if place == "name" else str(n))
        typed: dict[str, Any] = {"model.x": n}
        if place == "option":
            typed["model.y"] = evil
        if place == "group":
            typed["model"] = evil
        tag = evil if place in ("tag", "metrics") else "loss"
        make_run(
            folder,
            typed,
            {**measured(n), f"metrics/{tag}": 1.0, f"best/{tag}": 1.0, f"metrics_floor/{tag}": 2}
            if place == "metrics"
            else None,
            logged={f"train/{tag}": {1: 1.0}, f"metrics/{tag}": {1: 2.0}},
            reason=evil if place == "reason" else "",
        )
        if place == "key":
            text = json.dumps([f"model.{evil}={n}"])
            (folder / ".hydra" / "overrides.yaml").write_text(text)
    table = write_leaderboard(root)
    for line in [*table.splitlines(), *(root / "leaderboard.md").read_text().splitlines()]:
        assert line.isprintable()
    assert not re.search("<[a-z/!]", (root / "leaderboard.md").read_text())
    page = page_of(root, f"</title>{EVIL[0]}")
    text = page.read_text()
    assert len(re.findall("<script", text)) == 2
    assert not re.search("<(img|svg) ", text.partition("</style>")[2].partition("<script>")[0])
    script = """
      const all = [...document.querySelectorAll("*")];
      const strange = node => [...node.attributes].some(a => a.name.startsWith("on"))
        || node.src && !node.src.startsWith("data:image/webp;base64,");
      document.documentElement.dataset.strange = all.filter(strange).length;
      document.documentElement.dataset.drawn = document.querySelectorAll("tbody tr").length > 7;
      document.documentElement.dataset.shown = document.body.innerText.includes("<svg onload");
    """
    # Without the policy, which would keep such texts from doing anything too.
    document = in_browser(page, script=script)
    assert "owned" not in document[:200]
    assert answers(document) == {"strange": "0", "drawn": "true", "shown": "true"}


def test_the_page_is_drawn_under_its_policy_and_fetches_nothing(tmp_path: Path) -> None:
    page = page_of(make_sweep(tmp_path))
    text = page.read_text()
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?:[^\"'\s]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|<link", text)
    shown = in_browser(page).partition('<script type="application/json"')[0]
    lines = re.findall(r"<tr>.*?</tr>", shown.partition('id="each"')[0])
    names = [re.sub("<.*?>", " ", line.replace("<wbr>", "")).split()[0] for line in lines[1:]]
    assert names == ["real", "lr=0.001", "lr=0.01", "lr=0.001,", "lr=0.001,"]
    assert shown.count('class="chart') >= 2
    assert shown.count("data:image/webp;base64,") == 6
    assert "failed" in shown
    # What got into the page all the same would not be run.
    page.write_text(text.replace("</main>", f"<script>{OWNED}</script></main>"))
    assert "owned" not in in_browser(page)[:200]


def test_the_page_can_be_worked_with(tmp_path: Path) -> None:
    root = tmp_path
    for seed in range(3):
        curve = {step: seed + step / 10 for step in (10, 20, 30)}
        make_run(
            root / f"{seed}",
            {"model.z": f"word{seed}"},
            measured(5 - seed),
            logged={"train/loss_d": curve, "metrics/fid": curve},
            grids={0: 0, 10: 90, 30: 200},
        )
    script = """
      const say = (key, value) => document.documentElement.dataset[key] = value;
      const first = () => [...document.querySelectorAll("#table tbody:last-child tr")]
        .map(line => line.cells[0].textContent).join();
      const all = query => [...document.querySelectorAll(query)];
      say("ranked", first());
      all("#table thead button").find(b => b.textContent === "run").click();
      say("sorted", first() + all("#table [aria-sort]").map(h => h.getAttribute("aria-sort")));
      const fid = () => all("#table thead button").find(b => b.textContent === "best fid");
      fid().click(); fid().click();
      say("reversed", first());
      const svg = document.querySelector(".chart svg");
      const press = key => svg.dispatchEvent(new KeyboardEvent("keydown", {key}));
      press("ArrowRight"); press("ArrowRight"); press("ArrowDown");
      say("told", document.querySelector(".told").textContent);
      const box = svg.getBoundingClientRect();
      svg.dispatchEvent(new PointerEvent("pointermove",
        {clientX: box.right - 10, clientY: box.top + 10}));
      say("pointed", document.querySelector(".told .this").textContent);
      const shown = () => all(".chart")[0].querySelectorAll(".curve").length;
      const before = shown();
      all("#table input")[0].click();
      say("hidden", [before, shown(), all("#pictures figure[hidden]").length]);
      const line = () => all(".chart path.curve").map(path => path.getAttribute("d")).join();
      const rough = line();
      const slow = document.getElementById("smooth");
      slow.value = 0.9; slow.dispatchEvent(new Event("input"));
      say("smoothed", line() !== rough);
      const source = () => all("#pictures figure:not([hidden]) img").at(-1).src;
      const end = source();
      const slider = document.getElementById("step");
      slider.value = 1; slider.dispatchEvent(new Event("input"));
      say("step", document.getElementById("at").textContent + (source() !== end));
      document.getElementById("play").click();
      setTimeout(() => {
        say("played", slider.value !== "1" && document.getElementById("play").textContent);
        document.getElementById("play").click();
      }, 900);
    """
    assert answers(in_browser(page_of(root), script=script)) == {
        "ranked": "word2,word1,word0",
        "sorted": "word0,word1,word2ascending",
        "reversed": "word0,word1,word2",
        "told": "step 20word24word13word02",
        "pointed": "word25",
        "hidden": "3,2,1",
        "smoothed": "true",
        "step": "step 10true",
        "played": "Pause",
    }


@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_fits_and_everything_has_a_name(tmp_path: Path, width: int) -> None:
    root = make_sweep(tmp_path)
    script = """
      const all = query => [...document.querySelectorAll(query)];
      all("details").forEach(details => details.open = true);
      setTimeout(() => {
        const root = document.documentElement, say = (key, value) => root.dataset[key] = value;
        say("width", root.scrollWidth - root.clientWidth);
        say("nameless", all("button, input, img, svg[role], [tabindex], th").filter(node => !(
          node.textContent.trim() || node.alt || node.labels?.length
          || node.getAttribute("aria-label"))).length);
        say("small", all("main button, main p, main td").filter(node => node.offsetParent
          && parseFloat(getComputedStyle(node).fontSize) < 12).length);
      }, 200);
    """
    document = in_browser(page_of(root), f"--window-size={width},900", script=script)
    assert answers(document) == {"width": "0", "nameless": "0", "small": "0"}


def test_colours_can_be_told_from_what_is_behind_them() -> None:
    style = (ROOT / "gan_zoo" / "comparison" / "page.html").read_text().partition("</style>")[0]
    schemes = [dict(re.findall(r"--(\w+): (#\w+)", part)) for part in style.split("@media")[:2]]
    assert all(len(scheme) == 17 for scheme in schemes)

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for scheme in schemes:
        for name, colour in scheme.items():
            if name in ("back", "card", "line"):
                continue
            for behind in ("back", "card"):
                light = sorted((luminance(colour), luminance(scheme[behind])))
                # WCAG 2.2, 1.4.3 for text.
                assert (light[1] + 0.05) / (light[0] + 0.05) >= 4.5, (name, behind)
