"""A stranger's settings do not send the key or the data of a user elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medseg_pl.core.errors import SettingError

pytest.importorskip("wandb")

ELSEWHERE = {
    "base_url": "127.0.0.1:8931",
    "api_key": "x" * 40,
    "http_proxy": "127.0.0.1:1",
    "https_proxy": "127.0.0.1:1",
    "x_stats_open_metrics_endpoints": {"a": "127.0.0.1:1"},
    "x_extra_http_headers": {"a": "b"},
    "x_stats_dcgm_exporter": "127.0.0.1:1",
    "insecure_disable_ssl": True,
    "credentials_file": "/root/.netrc",
    "root_dir": "/abs",
    "x_files_dir": "/abs",
    "code_dir": "/",
}


def make_logger(folder: Path, **options: Any) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(save_dir=folder, project="p", offline=True, **options)


@pytest.mark.parametrize("name", list(ELSEWHERE))
def test_a_setting_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    from medseg_pl.training.callbacks import check_wandb

    logger = make_logger(tmp_path, settings={name: ELSEWHERE[name]})
    with pytest.raises(SettingError, match=rf"WandbLogger's setting {name} is not taken .*(environment|Leave it out)"):
        check_wandb([logger])


def test_the_remedy_is_what_the_user_types(tmp_path: Path) -> None:
    from medseg_pl.training.callbacks import check_wandb

    with pytest.raises(SettingError, match="Set WANDB_BASE_URL in the environment yourself"):
        check_wandb([make_logger(tmp_path, settings={"base_url": "here"})])


@pytest.mark.parametrize(
    "options",
    [{"config": "/etc/passwd"}, {"sync_tensorboard": True}, {"monitor_gym": True}, {"fork_from": "a?_step=1"}],
)
def test_arguments_that_read_or_send_more_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    from medseg_pl.training.callbacks import check_wandb

    with pytest.raises(SettingError, match="WandbLogger's"):
        check_wandb([make_logger(tmp_path, **options)])


def test_what_names_and_paces_a_run_is_taken(tmp_path: Path) -> None:
    import wandb

    from medseg_pl.training.callbacks import check_wandb

    own = wandb.Settings(x_stats_sampling_interval=3.0, host="somewhere", console="wrap", init_timeout=5)
    check_wandb([make_logger(tmp_path, settings=own, tags=["a"], notes="n", entity="e", config={"a": 1})])
    check_wandb([make_logger(tmp_path, settings={"run_group": "g", "quiet": True})])


def test_no_allowed_setting_names_a_place() -> None:
    import wandb

    from medseg_pl.training.loggers.privacy import ALLOWED_SETTINGS

    parts = (
        "url",
        "endpoint",
        "proxy",
        "prox",
        "path",
        "key",
        "_dir",
        "header",
        "token",
        "credential",
        "ssl",
        "git",
        "launch",
    )
    assert [name for name in ALLOWED_SETTINGS if any(part in name for part in parts)] == []
    assert set(wandb.Settings.model_fields) >= ALLOWED_SETTINGS
