"""`dataset.json` in two dialects: the Decathlon's, and nnU-Net's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medseg_pl.__main__ import main
from medseg_pl.checks.file_checks import list_cases
from medseg_pl.checks.layout_detection import detect_dataset
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.core.errors import DataError, MissingDataError, SettingError
from medseg_pl.core.geometry import Reorientation
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.data.sources import DecathlonSource
from medseg_pl.data.sources.decathlon import read_labels
from medseg_pl.data.synthetic import ORGANS
from tests.contracts.source_contract import SourceContract, Subject
from tests.sample_files import blocks, noise, save_raster, save_volume, tree

TUMOUR = LabelMap(["organ", "tumour"], "multiclass")
NNUNET = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}


def describe(root: Path, description: Any) -> DecathlonSource:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return DecathlonSource(str(root))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(*names: str) -> dict[str, Any]:
    return {"training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]}


def relabeled(root: Path, masks: Path) -> DecathlonSource:
    """The same data set with other masks."""
    again = masks.parent / "again"
    shutil.copytree(root, again, ignore=shutil.ignore_patterns("labelsTr"))
    shutil.copytree(masks, again / "labelsTr")
    return DecathlonSource(str(again))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("decathlon") / "data"
    write_phantom(directory, "decathlon", cases=3, seed=0, slices=5, size=(40, 32))
    return directory


class TestDecathlon(SourceContract):
    @pytest.fixture
    def subject(self, phantom: Path, tmp_path: Path) -> Subject:
        shutil.copytree(phantom, tmp_path / "data")
        return Subject(
            source=DecathlonSource(str(tmp_path / "data"), group=r"phantom_(\d+)"),
            labels=LabelMap(list(ORGANS), "multiclass"),
            cases=3,
            images=tmp_path / "data/imagesTr",
            again=lambda d: relabeled(tmp_path / "data", d),
        )

    def test_the_group_is_found_in_the_name(self, subject: Subject) -> None:
        assert [case.group for case in subject.source.cases()] == ["001", "002", "003"]


class TestNnunet(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        root = tmp_path / "Dataset001_Brain"
        for seed, name in enumerate(["brain_02", "brain_01"]):
            for channel in (0, 1):
                pixels = noise((7, 6, 4), 2 * seed + channel, dtype=np.int16)
                save_volume(root / "imagesTr" / f"{name}_000{channel}.nii.gz", pixels, spacing_mm=(0.5, 0.5, 7.5))
            save_volume(root / "labelsTr" / f"{name}.nii.gz", blocks((7, 6, 4), 1, 2), spacing_mm=(0.5, 0.5, 7.5))
        return Subject(
            source=describe(root, NNUNET),
            labels=TUMOUR,
            cases=2,
            images=root / "imagesTr",
            again=lambda d: relabeled(root, d),
        )

    def test_channels_come_in_the_order_of_their_numbers(self, subject: Subject) -> None:
        image = subject.source.read(subject.source.cases()[0], TUMOUR).image
        np.testing.assert_array_equal(image[1], noise((7, 6, 4), 3, dtype=np.int16).T)

    def test_images_are_found_where_the_training_data_is_not(self, subject: Subject, tmp_path: Path) -> None:
        shutil.move(subject.images, tmp_path / "hospital")
        shutil.rmtree(tmp_path / "Dataset001_Brain")
        cases = subject.source.open_unlabeled(tmp_path / "hospital").cases()
        assert [(case.case_id, len(case.images)) for case in cases] == [("brain_01", 2), ("brain_02", 2)]


class TestSlicing(SourceContract):
    @pytest.fixture
    def subject(self, phantom: Path, tmp_path: Path) -> Subject:
        shutil.copytree(phantom, tmp_path / "data")
        return Subject(
            source=DecathlonSource(str(tmp_path / "data"), slicing="sagittal"),
            labels=LabelMap(list(ORGANS), "multiclass"),
            cases=3,
            images=tmp_path / "data/imagesTr",
            again=lambda d: DecathlonSource(str(relabeled(tmp_path / "data", d).root), slicing="sagittal"),
        )

    def test_slices_follow_each_other_from_left_to_right(self, subject: Subject) -> None:
        plain = DecathlonSource(str(subject.images.parent))
        (case, *_) = plain.cases()
        expected, volume = plain.read(case, subject.labels), subject.source.read(case, subject.labels)
        assert expected.geometry.shape == (5, 32, 40)
        turn = Reorientation((2, 0, 1), (True, True, False))  # the file's columns run to the left
        assert volume.geometry == expected.geometry.reorient(turn)
        np.testing.assert_array_equal(volume.image, turn.apply(expected.image))
        assert plain.reading_settings() != subject.source.reading_settings()


def test_volumes_with_channels_on_the_fourth_axis(tmp_path: Path) -> None:
    source = describe(tmp_path, listed("a.nii.gz"))
    pixels = noise((7, 6, 4, 2), dtype=np.int16)
    save_volume(tmp_path / "imagesTr/a.nii.gz", pixels)
    save_volume(tmp_path / "labelsTr/a.nii.gz", blocks((7, 6, 4), 1, 2))
    volume = source.read(source.cases()[0], TUMOUR)
    np.testing.assert_array_equal(volume.image, pixels.T)
    np.testing.assert_array_equal(volume.mask, blocks((7, 6, 4), 1, 2).T[None])


def test_the_first_dialect_of_nnunet_lists_names_without_channels(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0001.nii.gz", "imagesTr/a_0000.nii.gz", "imagesTr/ab_0000.nii.gz", "labelsTr/a.nii.gz")
    (case,) = describe(tmp_path, listed("a.nii.gz")).cases()
    assert case.case_id == "a"
    assert [path.name for path in case.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_another_file_ending(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.png", "labelsTr/a.png", "labelsTr/a.json")
    (case,) = describe(tmp_path, {"channel_names": {"0": "red"}, "file_ending": ".png"}).cases()
    assert (case.case_id, case.images[0].name, case.masks[0].name) == ("a", "a_0000.png", "a.png")


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_volumes_of_itk(tmp_path: Path, ending: str) -> None:
    for folder, names in {"imagesTr": ("a_0000", "a_0001"), "labelsTr": ("a",)}.items():
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            sitk.WriteImage(sitk.GetImageFromArray(blocks((4, 9, 10), 1)), str(tmp_path / folder / f"{name}{ending}"))
    source = describe(tmp_path, {"channel_names": {"0": "CT", "1": "PET"}, "file_ending": ending})
    labels = LabelMap(["lesion"], "binary")
    (case,) = source.cases()
    volume = source.read(case, labels)
    assert (volume.image.shape, volume.geometry.spacing_mm) == ((2, 4, 9, 10), (1.0, 1.0, 1.0))
    assert volume.mask is not None
    source.write(tmp_path / "out", case, volume.mask, labels)
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"a{ending}")))
    np.testing.assert_array_equal(written, blocks((4, 9, 10), 1))


def test_hidden_files_of_an_archive_are_no_cases(tmp_path: Path) -> None:
    names = ["imagesTr/{}a_0000.nii.gz", "imagesTr/{}a_0001.nii.gz", "labelsTr/{}a.nii.gz"]
    touch(tmp_path, *(name.format(prefix) for name in names for prefix in ("", "._")))
    assert [case.case_id for case in describe(tmp_path, NNUNET).cases()] == ["a"]


def test_files_that_do_not_exist_are_counted_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/b.nii.gz")
    source = describe(tmp_path, listed("a.nii.gz", "b.nii.gz"))
    before = tree(tmp_path)
    with pytest.raises(MissingDataError) as error:
        source.cases()
    assert str(error.value) == (
        f"{tmp_path / 'dataset.json'} speaks of 2 missing files: {tmp_path / 'labelsTr/a.nii.gz'}, "
        f"{tmp_path / 'imagesTr/b.nii.gz'}. Complete the download, or remove the entries."
    )
    assert tree(tmp_path) == before


def test_a_channel_that_does_not_exist_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(MissingDataError, match=r"speaks of 1 missing file: .*imagesTr/a_0001\.nii\.gz\."):
        describe(tmp_path, NNUNET).cases()


@pytest.mark.parametrize("key", ["image", "label"])
@pytest.mark.parametrize("path", ["../secret.nii.gz", "/etc/passwd"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, key: str, path: str) -> None:
    touch(tmp_path, "secret.nii.gz", "data/a.nii.gz")
    entry = {"image": "a.nii.gz", "label": "a.nii.gz", key: path}
    with pytest.raises(MissingDataError, match=rf"dataset\.json names '{path}', which lies outside .*data"):
        describe(tmp_path / "data", {"training": [entry]}).cases()


@pytest.mark.parametrize("entry", ["./imagesTr/a.nii.gz", {"image": "a.nii.gz"}, {"image": 1, "label": 2}, None])
def test_an_entry_that_is_no_pair_is_shown(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(DataError, match=r"expected entries \{'image': …, 'label': …\} in training, got "):
        describe(tmp_path, {"training": [entry]}).cases()


@pytest.mark.parametrize("ending", ["/../../secret.nii.gz", "", "*", None, ["nii"], ".nii/../x"])
def test_an_ending_that_is_none_is_refused(tmp_path: Path, ending: Any) -> None:
    touch(tmp_path, "secret.nii.gz", "data/labelsTr/a/b.nii.gz")
    with pytest.raises(DataError, match=r"dataset\.json: file_ending is .*; expected what the names end in, such as"):
        describe(tmp_path / "data", {**NNUNET, "file_ending": ending}).cases()


@pytest.mark.parametrize(("field", "value"), [("channel_names", 7), ("training", 7), ("training", "imagesTr")])
def test_a_field_that_is_no_list_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(DataError, match=rf"dataset\.json: {field} is '?{value}'?; expected a list\."):
        describe(tmp_path, {**NNUNET, field: value}).cases()


@pytest.mark.parametrize("link", ["labelsTr/a.nii.gz", "imagesTr/a_0000.nii.gz"])
@pytest.mark.parametrize("description", [{"channel_names": {"0": "CT"}}, listed("a.nii.gz")], ids=["v2", "v1"])
def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path, link: str, description: dict[str, Any]) -> None:
    touch(tmp_path, "secret.nii.gz", "data/imagesTr/a_0000.nii.gz", "data/labelsTr/a.nii.gz")
    (tmp_path / "data" / link).unlink()
    (tmp_path / "data" / link).symlink_to(tmp_path / "secret.nii.gz")
    with pytest.raises(MissingDataError, match=r"dataset\.json names '.*', which lies outside .*data"):
        describe(tmp_path / "data", description).cases()


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(DataError, match=r"dataset\.json lists the case a twice\. Give each its own name\."):
        describe(tmp_path, listed("a.nii.gz", "a.nii.gz")).cases()


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", r"is not valid JSON: "), ("[]", r"holds a list; expected an object with the data set's fields")],
)
def test_a_damaged_description_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"dataset\.json " + message):
        DecathlonSource(str(tmp_path)).cases()


def test_no_description_and_no_masks(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"Expected .*dataset\.json, which does not exist\. Set data\.source\.root"
    ):
        DecathlonSource(str(tmp_path)).cases()
    with pytest.raises(MissingDataError, match=r"labelsTr holds no file that ends in \.nii\.gz"):
        describe(tmp_path, NNUNET).cases()


DECATHLON_LABELS = {"0": "background", "1": "Liver", "2": "cancer"}
NNUNET_LABELS = {"background": 0, "Liver": 1, "cancer": 2}
DIALECTS = pytest.mark.parametrize("described", [DECATHLON_LABELS, NNUNET_LABELS], ids=["decathlon", "nnunet"])


def with_labels(root: Path, described: Any) -> DecathlonSource:
    save_volume(root / "imagesTr/a.nii.gz", noise((7, 6, 4)))
    save_volume(root / "labelsTr/a.nii.gz", blocks((7, 6, 4), 1, 2))
    return describe(root, {**listed("a.nii.gz"), "labels": described})


@DIALECTS
def test_names_in_another_order_than_the_description_are_refused(tmp_path: Path, described: Any) -> None:
    source = with_labels(tmp_path, described)
    (case,) = source.cases()
    with pytest.raises(SettingError) as error:
        source.read(case, LabelMap(["cancer", "liver"], "multiclass"))
    assert str(error.value) == (
        f"labels.names gives 'cancer' the value 1, but {tmp_path / 'dataset.json'} says that it is 2. Put the names "
        "into the order of dataset.json, or say with labels.values which value each has."
    )


@DIALECTS
@pytest.mark.parametrize(
    ("names", "values", "said"),
    [
        (["LIVER", "tumour"], [2, 1], "'LIVER' the value 2, but .* says that it is 1"),
        (["Cancer"], None, "'Cancer' the value 1, but .* says that it is 2"),
        (["liver", "background"], None, "'background' the value 2, but .* says that it is 0"),
    ],
)
def test_names_are_compared_in_any_case(
    tmp_path: Path, described: Any, names: list[str], values: list[int] | None, said: str
) -> None:
    source = with_labels(tmp_path, described)
    with pytest.raises(SettingError, match=said):
        source.read(source.cases()[0], LabelMap(names, "multiclass", values=values))


@DIALECTS
@pytest.mark.parametrize(
    ("names", "values", "first", "second"),
    [
        (["liver", "cancer"], None, 1, 2),
        (["CANCER", "liver"], [2, 1], 2, 1),
        (["organ", "lesion"], None, 1, 2),  # names of your own are a matter of your own
    ],
)
def test_names_that_agree_with_the_description_are_read(
    tmp_path: Path, described: Any, names: list[str], values: list[int] | None, first: int, second: int
) -> None:
    source = with_labels(tmp_path, described)
    mask = source.read(source.cases()[0], LabelMap(names, "multiclass", values=values)).mask
    np.testing.assert_array_equal(mask, blocks((7, 6, 4), first, second).T[None])


@pytest.mark.parametrize("described", [None, ["background", "liver"], {"background": 0, "liver": [1, 2]}, {}])
def test_a_description_without_single_values_says_nothing(tmp_path: Path, described: Any) -> None:
    source = with_labels(tmp_path, described)
    assert source.read(source.cases()[0], LabelMap(["cancer", "liver"], "multiclass")).mask is not None


def test_images_without_masks_need_no_description_of_labels(tmp_path: Path) -> None:
    source = with_labels(tmp_path, DECATHLON_LABELS)
    bare = source.open_unlabeled(tmp_path / "imagesTr")
    assert bare.read(bare.cases()[0], LabelMap(["cancer", "liver"], "multiclass")).mask is None


def test_a_broken_pattern_is_refused_at_once() -> None:
    with pytest.raises(SettingError, match="is not a regular expression"):
        DecathlonSource("data", group="(p")


def test_without_labels_a_channel_in_the_middle_is_missed(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0002.nii.gz", "c.nii.gz")
    source = describe(tmp_path, NNUNET).open_unlabeled(tmp_path / "in")
    assert [(case.case_id, len(case.images)) for case in source.cases()] == [("a", 2), ("c", 1)]
    assert [each.path.name for each in source.list_left_out()] == ["b_0000.nii.gz", "b_0002.nii.gz"]
    assert source.list_left_out()[0].reason == "b_0001 is missing: channels are numbered from _0000 without a gap."


def test_one_channel_brings_the_others(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz")
    (case,) = describe(tmp_path, NNUNET).open_unlabeled(tmp_path / "in/a_0000.nii.gz").cases()
    assert (case.case_id, [path.name for path in case.images]) == ("a", ["a_0000.nii.gz", "a_0001.nii.gz"])


def test_of_a_root_the_images_are_predicted(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    source = describe(tmp_path, NNUNET)
    assert [case.case_id for case in source.open_unlabeled(tmp_path).cases()] == ["a"]
    touch(tmp_path, "imagesTs/b_0000.nii.gz")
    assert [case.case_id for case in source.open_unlabeled(tmp_path).cases()] == ["imagesTr/a", "imagesTs/b"]


def test_what_no_pair_has_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "labelsTr/c.heic").write_bytes(bytes(range(256)))
    (tmp_path / "imagesTr/d.nii.gz").symlink_to("nowhere")
    source = describe(tmp_path, {"training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]})
    assert [(each.path.name, each.kind) for each in source.list_left_out()] == [
        ("b.nii.gz", "unlisted"),
        ("c.heic", "unread"),
        ("d.nii.gz", "dead-link"),
    ]


def test_without_labels_names_that_only_look_like_channels_are_cases(tmp_path: Path) -> None:
    touch(tmp_path / "in", "scan_2019.nii.gz", "scan_2020.nii.gz")
    cases = describe(tmp_path, listed()).open_unlabeled(tmp_path / "in").cases()
    assert [case.case_id for case in cases] == ["scan_2019", "scan_2020"]


@pytest.mark.realdata
def test_hippocampus_is_complete(real_data: Path) -> None:
    source = DecathlonSource(str(real_data / "msd_hippocampus"))
    cases = source.cases()
    assert len(cases) == 208
    volume = source.read(cases[0], LabelMap(["anterior", "posterior"], "multiclass"))
    assert volume.mask is not None
    assert len(volume.image) == 1
    assert volume.mask.shape == (1, *volume.geometry.shape)
    assert set(np.unique(volume.mask)) == {0, 1, 2}
    assert volume.geometry.spacing_mm == pytest.approx((1, 1, 1))


REGIONS = {"background": 0, "whole": [1, 2, 3], "Core": [2, 3], "edge": 3}


def make(root: Path, labels: dict[str, Any], mask: np.ndarray, channels: int = 1, **others: Any) -> DecathlonSource:
    """Five pictures in nnU-Net's folders."""
    for number in range(5):
        pixels = noise((32, 32) if channels == 1 else (32, 32, channels), number)
        save_raster(root / f"imagesTr/c{number}_0000.png", pixels)
        save_raster(root / f"labelsTr/c{number}.png", mask)
    names = {str(number): "RGB"[number] for number in range(channels)}
    description = {"channel_names": names, "labels": labels, "numTraining": 5, "file_ending": ".png", **others}
    (root / "dataset.json").write_text(json.dumps(description))
    return DecathlonSource(str(root))


