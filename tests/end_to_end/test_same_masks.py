"""The masks that `test` scores are those that `predict` writes, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg_pl.__main__ import main
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing, Prediction
from medseg_pl.data.sources import FolderSource
from medseg_pl.inference.predictor import Predictor
from medseg_pl.models.losses import DiceCELoss
from medseg_pl.models.normalization import ZScore
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
from tests.export.checkpoints import write_checkpoint
from tests.export.networks import Coarse
from tests.sample_files import save_volume, tree

NAMES = {"binary": ["organ"], "multiclass": ["a", "b", "c"], "multilabel": ["a", "b", "c"]}
SIZES = [(50, 38, 3), (41, 55, 4), (40, 40, 2), (33, 47, 1), (36, 40, 2)]
SPACINGS = [(1.5, 0.75, 3.0), (0.5, 0.5, 5.0), (1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 2.0, 4.0)]
SPLIT = (0.2, 0.2, 0.6)
GRIDS: dict[str, dict[str, Any]] = {
    "native": {"input_size": (32, 32)},
    "resized": {"resize": "fit", "input_size": (32, 48)},
    "spacing": {"spacing_mm": (0.8, 1.2), "input_size": (32, 32)},
}
WINDOWS = {"whole": {}, "windows": {"whole_image_max_pixels": 1}}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Volumes of several sizes and spacings, with masks for each task."""
    folders = {}
    for task, names in NAMES.items():
        rng, root = np.random.default_rng(0), tmp_path_factory.mktemp(task)
        for index, (size, spacing) in enumerate(zip(SIZES, SPACINGS, strict=True)):
            coarse = rng.normal(size=[length // 8 + 1 for length in size[:2]])
            image = np.kron(coarse, np.ones((8, 8)))[: size[0], : size[1], None] + rng.normal(0, 0.3, size)
            save_volume(root / "images" / f"{index}.nii.gz", (1000 + 200 * image).astype(np.int16), spacing)
            mask = rng.integers(0, 2 if task != "multiclass" else len(names) + 1, size).astype(np.uint8)
            folders_of_masks = names if task == "multilabel" else ["masks"]
            for folder in folders_of_masks:
                save_volume(root / folder / f"{index}.nii.gz", mask, spacing)
        folders[task] = root
    return folders


def make_source(task: str, root: Path) -> FolderSource:
    return FolderSource(str(root), masks={name: name for name in NAMES[task]} if task == "multilabel" else "masks")


def score(module: SegmentationModule, source: FolderSource, folder: Path) -> list[Prediction]:
    """Evaluate as `test` does, on three of five cases."""
    data = SegmentationDataModule.for_module(
        module, source, num_workers=0, eval_batch_size=3, cache_dir=str(folder), split_fractions=SPLIT
    )
    data.prepare_data()
    data.setup("test")
    module.evaluator.reset(training=False)
    with torch.inference_mode():
        batches = enumerate(data.test_dataloader())
        return [case for index, batch in batches for case in module.test_step(batch, index)["cases"]]


@pytest.mark.parametrize(
    ("task", "grid", "window", "tta"),
    [  # each task on each grid, and each grid whole and in windows, with flips and without
        ("binary", "native", "whole", "none"),
        ("binary", "resized", "windows", "flips"),
        ("binary", "spacing", "whole", "flips"),
        ("multiclass", "native", "windows", "flips"),
        ("multiclass", "resized", "whole", "none"),
        ("multiclass", "spacing", "windows", "none"),
        ("multilabel", "native", "whole", "flips"),
        ("multilabel", "resized", "whole", "flips"),
        ("multilabel", "spacing", "windows", "flips"),
    ],
)
def test_evaluation_decides_as_the_predictor_does(
    task: str, grid: str, window: str, tta: Any, roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    torch.manual_seed(0)
    labels = LabelMap(NAMES[task], task)  # type: ignore[arg-type]
    settings = {**GRIDS[grid], **WINDOWS[window], "tta": tta, "context_slices": 1, "size_divisor": 8}
    postprocess = {NAMES[task][0]: PostProcessing(fill_holes=True, largest_only=True)}
    module = SegmentationModule(
        Coarse, labels, DiceCELoss(), ZScore(), lambda p: torch.optim.SGD(p, 0.1), postprocess=postprocess, **settings
    ).eval()
    source = make_source(task, roots[task])
    scored = {case.case_id: case for case in score(module, source, tmp_path_factory.getbasetemp() / "cache")}
    single, double = Predictor([module.model]), Predictor([module.model, module.model])
    assert len(scored) == 3
    for case in (case for case in source.cases() if case.case_id in scored):
        volume = source.read(case, labels)
        expected = scored[case.case_id].mask.tobytes()
        assert single.predict_volume(volume, case.case_id).mask.tobytes() == expected
        # The mean of a model and itself is the model's own.
        assert double.predict_members(volume, case.case_id).prediction.mask.tobytes() == expected
        assert np.count_nonzero(scored[case.case_id].mask) > 0


@pytest.mark.parametrize("task", NAMES)
def test_files_of_both_commands_are_the_same(task: str, roots: dict[str, Path], tmp_path: Path) -> None:
    settings: dict[str, dict[str, Any]] = {
        "binary": {"resize": "fit", "input_size": [32, 48], "tta": "flips"},
        "multiclass": {"spacing_mm": [0.8, 1.2], "whole_image_max_pixels": 1},
        "multilabel": {"context_slices": 1, "postprocess": {"b": {"largest_only": True}}},
    }
    init = {"root": str(roots[task])}
    if task == "multilabel":
        init |= {"masks": {name: name for name in NAMES[task]}}  # type: ignore[dict-item]
    source = {"class_path": "medseg_pl.FolderSource", "init_args": init}
    checkpoint = write_checkpoint(
        tmp_path / "best.ckpt", names=tuple(NAMES[task]), task=task, source=source, **settings[task]
    )
    others = ["--trainer.accelerator=cpu", "--data.num_workers=0", "--plugins=tests"]
    assert main(["test", "--ckpt_path", checkpoint, f"--data.split_fractions={list(SPLIT)}", *others]) == 0
    images, output = str(roots[task] / "images"), str(tmp_path / "out")
    # An ensemble of a model and itself predicts as the model does.
    shutil.copy(checkpoint, tmp_path / "same.ckpt")
    several = ["--ckpt_path", checkpoint, "--ckpt_path", str(tmp_path / "same.ckpt")]
    assert main(["predict", *several, "--input", images, "--output", output, *others]) == 0
    kept = {name: content for name, content in tree(tmp_path / "predictions" / "test").items() if "nii" in name}
    written = tree(tmp_path / "out")
    assert len(kept) == 3 * (len(NAMES[task]) if task == "multilabel" else 1)
    assert kept == {name: written[name] for name in kept}
