"""Dashboards at W&B and TensorBoard: what they show of a run, and what they must not know."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, UInt8
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.splits import SIDES
from medseg_pl.io.case_pictures import draw_side_by_side
from medseg_pl.io.privacy import SHOWN_OF_DATA, redact_value
from medseg_pl.training.datamodule import SegmentationDataModule

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
    # Tables are kept in the run's own folder, see `log_scores`.
    "allow_offline_artifacts": False,
    # Links hold absolute paths.
    "symlink": False,
}
"""CPU, GPU and memory are still measured: their charts name no machine."""

ALLOWED_SETTINGS = frozenset({
    *("allow_val_change", "anonymous", "entity", "finish_timeout", "finish_timeout_raises", "heartbeat_seconds"),
    *("init_timeout", "label_disable", "login_timeout", "max_end_of_run_history_metrics"),
    *("max_end_of_run_summary_metrics", "mode", "project", "quiet", "reinit", "resume", "run_group", "run_id"),
    *("run_job_type", "run_name", "run_notes", "run_tags", "show_colors", "show_emoji", "show_errors", "show_info"),
    *("show_warnings", "silent", "stop_on_fatal_error", "strict", "summary_timeout", "summary_warnings", "sweep_id"),
    *("x_disable_machine_info", "x_disable_stats", "x_file_stream_retry_max", "x_file_stream_timeout_seconds"),
    *("x_file_transfer_retry_max", "x_file_transfer_timeout_seconds", "x_graphql_retry_max"),
    *("x_graphql_timeout_seconds", "x_label", "x_primary", "x_service_wait", "x_stats_buffer_size"),
    *("x_stats_cpu_count", "x_stats_cpu_logical_count", "x_stats_gpu_count", "x_stats_gpu_device_ids"),
    *("x_stats_gpu_type", "x_stats_no_cgroup", "x_stats_sampling_interval", "x_stats_self_usage"),
    *("x_stats_track_process_tree", "x_update_finish_state"),
})  # fmt: skip
"""Of `wandb.Settings`: what a run is called, how long to wait, what to print and to measure."""

ALLOWED_ARGUMENTS = frozenset({
    *("allow_val_change", "anonymous", "config", "config_exclude_keys", "config_include_keys", "dir", "entity"),
    *("force", "group", "id", "job_type", "mode", "name", "notes", "project", "reinit", "resume", "save_code"),
    *("settings", "tags"),
})  # fmt: skip
"""Of `wandb.init`."""

_VARIABLES = {
    "api_key": "WANDB_API_KEY",
    "base_url": "WANDB_BASE_URL",
    "http_proxy": "HTTP_PROXY",
    "https_proxy": "HTTPS_PROXY",
    "identity_token_file": "WANDB_IDENTITY_TOKEN_FILE",
}
"""What a user types in the environment instead."""

_HIDDEN_OF_MODEL = ("_instantiator", "pretrained")

Dashboard: TypeAlias = WandbLogger | TensorBoardLogger
"""A logger that shows more than the scalars that Lightning sends it."""

_TABLE_COLUMNS = ("case_id", "group", "label", "dice", "iou", "hd95", "nsd", "status")
"""What TensorBoard shows of the scores; the run folder has all columns."""
_OBJECT_COLUMNS = ("case_id", "label", "mask", "object", "status", "volume_ml", "diameter", "iou")


def check_wandb(loggers: Iterable[Logger]) -> None:
    """Check the loggers' settings before any of their runs begins.

    Raises:
        SettingError: A setting of W&B is not among those that a configuration may hold, so that data might go
            elsewhere.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _check_names(sorted(read_given_settings(logger)), ALLOWED_SETTINGS.union(PRIVATE))
            given = {name: value for name, value in logger._wandb_init.items() if value is not None}
            _check_names(sorted(given), ALLOWED_ARGUMENTS)
            if isinstance(given.get("config"), str):  # W&B would read that file, and send what it holds
                raise SettingError("WandbLogger's config is text; expected named values. Leave it out, or name them.")