def test_what_is_ignored_is_no_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"background": 0, "tumor": 1, "ignore": 2}
    source = make(tmp_path, labels, blocks((32, 32), 1, 2))
    found = detect_dataset(tmp_path).labels
    assert (list(found.names), found.task, found.ignore_value) == (["tumor"], "binary", 2)
    mask = source.read(source.cases()[0], found).mask
    np.testing.assert_array_equal(mask, blocks((32, 32), 1, IGNORE)[None, None])
    with pytest.raises(SettingError, match=r"labels\.names holds 'ignore', .* set labels\.ignore_value to 2"):
        source.read(source.cases()[0], LabelMap(["tumor", "ignore"], "multiclass"))
    assert main(["plan", str(tmp_path), "-o", str(tmp_path / "plan.yaml"), "--no_probe"]) == 0
    assert "ignore_value: 2" in (tmp_path / "plan.yaml").read_text()


def test_regions_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make(tmp_path, {**REGIONS, "ignore": 4}, blocks((32, 32), 1, 2, 3, 4), regions_class_order=[1, 2, 3])
    labels = detect_dataset(tmp_path).labels
    assert (list(labels.names), labels.task, labels.ignore_value) == (["whole", "core", "edge"], "multilabel", 4)
    mask = source.read(source.cases()[0], labels).mask
    assert mask is not None
    values = [(1, 1, 1, IGNORE), (0, 1, 1, IGNORE), (0, 0, 1, IGNORE)]
    np.testing.assert_array_equal(mask[:, 0], [blocks((32, 32), *several) for several in values])
    with pytest.raises(SettingError, match=r"has no region 'tumor'; labels\.names may hold whole, core, edge"):
        source.read(source.cases()[0], LabelMap(["tumor", "core"], "multilabel"))
    assert main(["check", str(tmp_path)]) == 0
    assert "whole, core, edge are regions" in " ".join(capsys.readouterr().out.split())


