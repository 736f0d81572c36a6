"""Masks as people have them: `plan` writes what `check` finds, reads every mask rightly, and trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import SimpleITK
import yaml
from numpy.typing import NDArray
from PIL import Image

from medseg_pl.__main__ import main
from medseg_pl.core.labels import LabelMap
from medseg_pl.data import sources
from tests.printed_json import run_json
from tests.sample_files import save_raster

pytestmark = pytest.mark.trainings

PEOPLE = range(6)
SIDE = 48
Mask = NDArray[np.uint8]
Written = Callable[[Path, int, NDArray[np.uint8], Mask], None]


class Row(NamedTuple):
    """One way of keeping masks.

    Attributes:
        write: Writes the image and the mask of a person.
        labels: What `plan` writes of labels.
        source: What it writes of the source, besides root, images and masks.
        found: The codes of `check` without notes.
        close: The share of pixels that come back as they were drawn, at least.
    """

    write: Written
    labels: dict[str, Any]
    source: Mapping[str, Any] = MappingProxyType({})
    found: tuple[str, ...] = ()
    close: float = 1.0


def draw(person: int) -> tuple[NDArray[np.uint8], Mask]:
    """An image of two organs, and their mask of 0, 1 and 2."""
    rng = np.random.default_rng(person)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(mask, (16 + person, 24), (9, 14), 10 * person, 0, 360, 1, -1)
    cv2.circle(mask, (36, 14 + 3 * person), 7, 2, -1)
    image = 60 + 70 * mask + rng.normal(0, 12, mask.shape)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def one(mask: Mask) -> Mask:
    return (255 * (mask > 0)).astype(np.uint8)


def smooth(mask: Mask) -> Mask:
    half = cv2.resize(one(mask), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(half, mask.shape[::-1]), np.uint8)


def slipped(mask: Mask, person: int) -> Mask:
    rng = np.random.default_rng(person)
    slips = rng.integers(1, 9, mask.shape) * (rng.random(mask.shape) < 0.1)
    return np.where(mask > 0, 255 - slips, slips).astype(np.uint8)


def jpeg(mask: Mask) -> Mask:
    buffer = BytesIO()
    Image.fromarray(mask).save(buffer, format="JPEG", quality=85)
    return np.asarray(Image.open(buffer))


def painted(mask: Mask, ground: tuple[int, int, int] = (0, 0, 0)) -> NDArray[np.uint8]:
    return np.array([ground, (200, 0, 0), (0, 0, 220)], np.uint8)[mask]


def pair(image: str, mask: str, change: Callable[..., NDArray[Any]] = one) -> Written:
    """Write two pictures whose names hold the person's number."""

    def write(root: Path, person: int, pixels: NDArray[np.uint8], drawn: Mask) -> None:
        save_raster(root / image.format(person), pixels)
        save_raster(root / mask.format(person), change(drawn, person) if change is slipped else change(drawn))

    return write


