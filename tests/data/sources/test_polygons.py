"""Pictures with outlines of COCO, labelme and CVAT."""

from __future__ import annotations

import json
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from medseg_pl.core.errors import DataError, GeometryError, MaskValueError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import FolderSource, PolygonSource
from tests.annotation_files import save_coco, save_cvat, save_labelme
from tests.contracts.source_contract import SourceContract, Subject
from tests.sample_files import noise, save_raster

SIZE = (14, 18)
LIVER = [(2.0, 3.0), (9.0, 3.0), (9.0, 8.0), (2.0, 8.0)]
SPLEEN = [(11.0, 5.0), (16.0, 5.0), (16.0, 12.0), (11.0, 12.0)]
OVER = [(6.0, 3.0), (12.0, 3.0), (12.0, 8.0), (6.0, 8.0)]
"""Columns 6 to 11, of which 6 to 8 are the liver's, too."""
ORGANS = LabelMap(["liver", "spleen"], "multiclass")
OVERLAPPING = LabelMap(["liver", "spleen"], "multilabel")


def save_images(root: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        save_raster(root / name, noise(SIZE, seed))


def coco(root: Path, *regions: tuple[str, list[tuple[float, float]]]) -> PolygonSource:
    save_images(root, "images/a.png")
    save_coco(root / "annotations.json", {"a.png": list(regions)}, SIZE)
    return PolygonSource(str(root))


def read(source: PolygonSource, labels: LabelMap) -> np.ndarray:
    mask = source.read(source.cases()[0], labels).mask
    assert mask is not None
    return mask


class TestCoco(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        save_images(tmp_path, "images/p2/a.png", "images/p1/a.png", "images/b.png")
        outlines = {"images/p2/a.png": [("Liver", LIVER)], "p1/a.png": [("spleen", SPLEEN)], "b.png": []}
        save_coco(tmp_path / "annotations.json", outlines, SIZE)
        return Subject(
            source=PolygonSource(str(tmp_path)),
            labels=ORGANS,
            cases=3,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks=str(d.relative_to(tmp_path))),
        )


class TestLabelme(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        save_images(tmp_path, "data/a.png", "data/b.png")
        shapes = [{"label": "liver", "points": LIVER}, {"label": "spleen", "points": OVER}]
        save_labelme(tmp_path / "data/a.json", shapes, SIZE, "elsewhere.png")
        save_labelme(tmp_path / "data/b.json", [], SIZE)
        return Subject(
            source=PolygonSource(str(tmp_path), images="data", annotations="data"),
            labels=OVERLAPPING,
            cases=2,
            images=tmp_path / "data",
            again=lambda d: FolderSource(
                str(tmp_path),
                images="data",
                masks={name: str((d / name).relative_to(tmp_path)) for name in OVERLAPPING.names},
            ),
        )


class TestCvat(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        save_images(tmp_path, "images/a.png", "images/b.png")
        boxes = ['<box label="lesion" xtl="2" ytl="3" xbr="9" ybr="8"/>']
        save_cvat(tmp_path / "annotations.xml", {"a.png": boxes, "b.png": []}, SIZE)
        return Subject(
            source=PolygonSource(str(tmp_path), annotations="annotations.xml"),
            labels=LabelMap(["lesion"], "binary"),
            cases=2,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks=str(d.relative_to(tmp_path))),
        )


class TestLabels:
    def test_pixels_are_those_of_the_outlines(self, tmp_path: Path) -> None:
        mask = read(coco(tmp_path, ("liver", LIVER), ("spleen", SPLEEN)), ORGANS)
        expected = np.zeros((1, 1, *SIZE), np.uint8)
        expected[..., 3:8, 2:9] = 1
        expected[..., 5:12, 11:16] = 2
        np.testing.assert_array_equal(mask, expected)

    def test_labels_that_may_overlap_keep_all_their_pixels(self, tmp_path: Path) -> None:
        mask = read(coco(tmp_path, ("liver", LIVER), ("spleen", OVER)), OVERLAPPING)
        assert mask.sum(axis=(1, 2, 3)).tolist() == [35, 30]

    def test_exclusive_labels_may_not_overlap(self, tmp_path: Path) -> None:
        source = coco(tmp_path, ("liver", LIVER), ("spleen", OVER))
        with pytest.raises(MaskValueError, match=r"15 voxels carry more than one label.*data\.source\.overlaps"):
            read(source, ORGANS)

    def test_what_was_drawn_last_lies_in_front(self, tmp_path: Path) -> None:
        coco(tmp_path, ("liver", LIVER), ("spleen", OVER))
        mask = read(PolygonSource(str(tmp_path), overlaps="last"), ORGANS)
        assert [int((mask == value).sum()) for value in (1, 2)] == [20, 30]

    def test_categories_make_up_a_label(self, tmp_path: Path) -> None:
        coco(tmp_path, ("tumor", LIVER), ("Cyst_left", SPLEEN), ("ruler", OVER))
        source = PolygonSource(str(tmp_path), categories={"lesion": ["tumor", "cyst left"]}, skip=["ruler"])
        assert int(read(source, LabelMap(["lesion"], "binary")).sum()) == 35 + 35
        assert source.find_categories() == ["Cyst_left", "ruler", "tumor"]

    def test_a_category_of_no_label_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MaskValueError, match=r"annotations\.json, a\.png holds 'tumor', .*data\.source\.skip"):
            read(coco(tmp_path, ("tumor", LIVER)), ORGANS)

    def test_a_category_for_a_label_that_is_not_there(self, tmp_path: Path) -> None:
        coco(tmp_path, ("tumor", LIVER))
        with pytest.raises(SettingError, match=r"data\.source\.categories names lesion"):
            read(PolygonSource(str(tmp_path), categories={"lesion": "tumor"}), ORGANS)


class TestPairs:
    def test_an_image_without_annotations(self, tmp_path: Path) -> None:
        source = coco(tmp_path)
        save_images(tmp_path, "images/b.png")
        with pytest.raises(MissingDataError, match=r"1 of 2 images has no annotations .*images/b\.png"):
            source.cases()

    def test_annotations_without_an_image(self, tmp_path: Path) -> None:
        coco(tmp_path)
        save_coco(tmp_path / "annotations.json", {"a.png": [], "c.png": []}, SIZE)
        with pytest.raises(MissingDataError, match=r"1 annotated image is not in .*c\.png"):
            PolygonSource(str(tmp_path)).cases()

    def test_an_image_that_is_listed_twice(self, tmp_path: Path) -> None:
        coco(tmp_path)
        save_coco(tmp_path / "annotations.json", {"a.png": [], "images/a.png": []}, SIZE)
        with pytest.raises(DataError, match=r"annotations\.json lists the image images/a\.png twice"):
            PolygonSource(str(tmp_path)).cases()

    def test_an_image_of_another_size(self, tmp_path: Path) -> None:
        source = coco(tmp_path, ("liver", LIVER))
        save_raster(tmp_path / "images/a.png", noise((28, 36)))
        with pytest.raises(GeometryError, match=r"Case a: .*annotations\.json was drawn on 14 x 18 pixels, .*28 x 36"):
            read(source, ORGANS)

    def test_one_file_for_several_images_is_none_of_one(self, tmp_path: Path) -> None:
        save_images(tmp_path, "images/a.png")
        save_coco(tmp_path / "annotations/a.json", {"b.png": [], "c.png": []}, SIZE)
        source = PolygonSource(str(tmp_path), annotations="annotations")
        with pytest.raises(DataError, match=r"a\.json holds 2 images, 0 of them a\.png; expected one"):
            read(source, ORGANS)
        (tmp_path / "annotations/a.json").unlink()
        save_coco(tmp_path / "annotations/a.json", {"a.png": [("liver", LIVER)], "c.png": []}, SIZE)
        assert read(source, ORGANS).any()

    def test_no_image_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        save_coco(tmp_path / "annotations.json", {}, SIZE)
        with pytest.raises(MissingDataError, match=r"images holds no image that can be read"):
            PolygonSource(str(tmp_path)).cases()

    def test_files_that_are_not_read_are_listed(self, tmp_path: Path) -> None:
        source = coco(tmp_path, ("liver", LIVER))
        (tmp_path / "images/b.heic").write_bytes(b"x")
        (tmp_path / "images/c.png").symlink_to("nowhere.png")
        (tmp_path / "images/a.json").write_text("{}")  # annotations may lie beside the images
        assert sorted(left.path.name for left in source.list_left_out()) == ["b.heic", "c.png"]

    def test_annotations_that_are_not_there(self, tmp_path: Path) -> None:
        save_images(tmp_path, "images/a.png")
        with pytest.raises(MissingDataError, match=r"annotations\.json does not exist.*data\.source\.annotations"):
            PolygonSource(str(tmp_path)).cases()


@pytest.mark.parametrize("name", ["/", "."])
def test_a_name_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "images" / "a.png")
    entry = {"id": 1, "file_name": name, "height": 5, "width": 6}
    (tmp_path / "annotations.json").write_text(json.dumps({"images": [entry], "categories": [], "annotations": []}))
    with pytest.raises(DataError, match="1 of 1 image has no annotations"):
        PolygonSource(str(tmp_path)).cases()


def test_a_name_in_another_form_of_unicode_is_found(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "images" / f"{normalize('NFC', 'Müller')}.png")
    entry = {"id": 1, "file_name": f"{normalize('NFD', 'Müller')}.png", "height": 5, "width": 6}
    (tmp_path / "annotations.json").write_text(json.dumps({"images": [entry], "categories": [], "annotations": []}))
    assert [case.case_id for case in PolygonSource(str(tmp_path)).cases()] == [normalize("NFC", "Müller")]
