"""A sweep on a SLURM of one machine, which is started here where it is installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.conftest import ROOT, wait_for
from tests.kill_a_sweep import assert_same_sweep

Run = Callable[..., CompletedProcess[str]]
pytestmark = pytest.mark.slow
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000
PartitionName=debug Nodes=ALL Default=YES
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A SLURM of two cores, for the commands of the test and of what it starts."""
    missing = [p for p in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(p)]
    if missing or os.getuid():
        pytest.skip(f"needs {', '.join(missing) or 'root'}: apt install slurm-wlm munge")
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    file = folder / "slurm.conf"
    file.write_text(CONFIGURATION.format(folder=folder, host=socket.gethostname()))
    monkeypatch.setenv("SLURM_CONF", str(file))
    place = Path("/run/munge")
    place.mkdir(exist_ok=True)
    shutil.chown(place, "munge", "munge")
    munged = subprocess.Popen(
        ["runuser", "-u", "munge", "--", "munged", "--foreground"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(1)
    subprocess.run(["slurmctld", "-c", "-f", file], check=True)
    subprocess.run(["slurmd", "-f", file], check=True)
    try:
        wait_for(lambda: "idle" in asked("sinfo", "-h", "-o", "%T"), 60)
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], check=False)
        for name in ("slurmd", "slurmctld"):
            os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
        os.killpg(munged.pid, signal.SIGTERM)


def asked(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_preempted_jobs_are_requeued_and_resume_exactly(
    run: Run, tmp_path: Path, slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (
        "-m", "model=gan", "dataset=digits", "trainer=cpu", "trainer.max_steps=300", "logger=none",
        "callbacks.metrics.every_n_steps=150", "callbacks.metrics.num_samples=50",
        "callbacks.metrics.metrics=[fid]", "callbacks.checkpoint.every_n_train_steps=50",
        "model.optimizer_g.lr=1e-3,5e-4", "seed=0,1,2,3,4,5",
    )  # fmt: skip
    run("train.py", *options, "hydra.sweep.dir=straight")
    # The jobs have a thread because they have a core.
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    queue = [
        f"hydra.launcher.{option}"
        for option in ("partition=debug", "cpus_per_task=1", "mem_gb=2", "timeout_min=60")
    ]
    with (tmp_path / "log").open("w") as log:
        sweep = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "train.py"), *options,
             "hydra/launcher=submitit_slurm", *queue, "hydra.sweep.dir=preempted"],
            cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    preempted: set[str] = set()
    orders: list[subprocess.Popen[bytes]] = []
    moved_up: set[str] = set()
    end = time.monotonic() + 1500
    while sweep.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.5)
        for name in asked("squeue", "-h", "-t", "RUNNING", "-o", "%i").split():
            number_in_sweep = name.partition("_")[2]
            trained = [
                *(tmp_path / "preempted").glob(f"{number_in_sweep}-*/checkpoints/step-*.ckpt")
            ]
            if len(preempted) < 6 and name not in preempted and trained:
                # As submitit would have it, and as SLURM itself does.
                how = ("scontrol", "requeue", name)
                if len(preempted) % 2:
                    how = ("scancel", "--signal=USR2", name)
                preempted.add(name)
                # It answers once the job has ended.
                orders.append(subprocess.Popen(how))
        for name in preempted & set(asked("squeue", "-h", "-t", "PENDING", "-o", "%i").split()):
            # Not after the two minutes that SLURM would wait.
            if name not in moved_up:
                moved_up.add(name)
                update = ("scontrol", "update", f"JobId={name}", "StartTime=now")
                orders.append(subprocess.Popen(update))
    for order in orders:
        order.wait(timeout=60)
    told = (tmp_path / "log").read_text()
    assert sweep.returncode == 0, told
    assert len(preempted) == 6
    resumed = [
        file
        for file in (tmp_path / "preempted").glob("*/train.log")
        if ": iterations " in file.read_text().replace("1 iterations", "")
        and "iterations 0 to" not in file.read_text()
    ]
    assert len(resumed) == 6, [file.parent.name for file in resumed]
    assert_same_sweep(tmp_path / "preempted", tmp_path / "straight")
