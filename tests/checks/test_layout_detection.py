"""Layouts told apart by their own files, and labels read from masks that nobody has described."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.checks.label_inference import LabelSettings
from medseg_pl.checks.layout_detection import DataSettings, detect_dataset, detect_layout
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.core.errors import MedsegError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import DecathlonSource, FolderSource, ManifestSource, PolygonSource, UWMadisonSource
from medseg_pl.io.raster import write_png
from tests.annotation_files import save_coco, save_cvat, save_labelme
from tests.sample_files import save_raster

ORGANS = ["large_bowel", "small_bowel", "stomach"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = {}
    for layout in ("uw_madison", "decathlon", "folder"):
        roots[layout] = tmp_path_factory.mktemp("phantom") / layout
        write_phantom(roots[layout], layout, cases=4, seed=1, slices=8, size=(48, 40))
    return roots


def folder_of(root: Path, *masks: object, masks_folder: str = "masks") -> Path:
    """A folder of small images with these masks."""
    for number, mask in enumerate(masks):
        pixels = np.asarray(mask, np.uint8)
        write_png(root / "images" / f"{number}.png", pixels)
        write_png(root / masks_folder / f"{number}.png", pixels)
    return root


class TestLayouts:
    def test_decathlon(self, phantoms: dict[str, Path]) -> None:
        found = detect_dataset(phantoms["decathlon"])
        assert isinstance(found.source, DecathlonSource)
        assert found.labels == LabelMap(ORGANS, "multiclass")
        assert found.modalities == ("MRI",)
        assert "--data.source.group" in " ".join(found.notes)  # names of volumes do not say who is whom
        assert found.config == {
            "class_path": "medseg_pl.DecathlonSource",
            "init_args": {"root": str(phantoms["decathlon"])},
        }

    def test_labels_of_a_dialect_with_gaps(self, phantoms: dict[str, Path], tmp_path: Path) -> None:
        root = shutil.copytree(phantoms["decathlon"], tmp_path / "copy")
        description = json.loads((root / "dataset.json").read_text())
        description["labels"] = {"background": 0, "tumour": 7, "liver": 2}
        (root / "dataset.json").write_text(json.dumps(description))
        assert detect_dataset(root).labels == LabelMap(["liver", "tumour"], "multiclass", [2, 7])

    def test_uw_madison(self, phantoms: dict[str, Path]) -> None:
        found = detect_dataset(phantoms["uw_madison"])
        assert isinstance(found.source, UWMadisonSource)
        assert found.labels == LabelMap(ORGANS, "multilabel")

    def test_a_folder(self, phantoms: dict[str, Path]) -> None:
        found = detect_dataset(phantoms["folder"], DataSettings(reading={"group": r"(case\d+)_"}))
        assert isinstance(found.source, FolderSource)
        assert found.labels == LabelMap(["label_1", "label_2", "label_3"], "multiclass")
        assert found.notes == ("the masks' values 1, 2, 3 are taken for labels",)
        assert found.config["init_args"]["group"] == r"(case\d+)_"
        assert len({case.group for case in found.source.cases()}) < len(found.source.cases())

    def test_a_manifest(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path, [[0, 255]], [[255, 0]])
        with (root / "cases.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [
                    ["case_id", "group", "image", "mask"],
                    *([str(i), "p", f"images/{i}.png", f"masks/{i}.png"] for i in "01"),
                ]
            )
        found = detect_dataset(root)
        assert isinstance(found.source, ManifestSource)
        assert found.labels == LabelMap(["foreground"], "binary")

    def test_nothing_that_is_known(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(MissingDataError, match=r"has no known layout, such as .* Write a CSV"):
            detect_dataset(tmp_path)
        with pytest.raises(MissingDataError, match=r"Expected a data set in the folder .*nowhere, found nothing there"):
            detect_dataset(tmp_path / "nowhere")

    def test_an_unknown_layout(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match=r"There is no layout 'bids'. Choose one of decathlon, uw_madison"):
            detect_dataset(tmp_path, DataSettings("bids"))

    def test_several_folders_of_masks(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path, [[0, 1]], masks_folder="first")
        shutil.copytree(root / "first", root / "second")
        with pytest.raises(
            SettingError, match=r"several folders that may hold the masks: first, second\. Say which with --masks first"
        ):
            detect_dataset(root)
        assert detect_dataset(root, DataSettings(reading={"masks": "second"})).config["init_args"]["masks"] == "second"
        assert detect_layout(root) == "folder"


class TestLabels:
    @pytest.mark.parametrize("value", [1, 255])
    def test_one_value_is_a_foreground(self, value: int, tmp_path: Path) -> None:
        found = detect_dataset(folder_of(tmp_path, [[0, value]], [[0, 0]]))
        assert found.labels == LabelMap(["foreground"], "binary")
        assert found.notes[0] == f"the masks' value {value} is taken for the label foreground"

    def test_1_in_a_gif_and_255_in_a_png_are_one_label(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path, *[[[0, 255], [255, 0]]] * 2)
        (root / "masks" / "0.png").unlink()
        save_raster(root / "masks" / "0.gif", np.array([[0, 1], [1, 0]], np.uint8))
        found = detect_dataset(root)
        assert found.labels == LabelMap(["foreground"], "binary")
        assert found.notes[0] == "the masks' values 1 and 255 are taken for the label foreground"
        gif, png = (found.source.read(case, found.labels).mask for case in found.source.cases())
        assert gif is not None and png is not None
        assert gif.tolist() == png.tolist() == [[[[0, 1], [1, 0]]]]

    def test_values_with_gaps(self, tmp_path: Path) -> None:
        found = detect_dataset(folder_of(tmp_path, [[0, 50, 120]], [[50, 120, 0]]))
        assert found.labels == LabelMap(["label_50", "label_120"], "multiclass", [50, 120])

    def test_a_stray_value_is_no_label(self, tmp_path: Path) -> None:
        found = detect_dataset(folder_of(tmp_path, *[[[0, 1, 2]]] * 6, [[0, 2, 9]]))
        assert found.labels == LabelMap(["label_1", "label_2"], "multiclass")
        assert "the rare value 9 is taken for a fault; name it with --labels if not" in found.notes

    def test_nothing_annotated(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match=r"The masks hold only the value 0\. Name the labels with --labels\."):
            detect_dataset(folder_of(tmp_path, [[0, 0]]))

    def test_named_labels_win(self, tmp_path: Path) -> None:
        found = detect_dataset(folder_of(tmp_path, [[0, 1, 9]]), DataSettings(labels=LabelSettings({"a": 1, "b": 9})))
        assert found.labels == LabelMap(["a", "b"], "multiclass", [1, 9])
        assert [note.partition(";")[0] for note in found.notes] == ["every image is taken for a patient of its own"]

    def test_what_was_said_wins_over_a_description(self, phantoms: dict[str, Path]) -> None:
        said = DataSettings(labels=LabelSettings(ignore_value=9), reading={"slicing": "axial"})
        found = detect_dataset(phantoms["decathlon"], said)
        assert found.labels == LabelMap(ORGANS, "multiclass", None, 9)
        assert found.config["init_args"]["slicing"] == "axial"
        with pytest.raises(SettingError, match=r"--mask_name does not apply to .*, whose layout is decathlon"):
            detect_dataset(phantoms["decathlon"], DataSettings("decathlon", {"mask_name": "{stem}_seg"}))

    def test_settings_of_labels(self) -> None:
        assert LabelSettings().describe(["a"]) == LabelMap(["a"], "binary")
        two = LabelSettings({"a": 1, "b": 4}, ignore_value=9)
        assert two.describe(["a", "b"]) == LabelMap(["a", "b"], "multiclass", [1, 4], 9)
        overlapping = LabelSettings({"a": None, "b": None}, "multilabel")
        assert overlapping.describe(["a", "b"]) == LabelMap(["a", "b"], "multilabel")


class TestOutlines:
    @pytest.mark.parametrize("tool", ["coco", "cvat", "labelme", "labelme side by side"])
    def test_annotations_are_found_beside_images(self, tmp_path: Path, tool: str) -> None:
        size, corners = (12, 14), [(2.0, 2.0), (9.0, 2.0), (9.0, 9.0)]
        folder = tmp_path if tool == "labelme side by side" else tmp_path / "images"
        for name in ("a", "b"):
            write_png(folder / f"{name}.png", np.zeros(size, np.uint8))
        if tool == "coco":
            save_coco(tmp_path / "all.json", {"a.png": [("liver", corners), ("spleen", corners)], "b.png": []}, size)
        elif tool == "cvat":
            element = '<polygon label="liver" points="2,2;9,2;9,9"/>'
            save_cvat(tmp_path / "all.xml", {"a.png": [element], "b.png": []}, size)
        else:
            place = folder if tool == "labelme side by side" else tmp_path / "labels"
            for name in ("a", "b"):
                save_labelme(place / f"{name}.json", [{"label": "liver", "points": corners}], size)
        expected = {
            "coco": ("images", "all.json"),
            "cvat": ("images", "all.xml"),
            "labelme": ("images", "labels"),
            "labelme side by side": (".", "."),
        }
        found = detect_dataset(tmp_path)
        assert isinstance(found.source, PolygonSource)
        assert (found.source.images, found.source.annotations) == expected[tool]
        assert found.config["init_args"]["annotations"] == expected[tool][1]
        names = ["liver", "spleen"] if tool == "coco" else ["liver"]
        assert found.labels == LabelMap(names, "multilabel" if tool == "coco" else "binary")
        assert len(found.source.cases()) == 2

    def test_masks_come_before_annotations(self, tmp_path: Path) -> None:
        folder_of(tmp_path, [[0, 1]])
        save_coco(tmp_path / "all.json", {"0.png": []}, (1, 2))
        assert detect_layout(tmp_path) == "folder"

    def test_several_files_are_refused(self, tmp_path: Path) -> None:
        write_png(tmp_path / "images/a.png", np.zeros((3, 4), np.uint8))
        for name in ("train", "val"):
            save_coco(tmp_path / f"{name}.json", {"a.png": []}, (3, 4))
        with pytest.raises(SettingError, match=r"several annotation files: train\.json, val\.json"):
            detect_layout(tmp_path)

    def test_other_json_is_no_annotation(self, tmp_path: Path) -> None:
        folder_of(tmp_path, [[0, 1]])
        (tmp_path / "notes.json").write_text('{"camera": 3}')
        shutil.rmtree(tmp_path / "masks")
        assert detect_layout(tmp_path) == "folder"


@pytest.mark.parametrize(
    ("name", "text", "layout", "said"),
    [
        ("dataset.json", '{"labels": 3', None, r"dataset\.json cannot be read as a data set's description"),
        ("dataset.json", '{"training": []}', None, r"dataset\.json names no labels\. Name them with --labels"),
        ("train.csv", "id,class,segmentation\n", None, r"train\.csv names no class\. Name the labels with --labels"),
        ("a.csv", "case_id,group,image\n", "manifest", r"must hold one CSV .* it holds a\.csv, b\.csv"),
        ("b.csv", "\x80", "manifest", r"must hold one CSV .* it holds none"),
        ("x.json", "{}", "polygons", r"holds no annotations of COCO, labelme or CVAT"),
        ("x.txt", "", "dicom", r"The labels of a DICOM data set have to be named"),
        (
            "all.json",
            '{"images": [], "annotations": [], "categories": []}',
            "polygons",
            r"Nothing is drawn in .*all\.json",
        ),
    ],
)
def test_what_says_too_little_is_named(tmp_path: Path, name: str, text: str, layout: str | None, said: str) -> None:
    (tmp_path / name).write_text(text, encoding="latin-1")
    if name == "train.csv":
        (tmp_path / "train").mkdir()
    if name == "a.csv":
        (tmp_path / "b.csv").write_text(text)
    if name == "all.json":
        write_png(tmp_path / "images/a.png", np.zeros((3, 4), np.uint8))
        save_coco(tmp_path / "all.json", {"a.png": []}, (3, 4))
    with pytest.raises(MedsegError, match=said):
        detect_dataset(tmp_path, DataSettings(layout) if layout else DataSettings())


def test_a_folder_named_like_a_table_is_none(tmp_path: Path) -> None:
    write_phantom(tmp_path / "set", "folder", cases=2, seed=0, slices=2, size=(24, 24))
    (tmp_path / "set" / "old.csv").mkdir()
    assert detect_layout(tmp_path / "set") == "folder"