def volumes(ending: str) -> Written:
    def write(root: Path, person: int, pixels: NDArray[np.uint8], drawn: Mask) -> None:
        for folder, plane in (("images", pixels.astype(np.int16)), ("masks", drawn)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            volume = SimpleITK.GetImageFromArray(np.stack([plane] * 3))
            volume.SetSpacing((0.8, 0.8, 3.0))
            SimpleITK.WriteImage(volume, str(root / folder / f"p{person}{ending}"))

    return write


def apart(root: Path, person: int, pixels: NDArray[np.uint8], drawn: Mask) -> None:
    save_raster(root / "images" / f"p{person}.png", pixels)
    for value, name in ((1, "liver"), (2, "spleen")):
        save_raster(root / "masks" / name / f"p{person}.png", one(drawn == value))


def columns(root: Path, person: int, pixels: NDArray[np.uint8], drawn: Mask) -> None:
    apart(root, person, pixels, drawn)
    table = root / "cases.csv"
    head = "" if table.exists() else "case_id,group,image,mask_liver,mask_spleen\n"
    masks = ",".join(f"masks/{name}/p{person}.png" for name in ("liver", "spleen"))
    with table.open("a") as file:
        file.write(f"{head}p{person},p{person},images/p{person}.png,{masks}\n")


FOREGROUND = {"names": ["foreground"], "task": "binary"}
VALUES = {"names": ["label_1", "label_2"], "task": "multiclass"}
TWO = {"names": ["liver", "spleen"], "task": "multilabel"}
COLORS = {"color_0000dc": [0, 0, 220], "color_c80000": [200, 0, 0]}
COLORED = {"names": list(COLORS), "task": "multiclass"}
FOLDERS = {"masks": {"liver": "masks/liver", "spleen": "masks/spleen"}}

ROWS = {
    "antialiased": Row(
        pair("images/p{}.png", "masks/p{}.png", smooth),
        FOREGROUND | {"tolerance": 127.0},
        {},
        ("mask-antialiased",),
        0.98,
    ),
    "JPEG": Row(
        pair("images/p{}.jpg", "masks/p{}.jpg"), FOREGROUND | {"tolerance": 64.0}, {}, ("mask-jpeg-artifacts",)
    ),
    "JPEG as PNG": Row(
        pair("images/p{}.png", "masks/p{}.png", lambda mask: jpeg(one(mask))),
        FOREGROUND | {"tolerance": 64.0},
        {},
        ("mask-jpeg-artifacts",),
    ),
    "near 0 and 255": Row(
        pair("images/p{}.png", "masks/p{}.png", slipped), FOREGROUND | {"tolerance": 64.0}, {}, ("mask-jpeg-artifacts",)
    ),
    "colors": Row(pair("images/p{}.png", "masks/p{}.png", painted), COLORED | {"colors": COLORS}),
    "colors on white": Row(
        pair("images/p{}.png", "masks/p{}.png", lambda mask: painted(mask, (255, 255, 255))),
        COLORED | {"colors": {"background": [255, 255, 255], **COLORS}},
    ),
    "a folder for each label": Row(apart, TWO, FOLDERS),
    "a column for each label": Row(columns, TWO),
    "suffixes": Row(
        pair("images/ISIC_{}.png", "truth/ISIC_{}_segmentation.png"), FOREGROUND, {"mask_name": "{stem}_segmentation"}
    ),
    "prefixes": Row(pair("images/{}.png", "masks/mask_{}.png"), FOREGROUND, {"mask_name": "mask_{stem}"}),
    "GIF": Row(
        pair("images/2{}_training.tif", "1st_manual/2{}_manual1.gif"),
        FOREGROUND,
        {"image_name": "{stem}_training", "mask_name": "{stem}_manual1"},
    ),
    "one folder": Row(
        pair("slides/s{0}/s{0}.png", "slides/s{0}/s{0}_mask.png", lambda mask: mask),
        VALUES,
        {"mask_name": "{stem}_mask"},
    ),
    "NRRD": Row(volumes(".nrrd"), VALUES),
    "MetaImage": Row(volumes(".mha"), VALUES),
}


@pytest.fixture(params=ROWS)
def planned(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Row, Path, Path]:
    """A row, its data set, and what `plan` has written of it."""
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "store"))
    row = ROWS[request.param]
    for person in PEOPLE:
        row.write(tmp_path / "data", person, *draw(person))
    config = tmp_path / "plan.yaml"
    assert (
        main(["plan", str(tmp_path / "data"), "-o", str(config), "--device", "cpu", "--memory_gb", "8", "--no_probe"])
        == 0
    )
    return row, tmp_path / "data", config


def test_what_is_planned_reads_every_mask(planned: tuple[Row, Path, Path]) -> None:
    row, _, config = planned
    settings = yaml.safe_load(config.read_text())
    assert settings["model"]["labels"] == row.labels
    made = settings["data"]["source"]["init_args"]
    assert {name: made[name] for name in row.source} == row.source
    source = getattr(sources, settings["data"]["source"]["class_path"].rpartition(".")[2])(**made)
    described = settings["model"]["labels"]
    colors = {name: tuple(color) for name, color in described.get("colors", {}).items()}
    labels = LabelMap(**{**described, "colors": colors or None})
    cases = source.cases()
    assert len(cases) == len(PEOPLE)
    for person, case in enumerate(cases):
        _, drawn = draw(person)
        planes = labels.planes(source.read(case, labels).mask)[:, 0]
        binary = len(labels.names) == 1
        order = (2, 1) if labels.colors else (1, 2)  # colors are named in their own order
        expected = np.stack([drawn > 0] if binary else [drawn == value for value in order])
        assert (planes == expected).mean() >= row.close


def test_check_finds_what_is_planned(planned: tuple[Row, Path, Path]) -> None:
    row, root, config = planned
    for number, asked in enumerate(([str(root)], ["--config", str(config)])):
        code, found = run_json("check", *asked)
        assert code == 0
        assert found["counts"]["error"] == 0
        names = list(found["data"]["labels"])
        assert names == row.labels["names"]
        codes = {one["code"] for one in found["findings"] if one["code"].startswith("mask-") and one["level"] != "note"}
        assert codes == (set(row.found) if number == 0 else codes & {"mask-lossy-format"})


@pytest.mark.slow
def test_what_is_planned_trains(planned: tuple[Row, Path, Path], tmp_path: Path) -> None:
    train(planned[2], tmp_path / "runs")


@pytest.mark.parametrize("planned", ["JPEG", "GIF"], indirect=True)
def test_two_of_them_train(planned: tuple[Row, Path, Path], tmp_path: Path) -> None:
    train(planned[2], tmp_path / "runs")


def train(config: Path, runs: Path) -> None:
    """A few steps, and the scores."""
    short = ["--trainer.max_epochs=2", "--data.samples_per_epoch=8", "--data.num_workers=0", "--data.folds=2"]
    assert main(["fit", "--config", str(config), "--runs", str(runs), *short]) == 0
    assert (runs / "data" / "version_0" / "scores_val.csv").is_file()