def _check_names(names: Iterable[str], allowed: frozenset[str]) -> None:
    for name in names:
        if name not in allowed:
            variable = _VARIABLES.get(name)
            remedy = f"Set {variable} in the environment yourself" if variable else "Leave it out"
            raise SettingError(
                f"WandbLogger's setting {name} is not taken from settings: a stranger's could send your data or "
                f"key elsewhere. {remedy}."
            )


def make_private(logger: Logger, wandb_run_id: str | None = None) -> None:
    """Keep a `WandbLogger` from collecting data on person, machine and folders.

    Call it before the logger's run begins. It does not check what is logged on purpose; other loggers are left alone.

    Args:
        logger: Any of Lightning's loggers.
        wandb_run_id: The run to resume, unless the logger names one itself.
    """
    if not isinstance(logger, WandbLogger):
        return
    import wandb  # noqa: PLC0415  an extra, and only those who configured its logger have it

    init = logger._wandb_init
    init["settings"] = wandb.Settings(**{**read_given_settings(logger), **PRIVATE})
    init["save_code"] = False
    if init.get("anonymous") is None:
        init.pop("anonymous", None)  # Lightning hands it over even unset, of which W&B warns
    if logger._offline:
        init["mode"] = "offline"  # Lightning says so through the environment, which W&B reads once in a process
    if logger._id is None and wandb_run_id is not None:
        init["id"] = logger._id = wandb_run_id
    _filter_debug_logs()


def read_given_settings(logger: WandbLogger) -> dict[str, Any]:
    """Read what the logger was given as W&B's settings."""
    given = logger._wandb_init.get("settings") or {}
    return (
        dict(given) if isinstance(given, Mapping) else {name: getattr(given, name) for name in given.model_fields_set}
    )


def remove_links(logger: WandbLogger) -> None:
    """Remove the link to W&B's log below the home folder.

    The link names the user. The run must have begun.
    """
    run = logger.experiment
    if not run.disabled:
        (Path(run.settings.log_dir) / "debug-core.log").unlink(missing_ok=True)


def _filter_debug_logs() -> None:
    """Keep folders and settings out of W&B's debug.log, but not warnings."""
    names = [name for name in logging.root.manager.loggerDict if name == "wandb" or name.startswith("wandb.")]
    for name in names:
        logger = logging.getLogger(name)
        if _is_warning not in logger.filters:
            logger.addFilter(_is_warning)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def collect_settings(trainer: Trainer, module: LightningModule, data: Any) -> dict[str, Any]:
    """Collect the settings that may leave the machine.

    They hold no path and no name of a file or a case.

    Args:
        trainer: Its settings are named one by one.
        module: Its hyper-parameters are shown but for what looks like a path or a file.
        data: Its hyper-parameters are shown where they are known to be harmless; of the source only the class.
    """
    model = {name: redact_value(value) for name, value in module.hparams.items() if name not in _HIDDEN_OF_MODEL}
    shown: dict[str, Any] = {"model": model, "trainer": _collect_trainer(trainer)}
    if isinstance(data, SegmentationDataModule):
        harmless = {name: redact_value(data.hparams[name]) for name in SHOWN_OF_DATA if name in data.hparams}
        across = trainer.world_size * trainer.accumulate_grad_batches
        shown["data"] = {**harmless, "source": type(data.source).__name__}
        shown["trainer"]["effective_batch_size"] = data.batch_size * across
        shown["data"]["cases"] = {side: len(getattr(data.prepared.split, side)) for side in SIDES}
    return shown


def _collect_trainer(trainer: Trainer) -> dict[str, Any]:
    return {
        "accelerator": type(trainer.accelerator).__name__,
        "strategy": type(trainer.strategy).__name__,
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "world_size": trainer.world_size,
        "precision": str(trainer.precision),
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": redact_value(trainer.gradient_clip_val),
    }


@dataclass(frozen=True)
class Picture:
    """A slice of a case with its masks, one for each label.

    Args:
        case_id: The case; not for showing.
        rgb: The image.
        reference: The annotated masks.
        prediction: The predicted masks.
    """

    case_id: str
    rgb: UInt8[np.ndarray, "h w 3"]
    reference: Bool[np.ndarray, "n h w"]
    prediction: Bool[np.ndarray, "n h w"]


