"""Outlines of each tool become the pixels that one can count on paper, or pycocotools has counted."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg_pl.core.errors import DataError, MaskValueError, MedsegError, MissingDataError
from medseg_pl.io.annotations import read_annotations
from medseg_pl.io.regions import AnnotatedImage, Region, Runs, draw_region
from tests.annotation_files import save_coco, save_cvat, save_labelme

SIZE = (9, 12)
SQUARE = [(3.0, 2.0), (9.0, 2.0), (9.0, 6.0), (3.0, 6.0)]
"""Columns 3 to 8 of rows 2 to 5."""
FILLED = np.zeros(SIZE, bool)
FILLED[2:6, 3:9] = True
WITH_HOLE = FILLED.copy()
WITH_HOLE[3:5, 5:7] = False
WITH_HOLE[8, 11] = True
PYCOCOTOOLS = "m04500MM030M03300h0M"
"""What pycocotools 2.0.11 encodes `WITH_HOLE` as."""


def encode_png(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


HUGE = encode_png(width=99, height=2)


def draw(image: AnnotatedImage) -> list[tuple[str, np.ndarray]]:
    return [(region.category, draw_region(region, image.size, "test")) for region in image.regions]


class TestPixels:
    def test_a_pixel_belongs_to_an_outline_by_its_center(self) -> None:
        for shift, first in ((0.0, 3), (0.49, 3), (0.51, 4)):
            corners = np.array(SQUARE) + np.array([shift, 0])
            found = draw_region(Region("a", (corners,)), SIZE, "test")
            np.testing.assert_array_equal(np.flatnonzero(found[3]), np.arange(first, first + 6))

    def test_parts_are_united_and_cut_off_at_the_border(self) -> None:
        parts = (np.array(SQUARE), np.array(SQUARE) - (2, 0), np.array([(-5, -5), (2, -5), (2, 1), (-5, 1)], float))
        found = draw_region(Region("a", parts), SIZE, "test")
        expected = FILLED.copy()
        expected[2:6, 1:7] = True
        expected[0, :2] = True
        np.testing.assert_array_equal(found, expected)

    def test_an_outline_outside_marks_nothing(self) -> None:
        assert not draw_region(Region("a", (np.array(SQUARE) + 50,)), SIZE, "test").any()

    def test_the_area_is_that_of_the_polygon(self) -> None:
        corners = np.array([[10.2, 10.7], [60.1, 20.3], [50.5, 70.9], [20.0, 55.5]])
        assert abs(int(draw_region(Region("a", (corners,)), (90, 80), "test").sum()) - 1916.29) < 5

    @pytest.mark.parametrize("corner", [(0, 0), (5, 7)])
    def test_runs_that_do_not_fit_are_refused(self, corner: tuple[int, int]) -> None:
        for lengths in ([1, 2], [4, -1, 20, 1]):
            with pytest.raises(MaskValueError, match=r"test: runs of .* do not fit the image of 9 x 12"):
                draw_region(Region("a", runs=Runs(np.array(lengths), corner, (4, 6))), SIZE, "test")


class TestCoco:
    def test_polygons(self, tmp_path: Path) -> None:
        outlines = {"b.png": [("liver", SQUARE)], "a.png": []}
        first, second = read_annotations(save_coco(tmp_path / "a.json", outlines, SIZE))
        ((category, mask),) = draw(first)
        assert (first.name, first.size, category, second.regions) == ("b.png", SIZE, "liver", ())
        np.testing.assert_array_equal(mask, FILLED)

    @pytest.mark.parametrize("counts", [PYCOCOTOOLS, "plain"])
    def test_run_lengths(self, tmp_path: Path, counts: str) -> None:
        flat = WITH_HOLE.T.ravel()
        ends = np.flatnonzero(np.append(flat[1:] != flat[:-1], True)) + 1
        plain = np.diff(ends, prepend=0).tolist()
        path = save_coco(tmp_path / "a.json", {"a.png": [("liver", SQUARE)]}, SIZE)
        content = json.loads(path.read_text())
        content["annotations"][0] |= {"segmentation": {"size": list(SIZE), "counts": counts}, "iscrowd": 1}
        if counts == "plain":
            content["annotations"][0]["segmentation"]["counts"] = plain
        path.write_text(json.dumps(content))
        np.testing.assert_array_equal(draw(read_annotations(path)[0])[0][1], WITH_HOLE)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"segmentation": []}, r"annotation 0 \(liver\) has a box and no outline"),
            ({"segmentation": [[1, 2, 3]]}, "corners that are no pairs"),
            ({"segmentation": [[1, 2, 3, 4]]}, "has 2 corners; expected at least 3"),
            ({"segmentation": [[1, 2, 3, float("nan"), 3, 1]]}, "expected at least 3"),
            ({"segmentation": {"size": [3, 3], "counts": [9]}}, "mask of 3 x 3 in an image of 9 x 12"),
            ({"segmentation": {"size": [9, 12], "counts": "\x00"}}, "cannot be decoded"),
            ({"segmentation": {"size": [9, 12], "counts": "52203P"}}, "end too early"),
            ({"category_id": 99}, "refers to image 10 and category 99"),
            ({"image_id": None}, "an entry without 'image_id'"),
            ({"segmentation": {"size": [9, 12], "counts": [1, "x"]}}, "run lengths that are no numbers"),
        ],
    )
    def test_faults_are_named(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        path = save_coco(tmp_path / "a.json", {"a.png": [("liver", SQUARE)]}, SIZE)
        content = json.loads(path.read_text())
        content["annotations"][0] |= change
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=rf"a\.json.*{message}"):
            read_annotations(path)


class TestLabelme:
    @pytest.mark.parametrize(
        "shape",
        [
            {"shape_type": "polygon", "points": SQUARE},
            {"points": SQUARE},
            {"shape_type": "rectangle", "points": [[9, 6], [3, 2]]},
            {"shape_type": "rectangle", "points": SQUARE},
        ],
    )
    def test_shapes_with_corners(self, tmp_path: Path, shape: dict[str, Any]) -> None:
        path = save_labelme(tmp_path / "a.json", [{"label": "liver", **shape}], SIZE, "..\\images\\a.png")
        (image,) = read_annotations(path)
        assert (image.name, image.size) == ("../images/a.png", SIZE)
        np.testing.assert_array_equal(draw(image)[0][1], FILLED)

    def test_a_circle(self, tmp_path: Path) -> None:
        shape = {"label": "liver", "shape_type": "circle", "points": [[50, 40], [50, 60]]}
        mask = draw(read_annotations(save_labelme(tmp_path / "a.json", [shape], (90, 120)))[0])[0][1]
        y, x = np.mgrid[:90, :120] + 0.5
        np.testing.assert_array_equal(mask, (x - 50) ** 2 + (y - 40) ** 2 < 400)

    @pytest.mark.parametrize("painted", [WITH_HOLE[2:6, 3:9], ~WITH_HOLE[2:6, 3:9], np.ones((4, 6), bool)])
    def test_a_painted_mask(self, tmp_path: Path, painted: np.ndarray) -> None:
        buffer = io.BytesIO()
        Image.fromarray(painted.astype(np.uint8) * 255).save(buffer, format="PNG")
        shape = {"label": "liver", "shape_type": "mask", "points": [[3, 2], [8, 5]]}
        shape["mask"] = base64.b64encode(buffer.getvalue()).decode()
        expected = np.zeros(SIZE, bool)
        expected[2:6, 3:9] = painted
        np.testing.assert_array_equal(
            draw(read_annotations(save_labelme(tmp_path / "a.json", [shape], SIZE))[0])[0][1], expected
        )

    @pytest.mark.parametrize("kind", ["point", "line", "linestrip"])
    def test_a_shape_without_an_area_is_refused(self, tmp_path: Path, kind: str) -> None:
        shape = {"label": "liver", "shape_type": kind, "points": [[3, 2], [8, 5]]}
        with pytest.raises(MaskValueError, match=rf"a\.json, shape 1 \(liver\) is a {kind}, which covers no pixels"):
            read_annotations(save_labelme(tmp_path / "a.json", [shape], SIZE))

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ({"shape_type": "circle", "points": [[3, "x"], [8, 5]]}, "0 points; expected 2"),
            ({"shape_type": "rectangle", "points": [[3, 2]]}, "1 points; expected 2"),
            ({"shape_type": "mask", "points": [[3, 2], [8, 5]], "mask": "no PNG"}, "a mask that cannot be decoded"),
            ({"shape_type": "mask", "points": [[0, 0], [8, 5]], "mask": HUGE}, "a mask larger than its image"),
        ],
    )
    def test_faults_are_named(self, tmp_path: Path, shape: dict[str, Any], message: str) -> None:
        with pytest.raises(MaskValueError, match=rf"a\.json, shape 1 \(liver\) has {message}"):
            read_annotations(save_labelme(tmp_path / "a.json", [{"label": "liver", **shape}], SIZE))


class TestCvat:
    @pytest.mark.parametrize(
        "element",
        [
            '<polygon label="liver" points="3.00,2.00;9.00,2.00;9.00,6.00;3.00,6.00"/>',
            '<box label="liver" xtl="3" ytl="2" xbr="9" ybr="6"/>',
            '<box label="liver" xtl="4" ytl="1" xbr="8" ybr="7" rotation="90"/>',
            f'<mask label="liver" rle="0, {4 * 6}" left="3" top="2" width="6" height="4"/>',
        ],
    )
    def test_shapes(self, tmp_path: Path, element: str) -> None:
        path = save_cvat(tmp_path / "a.xml", {"x/a.png": ['<tag label="good"/>', element], "b.png": []}, SIZE)
        first, second = read_annotations(path)
        assert (first.name, first.size, second.regions) == ("x/a.png", SIZE, ())
        np.testing.assert_array_equal(draw(first)[0][1], FILLED)

    def test_an_ellipse_is_turned_clockwise(self, tmp_path: Path) -> None:
        element = '<ellipse label="liver" cx="50" cy="40" rx="30" ry="10" rotation="30"/>'
        mask = draw(read_annotations(save_cvat(tmp_path / "a.xml", {"a.png": [element]}, (90, 120)))[0])[0][1]
        y, x = np.mgrid[:90, :120] + 0.5
        cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
        along, across = (x - 50) * cosine + (y - 40) * sine, (y - 40) * cosine - (x - 50) * sine
        assert (mask != ((along / 30) ** 2 + (across / 10) ** 2 < 1)).sum() <= 2

    def test_the_one_in_front_comes_last(self, tmp_path: Path) -> None:
        elements = [f'<box label="{z}" z_order="{z}" xtl="3" ytl="2" xbr="9" ybr="6"/>' for z in (2, -1, 10)]
        (image,) = read_annotations(save_cvat(tmp_path / "a.xml", {"a.png": elements}, SIZE))
        assert [region.category for region in image.regions] == ["-1", "2", "10"]

    @pytest.mark.parametrize("kind", ["polyline", "points", "cuboid", "skeleton"])
    def test_a_shape_without_an_area_is_refused(self, tmp_path: Path, kind: str) -> None:
        path = save_cvat(tmp_path / "a.xml", {"a.png": [f'<{kind} label="liver" points="1,1;2,2"/>']}, SIZE)
        with pytest.raises(MaskValueError, match=rf"image a\.png, liver is a {kind}, which covers no pixels"):
            read_annotations(path)

    def test_run_lengths_that_are_no_numbers(self, tmp_path: Path) -> None:
        element = '<mask label="liver" top="0" left="0" width="2" height="2" rle="1,x"/>'
        with pytest.raises(MaskValueError, match=r"image a\.png, liver has run lengths that are no numbers: '1,x'"):
            read_annotations(save_cvat(tmp_path / "a.xml", {"a.png": [element]}, SIZE))

    def test_tracks_of_a_video_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.xml").write_text("<annotations><track/></annotations>")
        with pytest.raises(DataError, match=r"a\.xml holds the tracks of a video"):
            read_annotations(tmp_path / "a.xml")

    def test_entities_are_not_expanded(self, tmp_path: Path) -> None:
        laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
        (tmp_path / "secret").write_text("secret")
        for entity in (f'<!ENTITY l0 "ha">{laughs}', f'<!ENTITY l9 SYSTEM "file://{tmp_path / "secret"}">'):
            (tmp_path / "a.xml").write_text(f"<!DOCTYPE a [{entity}]><annotations>&l9;</annotations>")
            with pytest.raises(DataError, match=r"a\.xml declares a document type"):
                read_annotations(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "{"),
        ("a.json", "[]"),
        ("a.json", "[" * 100_000),
        ("a.json", '{"images": 3}'),
        ("a.json", '{"images": [], "categories": [], "annotations": [7]}'),
        ("a.json", '{"shapes": [], "imageHeight": 0, "imageWidth": 5}'),
        ("a.json", '{"shapes": [], "imageHeight": 1e9, "imageWidth": 1000000}'),
        ("a.json", '{"shapes": [{"label": "a", "points": "b"}], "imageHeight": 5, "imageWidth": 5}'),
        ("a.xml", "<annotations>"),
        ("a.xml", "<html/>"),
        ("a.xml", "\x00"),
        ("a.xml", '<annotations><image name="a" width="4"/></annotations>'),
        ("a.xml", '<annotations><image name="a" width="4" height="4"><box label="a" xtl="x"/></image></annotations>'),
    ],
)
def test_damage_ends_with_a_sentence_that_names_the_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(MedsegError, match=name):
        read_annotations(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"a\.json does not exist"):
        read_annotations(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": 5, "counts": [30]}, "size"),
        ([[0, 0, 1e300, 0, 2, 2]], "has a corner far outside of any image"),
    ],
)
def test_a_coco_outline_that_means_nothing_is_refused(tmp_path: Path, segmentation: Any, message: str) -> None:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 5, "width": 6}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [annotation],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(MedsegError, match=message):
        read_annotations(tmp_path / "a.json")
