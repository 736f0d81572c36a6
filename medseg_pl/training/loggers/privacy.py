"""What W&B collects by itself, switched off: this is the only place that says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger

PRIVATE: dict[str, Any] = {
    # Host, user, program, argv, paths and the disks' names: wandb-metadata.json and the record of the environment.
    "x_disable_meta": True,
    "host": "",
    "username": "",
    "email": "",
    "program": "",
    "program_abspath": "",
    "program_relpath": "",
    "x_executable": "",
    # Remote, commit and root of the repository, the source code, and the job that would repeat both elsewhere.
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    # requirements.txt: names packages of one's own, and where they were installed from.
    "x_save_requirements": False,
    # What is printed names files and cases.
    "console": "off",
    # Tables are kept in the run's own folder, see `WandbBoard.show_scores`.
    "allow_offline_artifacts": False,
    # Links hold absolute paths.
    "symlink": False,
}
"""CPU, GPU and memory are still measured: their charts name no machine."""


def make_private(logger: Logger, wandb_run_id: str | None = None) -> None:
    """Let a `WandbLogger` collect nothing about the person, the machine and its folders; no other logger is changed.

    To be called before the logger's run begins. What is logged on purpose is not looked at.

    Args:
        logger: Any of Lightning's loggers.
        wandb_run_id: The run to go on with, unless the logger names one itself.
    """
    if not isinstance(logger, WandbLogger):
        return
    import wandb  # noqa: PLC0415  an extra, and only those who configured its logger have it

    init = logger._wandb_init
    init["settings"] = wandb.Settings(**{**given_settings(logger), **PRIVATE})
    init["save_code"] = False
    if init.get("anonymous") is None:
        init.pop("anonymous", None)  # Lightning hands it over even unset, of which W&B warns
    if logger._offline:
        init["mode"] = "offline"  # Lightning says so through the environment, which W&B reads once in a process
    if logger._id is None and wandb_run_id is not None:
        init["id"] = logger._id = wandb_run_id
    _quiet_debug_logs()


def given_settings(logger: WandbLogger) -> dict[str, Any]:
    """Return what the logger was given as W&B's settings."""
    given = logger._wandb_init.get("settings") or {}
    return (
        dict(given) if isinstance(given, Mapping) else {name: getattr(given, name) for name in given.model_fields_set}
    )


def remove_links(logger: WandbLogger) -> None:
    """Remove the link to W&B's own log under the home folder, which names the user. The run has to have begun."""
    run = logger.experiment
    if not run.disabled:
        (Path(run.settings.log_dir) / "debug-core.log").unlink(missing_ok=True)


def _quiet_debug_logs() -> None:
    """Leave the folders and the settings, which W&B notes in its debug.log, out of it; warnings stay."""
    names = [name for name in logging.root.manager.loggerDict if name == "wandb" or name.startswith("wandb.")]
    for name in names:
        logger = logging.getLogger(name)
        if _is_warning not in logger.filters:
            logger.addFilter(_is_warning)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING
