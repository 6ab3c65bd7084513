"""Times the scripts of eriklindernoren/PyTorch-GAN and this project's same networks, in turn.

    git clone https://github.com/eriklindernoren/PyTorch-GAN
    python scripts/peers.py PyTorch-GAN
    python scripts/peers.py PyTorch-GAN --only gan --rounds 9

In each round a script runs for some of its batches, then experiment=peer/NAME for as many, then the
same with speed=fast. The scripts run as they are, in a folder of their own, on the MNIST that
GAN_ZOO_DATA_DIR (by default data/) has.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("gan", "dcgan", "wgan_gp")
_BATCH = re.compile(r"\[Batch (\d+)/")
# Batches before the clock starts.
_WARM = 10


def peer_ms(script: Path, folder: Path, iterations: int) -> float:
    """Milliseconds of a batch of the script, which tells the batches that it has done."""
    place = folder / "implementations" / script.stem
    place.mkdir(parents=True, exist_ok=True)
    data = folder / "data" / "mnist" / "MNIST"
    if not data.is_symlink():
        data.parent.mkdir(parents=True, exist_ok=True)
        given = Path(os.environ.get("GAN_ZOO_DATA_DIR", ROOT / "data")) / "MNIST"
        data.symlink_to(given.resolve())
    command = [sys.executable, "-u", str(script)]
    begun = first = 0.0
    with subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        told: list[str] = []
        assert process.stdout
        for line in process.stdout:
            found = _BATCH.search(line)
            if not found:
                told.append(line)
                continue
            now, batch = time.perf_counter(), int(found[1])
            if batch >= _WARM and not begun:
                begun, first = now, batch
            elif begun and batch - first >= iterations:
                process.kill()
                return 1000 * (now - begun) / (batch - first)
    raise SystemExit(f"error: {script} ended by itself:\n{''.join(told[-5:])}")


def our_ms(name: str, folder: Path, iterations: int, speed: str) -> float:
    """Milliseconds of an iteration of experiment=peer/NAME, with its log and progress lines."""
    run = folder / f"{name}-{speed}-{time.time_ns()}"
    options = (f"experiment=peer/{name}", f"speed={speed}", f"hydra.run.dir={run}",
               f"trainer.max_steps={iterations + _WARM}", "callbacks.metrics=null")  # fmt: skip
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    measured: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return float(measured["iteration_ms"])


def quartiles(values: Sequence[float]) -> str:
    """Median, and the quartiles in brackets."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a clone of PyTorch-GAN")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--iterations", type=int, default=200, help="batches of a turn")
    parser.add_argument("--output", type=Path, help="a JSON file of all times")
    options = parser.parse_args()
    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        for name in options.only:
            script = options.folder.resolve() / "implementations" / name / f"{name}.py"
            if not script.is_file():
                parser.error(f"There is no {script}.")
            sides: dict[str, list[float]] = {"script": [], "default": [], "fast": []}
            for _ in range(options.rounds):
                sides["script"].append(peer_ms(script, folder, options.iterations))
                for speed in ("default", "fast"):
                    sides[speed].append(our_ms(name, folder, options.iterations, speed))
            times[name] = sides
    print("| script | its ms | ours | `speed=fast` | times as fast | `fast` |")
    print("|---|---|---|---|---|---|")
    for name, sides in times.items():
        medians = [f"{statistics.median(values):.1f}" for values in sides.values()]
        ratios = [
            quartiles([s / o for s, o in zip(sides["script"], sides[speed], strict=True)])
            for speed in ("default", "fast")
        ]
        print(f"| `{name}.py` | {' | '.join([*medians, *ratios])} |")
    if options.output:
        options.output.write_text(json.dumps(times, indent=2) + "\n")


if __name__ == "__main__":
    main()
