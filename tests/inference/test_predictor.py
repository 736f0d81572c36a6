"""Predictions in Python: what is taken, what is refused, and in which precision."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.inference.predictor import Predictor
from medseg_pl.metrics.functional import overlap
from tests.dicom_files import save_series
from tests.export.checkpoints import OURS, write_checkpoint
from tests.sample_files import noise

PLUGINS = [OURS.rsplit(".", 1)[0]]


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.from_checkpoint(write_checkpoint(tmp_path / "a.ckpt"), device="cpu", plugins=PLUGINS)


def test_nothing_predicts_nothing() -> None:
    with pytest.raises(SettingError, match="needs at least one checkpoint"):
        Predictor.from_checkpoint([])
    with pytest.raises(SettingError, match="needs at least one model"):
        Predictor([])


def test_a_model_with_a_spacing_needs_that_of_the_image(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", spacing_mm=[1.0, 1.0])
    predictor = Predictor.from_checkpoint(checkpoint, device="cpu", plugins=PLUGINS)
    with pytest.raises(DataError, match="image has no spacing, but the model brings images to a spacing of its own"):
        predictor.predict(noise((32, 32)))
    assert predictor.predict(noise((32, 32)), (1.0, 2.0, 1.0)).mask.shape == (1, 1, 32, 32)


def test_half_precision_is_near_the_whole_one(predictor: Predictor) -> None:
    for precision in ("bf16-mixed", "bf16"):
        half = Predictor(predictor.models, precision=precision)
        assert half.make_autocast().__class__ is torch.autocast
    whole, rounded = (each.predict(noise((32, 32))).probabilities for each in (predictor, half))
    assert whole is not None and rounded is not None
    np.testing.assert_allclose(rounded, whole, atol=0.1)
    assert (rounded != whole).any()


def test_a_folder_is_one_series(predictor: Predictor, tmp_path: Path) -> None:
    stored = noise((3, 32, 40))
    save_series(tmp_path / "in" / "a", stored)
    prediction = predictor.predict(tmp_path / "in" / "a")
    assert prediction.mask.shape == (1, 3, 32, 40)
    assert prediction.geometry.spacing_mm is not None
    save_series(tmp_path / "in" / "b", stored, series="another")
    with pytest.raises(DataError, match="in holds 2 DICOM series; expected one"):
        predictor.predict(tmp_path / "in")


@pytest.mark.parametrize("orientation", ["SPR", "AIL"])
def test_48_orientations_give_one_mask_in_space(predictor: Predictor, tmp_path: Path, orientation: str) -> None:
    affine = np.array([[1.0, 0, 0, -20], [0.1, 1.5, 0, 7], [0, 0, 3, 11], [0, 0, 0, 1]])
    image, home = nibabel.Nifti1Image(noise((26, 19, 9)), affine), io_orientation(affine)
    oriented = Predictor(predictor.models, orientation=orientation)
    masks, unturned = [], []
    for code in ("".join(codes) for axes in permutations(["RL", "AP", "SI"]) for codes in product(*axes)):
        nibabel.save(image.as_reoriented(ornt_transform(home, axcodes2ornt(tuple(code)))), tmp_path / f"{code}.nii.gz")
        for each, collected in ((oriented, masks), (predictor, unturned)):
            prediction = each.predict(tmp_path / f"{code}.nii.gz", probabilities=False)
            voxels = nibabel.Nifti1Image(prediction.mask[0].T, np.asarray(prediction.geometry.affine)[:, [2, 1, 0, 3]])
            collected.append(np.asarray(voxels.as_reoriented(io_orientation(voxels.affine)).dataobj))
    assert len(masks) == 48
    for value in (1, 2):
        scores = [overlap.dice(overlap.count(mask == value, masks[0] == value)) for mask in masks]
        assert scores == [1.0] * 48
    assert any(not np.array_equal(mask, unturned[0]) for mask in unturned), "the network sees the difference"


def test_an_output_that_is_not_a_number_is_no_background(predictor: Predictor) -> None:
    with torch.no_grad():
        for parameter in predictor.models[0].network.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(
        DataError, match=r"the network's output is not a number\. Predict with --trainer\.precision 32-true"
    ):
        predictor.predict(noise((32, 32)))
