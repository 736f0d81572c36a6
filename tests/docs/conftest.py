"""The folder in which a reader of the pages types: small data under the names that the pages use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.io.raster import write_png
from tests.docs.commands import blocks
from tests.end_to_end.conftest import SMALL

REPOSITORY = Path.cwd()
BEST = "checkpoints/best.ckpt"


@pytest.fixture(scope="session")
def empty_desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, configurations and the plug-in of the pages, and no run."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "configs").symlink_to(REPOSITORY / "configs")
    (desk / "mypackage.py").write_text(blocks(REPOSITORY / "docs/plugins.md", "python")[0][1])
    _pictures(desk)
    _two_observers(desk)
    _arrays(desk / "data/arrays")
    _retinas(desk / "data/chase_db1")
    for name, labels in (("msd_hippocampus", ("anterior", "posterior")), ("decathlon", ("organ", "tumour"))):
        _volumes_with_two_labels(desk / "data" / name, labels)
    write_phantom(desk / "data/uw_madison", "uw_madison", cases=8, seed=0, slices=6, size=(40, 36))
    return desk


@pytest.fixture(scope="session")
def used_desk(empty_desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the first page, with the runs that the other pages speak of."""
    desk = tmp_path_factory.mktemp("used") / "desk"
    shutil.copytree(empty_desk, desk, symlinks=True)
    shutil.copytree(desk / "data/uw_madison", desk / "data/phantom")
    demo = desk / "runs/demo/version_0"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        assert main(["fit", "--config", "configs/experiment/demo.yaml", *SMALL]) == 0
        assert main(["test", "--ckpt_path", f"runs/demo/version_0/{BEST}"]) == 0
    for name in ("a", "b", "fold0", "fold1"):
        shutil.copytree(demo, desk / "runs" / name / "version_0")
    return desk


@pytest.fixture
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the desk that is named by the parameter, to work in."""
    copy = tmp_path / "desk"
    shutil.copytree(request.getfixturevalue(request.param), copy, symlinks=True)
    monkeypatch.chdir(copy)
    monkeypatch.syspath_prepend(copy)
    yield copy


def _disc(shape: tuple[int, int], number: int) -> NDArray[np.bool_]:
    """A place of its own for each number."""
    rows, columns = np.indices(shape)
    middle = (shape[0] * (0.35 + 0.03 * (number % 10)), shape[1] * (0.65 - 0.03 * (number % 9)))
    found: NDArray[np.bool_] = np.hypot(rows - middle[0], columns - middle[1]) < shape[0] * (0.15 + 0.01 * (number % 7))
    return found


def _pictures(desk: Path) -> None:
    """Color pictures with a bright lesion, twelve with masks in mydata and two without in newimages."""
    for number, (patient, side) in enumerate(product(range(1, 8), "ab")):
        lesion = _disc((48, 40), number)
        noise = np.random.default_rng(number).integers(0, 60, (48, 40, 3))
        picture = (noise + 60 + 100 * lesion[..., None]).astype(np.uint8)
        folder = desk / "mydata/images" if patient < 7 else desk / "newimages"
        write_png(folder / f"patient{patient}_{side}.png", picture)
        if patient < 7:
            write_png(desk / "mydata/masks" / f"patient{patient}_{side}.png", (lesion * 255).astype(np.uint8))


def _two_observers(desk: Path) -> None:
    """Masks of two labels, which predicted and two raters see a little differently."""
    for number, (patient, side) in enumerate(product(range(1, 7), "ab")):
        for folder, shift in (("annotated", 0), ("annotated_2nd", 2), ("predicted", 1)):
            liver, tumour = _disc((48, 40), number), _disc((24, 20), number)
            mask = liver.astype(np.uint8)
            mask[:24, :20][tumour] = 2
            write_png(desk / folder / f"patient{patient}_{side}.png", np.roll(mask, shift, axis=1))


def _arrays(folder: Path) -> None:
    """What the source of the page about plug-ins reads."""
    folder.mkdir(parents=True)
    for number in range(6):
        mask = _disc((32, 32), number)[None, None].astype(np.uint8)
        np.savez(folder / f"patient{number}_scan.npz", image=(mask * 100 + 7).astype(np.uint8), mask=mask)


def _retinas(folder: Path) -> None:
    """As many pictures as CHASE_DB1 has, with its names."""
    for number, (child, eye) in enumerate(product(range(1, 15), "LR")):
        vessel = _disc((40, 40), number)
        noise = np.random.default_rng(number).integers(0, 60, (40, 40, 3))
        name = f"Image_{child:02d}{eye}.png"
        write_png(folder / "images" / name, (noise + 90 * vessel[..., None]).astype(np.uint8))
        write_png(folder / "masks_1st" / name, vessel.astype(np.uint8))


def _volumes_with_two_labels(folder: Path, labels: tuple[str, str]) -> None:
    """The phantom, whose third organ becomes one with the second."""
    write_phantom(folder, "decathlon", cases=8, seed=0, slices=6, size=(40, 36))
    index = json.loads((folder / "dataset.json").read_text())
    index["labels"] = {"0": "background", "1": labels[0], "2": labels[1]}
    (folder / "dataset.json").write_text(json.dumps(index))
    for file in (folder / "labelsTr").iterdir():
        image = nibabel.load(file)
        merged = np.minimum(np.asanyarray(image.dataobj), 2)
        nibabel.save(nibabel.Nifti1Image(merged, image.affine, image.header), file)