def log_settings(dashboard: Dashboard, settings: Mapping[str, Any]) -> None:
    """Log the settings as W&B's configuration.

    TensorBoard gets them with the scores that they led to.
    """
    if isinstance(dashboard, WandbLogger):
        remove_links(dashboard)
        dashboard.log_hyperparams(dict(settings))


def log_scores(dashboard: Dashboard, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log a table with a row for each case and label.

    W&B can sort it, TensorBoard shows it as text.
    """
    _log_table(dashboard, f"scores/{stage}", rows, _TABLE_COLUMNS)


def log_objects(dashboard: Dashboard, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log a table with a row for each object, as `log_scores` does."""
    _log_table(dashboard, f"objects/{stage}", rows, _OBJECT_COLUMNS)


def _log_table(
    dashboard: Dashboard, name: str, rows: Sequence[Mapping[str, Any]], shown_as_text: Sequence[str]
) -> None:
    if isinstance(dashboard, TensorBoardLogger):
        dashboard.experiment.add_text(name, format_markdown(rows, shown_as_text))
        return
    import wandb  # noqa: PLC0415  an extra, and only those who configured its logger have it

    columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row))
    data = [[_replace_nan(row.get(str(name))) for name in columns] for row in rows]
    run, table = dashboard.experiment, wandb.Table(columns=columns, data=data)
    if not run.disabled:
        # Not `WandbLogger.log_table`: W&B would keep the table as an artifact, too, under the home folder. That path
        # would stand in the run's file, and the artifact be missing if the folder is synced from another machine.
        table.bind_to_run(run, name, run.step)  # type: ignore[no-untyped-call]
    run.log({name: table})


def log_pictures(dashboard: Dashboard, name: str, pictures: Mapping[str, Picture], labels: LabelMap, step: int) -> None:
    """Log pictures by caption.

    W&B has masks to switch on and off, TensorBoard shows them side by side.
    """
    if isinstance(dashboard, TensorBoardLogger):
        for number, picture in enumerate(pictures.values()):
            drawn = draw_side_by_side(picture.rgb, picture.reference, picture.prediction)
            dashboard.experiment.add_image(f"{name}/{number}", drawn, step, dataformats="HWC")
        return
    images = [picture.rgb for picture in pictures.values()]
    masks = [make_mask_layers(picture, labels) for picture in pictures.values()]
    dashboard.log_image(name, images, step, caption=list(pictures), masks=masks)


def log_summary(dashboard: Dashboard, settings: Mapping[str, Any], values: Mapping[str, float]) -> None:
    """Log the few numbers that summarize the run.

    TensorBoard shows them beside the settings, once.
    """
    if isinstance(dashboard, WandbLogger):
        dashboard.experiment.summary.update(dict(values))
    else:
        dashboard.log_hyperparams(dict(settings), dict(values))


def make_mask_layers(picture: Picture, labels: LabelMap) -> dict[str, dict[str, Any]]:
    """Make W&B's layers of masks.

    Returns:
        For reference and prediction one layer for each label if labels may overlap, else one for all labels.
    """
    layers: dict[str, dict[str, Any]] = {}
    for name, planes in {"prediction": picture.prediction, "reference": picture.reference}.items():
        if labels.overlapping:
            for index, label in enumerate(labels.names):
                layers[f"{name} {label}"] = _make_layer(planes[index : index + 1], {index: label})
        else:
            layers[name] = _make_layer(planes, dict(enumerate(labels.names)))
    return layers


def _make_layer(planes: Bool[np.ndarray, "n h w"], names: Mapping[int, str]) -> dict[str, Any]:
    """Merge planes into one mask.

    Label `i` is `i + 1` in each layer, so that it has the same color in all.
    """
    values = np.array([index + 1 for index in names], np.uint8).reshape(-1, 1, 1)
    classes = {0: "background", **{index + 1: name for index, name in names.items()}}
    return {"mask_data": (planes * values).max(axis=0), "class_labels": classes}


def _replace_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def format_markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    r"""Format a table in Markdown, numbers with four decimals.

    >>> print(format_markdown([{"label": "a|b", "dice": 0.5}], ["label", "dice"]))
    | label | dice |
    | --- | --- |
    | a\|b | 0.5000 |
    """
    lines = [columns, ["---"] * len(columns), *([_format_cell(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _format_cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")
