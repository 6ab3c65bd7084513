"""Resuming: a run's own configuration on the command line, and what may differ from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from gan_zoo.run.configuration import CONFIG_DIR, dotted, in_quotes, names_in, text_of
from gan_zoo.run.folder import find_checkpoint, saved_in
from gan_zoo.training.checkpoints import refuse_foreign_code

# Not of the run, but of this session.
_OF_A_SESSION = ("resume", "trust", "init_from", "paths")


def resumed_arguments(arguments: list[str], config_name: str) -> list[str]:
    """Turns ``resume=RUN_FOLDER`` into that run's own configuration, in that folder.

    Raises:
        ValueError: if it is no run's folder, or the other arguments can't go with it.
    """
    if config_name != "train":
        return arguments
    resumes = [text_of(a) for a in arguments if a.startswith("resume=")]
    rest = [a for a in arguments if not a.startswith("resume=")]
    for argument in rest:
        if argument.lstrip("+").startswith("resume.folder=") and "--config-path" not in arguments:
            raise ValueError(f"{argument}: a run is resumed by resume=RUN_FOLDER.")
    # With --config-path Lightning has started this process for a run that is resumed already.
    if "--config-path" in arguments or not resumes or resumes[-1] in ("", "null"):
        return rest
    folder = Path(resumes[-1]).resolve()
    try:
        text = (folder / ".hydra" / "config.yaml").read_text()
        saved = OmegaConf.create(text)
    except (OSError, YAMLError, UnicodeDecodeError):
        raise ValueError(f"resume={resumes[-1]}: that is not the folder of a run.") from None
    keys = {str(key) for key in saved} if OmegaConf.is_dict(saved) else set()
    # What Hydra itself reads could run code before anything has been checked.
    if "model" not in keys or keys & {"hydra", "defaults"} or "@package" in text:
        raise ValueError(
            f"resume={resumes[-1]}: its .hydra/config.yaml is not as train.py writes it."
        )
    if {"-m", "--multirun"} & set(rest):
        raise ValueError("resume takes one run: leave -m out.")
    for argument in rest:
        if (CONFIG_DIR / argument.partition("=")[0].partition("@")[0]).is_dir():
            raise ValueError(
                f"A run is resumed with its own configuration, which {argument} would replace; "
                "change single options instead, such as trainer.max_steps."
            )
    # Options that the version which began the run did not have.
    primary = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / f"{config_name}.yaml"))
    new = {k: v for k, v in primary.items() if k not in (*keys, "hydra", "defaults")}  # type: ignore[union-attr]
    return [
        *("--config-path", str(folder / ".hydra"), "--config-name", "config"),
        *(f"++{k}={json.dumps(v)}" for k, v in dotted(new) if not isinstance(v, dict)),
        # Not what the folder itself says is to be trusted.
        "++trust=[]",
        *(f"++{a}" if a.startswith(("resume.", "trust=")) else a for a in rest),
        f"++resume.folder={in_quotes(str(folder))}",
        f"hydra.run.dir={in_quotes(str(folder))}",
        "hydra.output_subdir=null",
    ]


def checkpoint_to_resume(config: DictConfig, folder: Path) -> tuple[Path | None, int]:
    """A run's latest whole checkpoint and its iteration; None and -1 where it begins again.

    Raises:
        ValueError: if all its checkpoints are damaged, or its configuration would run foreign code
            or differs from what the checkpoint was trained with.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    refuse_foreign_code(plain, "The run's configuration", names_in(config.trust), run=True)
    if saved_in(folder):
        file, checkpoint = find_checkpoint(folder)
        before, step = checkpoint["config"], checkpoint["global_step"]
    else:
        file, step = None, -1
        before = OmegaConf.to_container(
            OmegaConf.load(folder / ".hydra" / "config.yaml"), resolve=True
        )
    changed = _changed(before, config)
    old, new = changed.get("trainer.max_steps", (0, 0))
    if isinstance(new, int) and (new == -1 or new > old >= 0):
        del changed["trainer.max_steps"]
    allowed = names_in(config.resume.allow)
    refused = [
        key for key in changed if not any(key == a or key.startswith(f"{a}.") for a in allowed)
    ]
    if refused:
        changes = ", ".join(f"{key} from {changed[key][0]} to {changed[key][1]}" for key in refused)
        raise ValueError(
            f"A run is resumed as it was configured, which this would change: {changes}. "
            f"resume.allow=[{','.join(refused)}] permits it; trainer.max_steps may be raised."
        )
    return file, step


def _changed(before: Mapping[str, Any], config: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value before, value now) of the options that were set and differ.

    What follows from other options, the environment or the folder's place is left out.
    """

    def flat(node: Any) -> dict[str, Any]:
        return {
            key: value
            for key, value in dotted(node)
            if not isinstance(value, dict) and key.partition(".")[0] not in _OF_A_SESSION
        }

    old, now = flat(before), flat(OmegaConf.to_container(config, resolve=True))
    written = flat(OmegaConf.to_container(config, resolve=False))
    # Not options that an older version of this package did not have.
    roots = set(before)
    return {
        key: (old.get(key), now.get(key))
        for key in sorted(old.keys() | now.keys())
        if old.get(key) != now.get(key)
        and key.partition(".")[0] in roots
        and "${" not in str(written.get(key))
    }