def test_other_regions_are_read_anew(tmp_path: Path) -> None:
    first = make(tmp_path / "a", REGIONS, blocks((32, 32), 1)).reading_settings()
    second = make(tmp_path / "b", {**REGIONS, "edge": [1, 3]}, blocks((32, 32), 1)).reading_settings()
    assert first != second


def test_lists_of_single_values_are_no_regions() -> None:
    assert read_labels({"liver": [1], "spleen": [2]}).as_label_map() == LabelMap(["liver", "spleen"], "multiclass")


def test_a_picture_may_hold_all_channels(tmp_path: Path) -> None:
    source = make(tmp_path, {"background": 0, "road": 1}, blocks((32, 32), 1), channels=3)
    assert [len(case.images) for case in source.cases()] == [1] * 5
    assert list_cases(source).findings == ()
    assert source.read(source.cases()[0], LabelMap(["road"], "binary")).image.shape == (3, 1, 32, 32)
    (case, *_) = source.open_unlabeled(tmp_path / "imagesTr").cases()
    assert (case.case_id, len(case.images)) == ("c0", 1)
    save_raster(tmp_path / "imagesTr/c0_0001.png", noise((32, 32)))  # then they are files of their own
    assert [f.code for f in list_cases(source).findings] == ["listed-file-missing", "unlisted-file"]


