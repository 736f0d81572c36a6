"""Dashboards: a stranger's settings send no key or data elsewhere, and what is shown, piece by piece."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseScore
from medseg_pl.training.callbacks.log_media import ImageBuffer, find_worst_cases
from medseg_pl.training.dashboards import Picture, make_mask_layers

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

NUCLEUS = LabelMap(["nucleus"], "binary")


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

    from medseg_pl.training.dashboards import ALLOWED_SETTINGS

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


def case_with(name: str, hits: int) -> Prediction:
    """Eight voxels of reference in the second of three slices, of which the prediction finds so many."""
    reference = np.zeros((3, 4, 4), np.uint8)
    reference[1, :2] = 1
    prediction = np.zeros_like(reference)
    prediction[1].flat[:hits] = 1
    return Prediction.from_masks(name, prediction, reference)


def test_the_buffer_keeps_the_fixed_and_the_worst_and_no_others() -> None:
    images = ImageBuffer(NUCLEUS, size=1, fixed=["good"])
    for name, hits in {"good": 8, "fair": 4, "bad": 1, "better": 6}.items():
        case = case_with(name, hits)
        if images.is_wanted(case):
            images.add(case, np.zeros((1, 3, 4, 4), np.uint8), np.zeros((1, 4), np.float32))
    assert sorted(images.pictures) == ["bad", "good"]
    assert images.pictures["bad"].reference.sum() == 8  # of the second slice
    assert list(images.gather(["bad", "elsewhere", "good"])) == ["bad", "good"]


def test_a_case_without_any_label_is_never_among_the_worst() -> None:
    rows = [
        CaseScore(name, "g", "nucleus", {"dice": dice}, "ok", "px") for name, dice in {"a": math.nan, "b": 0.9}.items()
    ]
    assert find_worst_cases(rows, 1) == ["b"]


def test_overlapping_labels_have_a_layer_each_and_others_share_one() -> None:
    planes = np.array([[[True, False]], [[True, True]]])
    exclusive = np.array([[[True, False]], [[False, True]]])
    rgb = np.zeros((1, 2, 3), np.uint8)
    names = ["a", "b"]
    layers = make_mask_layers(Picture("x", rgb, planes, planes), LabelMap(names, "multilabel"))
    assert sorted(layers) == ["prediction a", "prediction b", "reference a", "reference b"]
    assert layers["reference b"]["mask_data"].tolist() == [[2, 2]]
    assert layers["reference b"]["class_labels"] == {0: "background", 2: "b"}
    shared = make_mask_layers(Picture("x", rgb, exclusive, exclusive), LabelMap(names, "multiclass"))
    assert sorted(shared) == ["prediction", "reference"]
    assert shared["prediction"]["mask_data"].tolist() == [[1, 2]]
