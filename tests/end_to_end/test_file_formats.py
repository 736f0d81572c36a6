"""Every format of pictures and volumes through check, plan, fit, test and predict; SimpleITK compares the grids."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from medseg_pl.__main__ import main
from tests.annotation_files import save_coco
from tests.end_to_end.conftest import SMALL
from tests.sample_files import noise, results

pytestmark = pytest.mark.trainings

DEPTH, HEIGHT, WIDTH = 4, 40, 36
SPACING_MM = (0.7, 0.8, 3.0)
TURN = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
VOLUMES = {
    "p0": (".mha", ".nrrd"),
    "p1": (".nrrd", ".mha"),
    "p2": (".mhd", ".nii.gz"),
    "p3": (".nhdr", ".nhdr"),
    "p4": (".nii.gz", ".mhd"),
    "p5": (".tif", ".tif"),
}
"""The suffix of each image and of its mask."""
PICTURES = {
    "p0": (".gif", ".gif"),
    "p1": (".webp", ".webp"),
    "p2": (".jp2", ".jp2"),
    "p3": (".png", ".gif"),
    "p4": (".tif", ".png"),
    "p5": (".bmp", ".webp"),
}


def scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image with a bright box, and the box."""
    mask = np.zeros((DEPTH, HEIGHT, WIDTH), np.uint8)
    mask[1:, 8 + seed : 24 + seed, 6 : 20 + seed] = 1
    return (noise(mask.shape, seed) // 3 + 120 * mask).astype(np.uint8), mask


def save_volume(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        noted = {"axes": "ZYX", "unit": "mm", "spacing": SPACING_MM[2]}
        resolution = (1 / SPACING_MM[0], 1 / SPACING_MM[1])
        tifffile.imwrite(path, voxels, imagej=True, resolution=resolution, metadata=noted)
        return
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(TURN)
    sitk.WriteImage(image, str(path), useCompression=True)


def save_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(pixels).save(path, **options)


def run(root: Path) -> str:
    """Check, plan, fit and test a data set, and return the checkpoint."""
    assert main(["check", str(root), "--labels", "lesion"]) == 0
    assert main(["plan", str(root), "--labels", "lesion", "-o", str(root / "plan.yaml"), "--no_probe"]) == 0
    configs = ["--config", str(root / "plan.yaml"), "--config", "configs/model/tiny.yaml"]
    short = ["--data.samples_per_epoch=8", "--data.folds=3"]
    assert main(["fit", *configs, *SMALL, *short, "--runs", str(root / "runs"), "--experiment", "e"]) == 0
    checkpoint = str(root / "runs/e/version_0/checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", checkpoint]) == 0
    return checkpoint


def predict(checkpoint: str, images: Path, output: Path, *options: str) -> None:
    folders = ["--input", str(images), "--output", str(output)]
    assert main(["predict", "--ckpt_path", checkpoint, *folders, *options]) == 0


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data set with a volume of each format, and a checkpoint that was trained on all of them."""
    root = tmp_path_factory.mktemp("volumes")
    for seed, (name, (image, mask)) in enumerate(VOLUMES.items()):
        voxels, labels = scan(seed)
        save_volume(root / "images" / f"{name}{image}", voxels)
        save_volume(root / "masks" / f"{name}{mask if image != '.tif' else image}", labels)
    return root, run(root)


def test_volumes_come_back_in_their_format_on_their_grid(volumes: tuple[Path, str], tmp_path: Path) -> None:
    root, checkpoint = volumes
    predict(checkpoint, root / "images", tmp_path / "out")
    names = {name for name in results(tmp_path / "out") if not name.endswith((".zraw", ".raw.gz"))}
    assert names == {f"{name}{image}" for name, (image, _) in VOLUMES.items()}
    for name in names - {"p5.tif"}:
        written, image = (sitk.ReadImage(str(folder / name)) for folder in (tmp_path / "out", root / "images"))
        assert written.GetSize() == image.GetSize()
        np.testing.assert_allclose(written.GetSpacing(), image.GetSpacing(), rtol=1e-7)
        np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), rtol=1e-7)
        np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-7)
        assert set(np.unique(sitk.GetArrayFromImage(written))) <= {0, 1}
    with tifffile.TiffFile(tmp_path / "out" / "p5.tif") as file:
        assert file.series[0].shape == (DEPTH, HEIGHT, WIDTH)
        assert (file.imagej_metadata or {})["spacing"] == SPACING_MM[2]


def test_one_scan_has_one_mask_in_every_format(volumes: tuple[Path, str], tmp_path: Path) -> None:
    _, checkpoint = volumes
    voxels, _ = scan(3)
    for suffix in (".mha", ".nrrd", ".nii.gz", ".tif"):
        save_volume(tmp_path / "in" / f"a{suffix[1:4]}{suffix}", voxels)
    predict(checkpoint, tmp_path / "in", tmp_path / "out")
    first, *others = [
        tifffile.imread(path) if path.suffix == ".tif" else sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        for path in sorted((tmp_path / "out").glob("a*"))
    ]
    assert len(others) == 3
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_volumes_of_nibabel_in_48_orientations_keep_theirs(volumes: tuple[Path, str], tmp_path: Path) -> None:
    _, checkpoint = volumes
    (tmp_path / "in").mkdir()
    for number, (axes, signs) in enumerate(product(permutations(range(3)), product((1.0, -1.0), repeat=3))):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, axes] * np.array(signs) * SPACING_MM
        affine[:3, 3] = (10.0, -20.0, 30.0)
        nibabel.save(nibabel.Nifti1Image(noise((16, 20, 2), number), affine), tmp_path / "in" / f"{number}.nii")
    predict(checkpoint, tmp_path / "in", tmp_path / "out", "--on_foreign=ignore")
    for number in range(48):
        written, image = (sitk.ReadImage(str(tmp_path / part / f"{number}.nii")) for part in ("out", "in"))
        assert written.GetSize() == image.GetSize() == (16, 20, 2)
        for what in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(written, what)() == getattr(image, what)()


def test_pictures_of_every_format(tmp_path: Path) -> None:
    for seed, (name, (image, mask)) in enumerate(PICTURES.items()):
        pixels, labels = (array[1] for array in scan(seed))
        save_picture(tmp_path / "images" / f"{name}{image}", np.stack([pixels, pixels // 2, 255 - pixels], axis=-1))
        save_picture(tmp_path / "masks" / f"{name}{mask}", labels * 255)
    checkpoint = run(tmp_path)
    predict(checkpoint, tmp_path / "images", tmp_path / "out")
    assert set(results(tmp_path / "out")) == {f"{name}.png" for name in PICTURES}
    for name in PICTURES:
        with Image.open(tmp_path / "out" / f"{name}.png") as written:
            assert written.size == (WIDTH, HEIGHT)
            assert set(np.unique(np.asarray(written))) <= {0, 1, 255}


@pytest.mark.slow
def test_outlines(tmp_path: Path) -> None:
    outlines = {}
    for seed in range(6):
        save_picture(tmp_path / "images" / f"p{seed}.png", scan(seed)[0][1])
        top, left, bottom, right = 8.0 + seed, 6.0, 24.0 + seed, 20.0 + seed
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        outlines[f"p{seed}.png"] = [("lesion", corners)]
    save_coco(tmp_path / "annotations.json", outlines, (HEIGHT, WIDTH))
    checkpoint = run(tmp_path)
    predict(checkpoint, tmp_path / "images", tmp_path / "out")
    assert set(results(tmp_path / "out")) == {f"p{seed}.png" for seed in range(6)}


@pytest.mark.slow
def test_segmentations_of_slicer(tmp_path: Path) -> None:
    for seed in range(6):
        voxels, labels = scan(seed)
        save_volume(tmp_path / "images" / f"p{seed}.nrrd", voxels)
        image = sitk.GetImageFromArray(labels * (1 + seed))  # the value of a segment differs from file to file
        image.CopyInformation(sitk.ReadImage(str(tmp_path / "images" / f"p{seed}.nrrd")))
        image.SetMetaData("Segment0_Name", "Lesion")
        image.SetMetaData("Segment0_LabelValue", str(1 + seed))
        (tmp_path / "masks").mkdir(exist_ok=True)
        sitk.WriteImage(image, str(tmp_path / "masks" / f"p{seed}.nrrd"))
    checkpoint = run(tmp_path)
    predict(checkpoint, tmp_path / "images", tmp_path / "out")
    assert set(results(tmp_path / "out")) == {f"p{seed}.nrrd" for seed in range(6)}
