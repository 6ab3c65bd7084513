"""Trackers of experiments beside TensorBoard: a run resumed is one run there, and in its folder."""

import logging
import os
import re
import sqlite3
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger, WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from gan_zoo.ranges import checked


def _require(tracker: str, *packages: str) -> None:
    missing = [package for package in packages if not find_spec(package)]
    if missing:
        raise ValueError(
            f"logger={tracker} needs {' and '.join(missing)}: pip install 'gan_zoo[{tracker}]', or "
            f"pip install -e '.[{tracker}]' in a checkout."
        )


class WandB(WandbLogger):
    """Weights & Biases: the run is named by its folder, whose ``wandb`` keeps what is not uploaded.

    WANDB_MODE=offline in the environment, or ``offline``, uploads nothing. What a killed run has
    logged after its last checkpoint is there twice, at the same iterations.

    Args:
        save_dir: the run's folder.
        project: where the run is listed.
        offline: keep it on this machine until ``wandb sync``.

    Raises:
        ValueError: if wandb is not installed.
    """

    @checked
    def __init__(self, save_dir: str, project: str = "gan_zoo", offline: bool = False) -> None:
        _require("wandb", "wandb")
        import wandb

        # Its folders are called run-TIME-ID or offline-run-TIME-ID.
        before = sorted(path.name for path in Path(save_dir).glob("wandb/*run-*-*"))
        super().__init__(
            name=Path(save_dir).name,
            save_dir=save_dir,
            version=before[0].rpartition("-")[2] if before else None,
            offline=offline,
            project=project,
            # train.log has the console's output, and metrics.json what is printed at the end.
            settings=wandb.Settings(console="off", quiet=True),
        )
        # Lightning passes it on, and wandb warns of it.
        self._wandb_init.pop("anonymous")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The tracker's run, which begins with its first use."""
        begins = self._experiment is None
        run = super().experiment
        if begins:
            # It leads out of the run's folder, which would not be resumed then.
            for link in Path(str(self._save_dir)).glob("wandb/*/logs/debug-core.log"):
                link.unlink()
        return run

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the tracker's run too: the next run of a sweep would go on with it."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(status != "success"))
            self._experiment = None


class MLflow(MLFlowLogger):
    """MLflow, in the run's folder, or on the server that MLFLOW_TRACKING_URI names.

    A resumed run logs no iteration twice.

    Args:
        save_dir: the run's folder, by which the run is named.
        experiment_name: where the run is listed.

    Raises:
        ValueError: if mlflow, or what its database needs, is not installed.
    """

    @checked
    def __init__(self, save_dir: str, experiment_name: str = "gan_zoo") -> None:
        _require("mlflow", "mlflow", "sqlalchemy", "alembic")
        # It would tell its makers of each run, and us of the tables in each new database.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # noqa: F401

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)
        folder = Path(save_dir).resolve() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._id_file = folder / "run_id"
        kept = self._id_file.read_text() if self._id_file.is_file() else ""
        # The last iteration of each tag that the sessions before have logged.
        self._logged: dict[str, int] = {}
        super().__init__(
            experiment_name=experiment_name,
            run_name=Path(save_dir).name,
            tracking_uri=server or f"sqlite:///{folder / 'mlflow.db'}",
            artifact_location=None if server else (folder / "artifacts").as_uri(),
            run_id=kept if re.fullmatch(r"\w+", kept) else None,
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client; the run begins with its first use."""
        if self._initialized:
            return self._mlflow_client
        resumed = self._run_id is not None
        if resumed and self._artifact_location:
            # Its database has whole paths, and the run's folder may have been moved.
            here = (f"{self._artifact_location}/{self._run_id}/artifacts", self._run_id)
            with sqlite3.connect(self._id_file.with_name("mlflow.db")) as database:
                database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", here)
            database.close()
        client = super().experiment
        if self._artifact_location:
            # It has told other processes, and with them the next job of a sweep, of this database.
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        if resumed:
            client.update_run(self._run_id, status="RUNNING")
            for tag in client.get_run(self._run_id).data.metrics:
                history = client.get_metric_history(self._run_id, tag)
                self._logged[tag] = max(metric.step for metric in history)
        else:
            self._id_file.write_text(str(self._run_id))
        return client

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs what the sessions before have not."""
        self.experiment  # noqa: B018
        new = {tag: v for tag, v in metrics.items() if (step or 0) > self._logged.get(tag, -1)}
        super().log_metrics(new, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Logs what the run has not: MLflow lets no parameter change."""
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({key: v for key, v in params.items() if key not in known})
