"""Which settings of W&B a configuration may hold: none that says where data or the key of the user goes."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.loggers import Logger, WandbLogger

from medseg_pl.core.errors import SettingError
from medseg_pl.training.loggers.privacy import PRIVATE, given_settings

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


def check_wandb(loggers: Iterable[Logger]) -> None:
    """Check that the loggers' settings send nothing elsewhere, before any of their runs begins.

    Raises:
        SettingError: A setting of W&B is not among those that a configuration may hold.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _check_names(sorted(given_settings(logger)), ALLOWED_SETTINGS.union(PRIVATE))
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