@pytest.mark.parametrize("by_name", [True, False])
def test_files_may_be_listed_by_name(tmp_path: Path, by_name: bool) -> None:
    listed: Any = {f"p{n}": {"images": [f"imagesTr/c{n}_0000.png"], "label": f"labelsTr/c{n}.png"} for n in (0, 1)}
    dataset = listed if by_name else list(listed.values())
    source = make(tmp_path, {"background": 0, "road": 1}, blocks((32, 32), 1), dataset=dataset)
    names = ["p0", "p1"] if by_name else ["c0", "c1"]
    assert [(case.case_id, case.images[0].name) for case in source.cases()] == list(
        zip(names, ["c0_0000.png", "c1_0000.png"], strict=True)
    )
    assert [case.case_id for case in list_cases(source).cases] == names
    assert len([each for each in source.list_left_out() if each.kind == "unlisted"]) == 6


def test_a_listing_that_is_none_is_refused(tmp_path: Path) -> None:
    source = make(tmp_path, {"road": 1}, blocks((32, 32), 1), dataset={"p0": {"images": "c0.png"}})
    with pytest.raises(DataError, match=r"expected entries .* in dataset"):
        source.cases()
    assert "listing-invalid" in [f.code for f in list_cases(source).findings]


def test_a_description_says_which_labels_were_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{name}.nii.gz" for folder in ("imagesTr", "labelsTr") for name in ("a", "b")))
    pairs = listed("a.nii.gz", "b.nii.gz")
    source = describe(tmp_path, {**pairs, "annotated_labels": {"a": ["tumour"]}})
    assert [case.annotated_labels for case in source.cases()] == [("tumour",), None]
    for wrong in ({"c": ["tumour"]}, {"a": "tumour"}, {"a": []}, ["a"]):
        source = describe(tmp_path, {**pairs, "annotated_labels": wrong})
        with pytest.raises(DataError, match=r"dataset\.json: annotated_labels must give cases .* lists of labels"):
            source.cases()
        assert [finding.code for finding in list_cases(source).findings] == ["listing-invalid"]
