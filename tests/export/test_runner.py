"""The runner against medseg: each of its steps gives what medseg's own gives."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from medseg_pl.core.geometry import Geometry, Slicing, find_slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing, TtaMode
from medseg_pl.data.sources import FolderSource
from medseg_pl.data.sources.files import write_mask_file
from medseg_pl.data.transforms.resize import gaussian_weights
from medseg_pl.export import image_files, runner
from medseg_pl.inference.postprocess import apply_postprocess
from medseg_pl.inference.sliding_window import get_transforms
from medseg_pl.io import nifti, raster
from tests.io.test_raster import EXACT
from tests.sample_files import noise, save_raster, save_volume

SIDES = st.integers(1, 60)
MASKS = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7)).flatmap(
    lambda shape: st.lists(st.integers(0, 2), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
        lambda values: np.array(values, np.uint8).reshape(1, *shape)
    )
)


@given(SIDES, SIDES, SIDES, SIDES)
def test_probabilities_are_scaled_as_torch_scales_them(height: int, width: int, new: int, wide: int) -> None:
    probabilities = np.random.default_rng(0).random((3, height, width), np.float32)
    expected = interpolate(torch.from_numpy(probabilities)[None], size=(new, wide), mode="bilinear")[0]
    np.testing.assert_allclose(runner.resize_linear(probabilities, (new, wide)), expected, atol=1e-5)


class TestBeforeTheNetwork:
    def test_an_image_without_a_number_is_refused(self) -> None:
        with pytest.raises(runner.RefusedError, match="no number at all"):
            runner.to_storable(np.full((1, 1, 2, 2), np.nan))


class TestWindows:
    @pytest.mark.parametrize("window", [(32, 32), (7, 96)])
    def test_they_weigh_the_same(self, window: tuple[int, int]) -> None:
        np.testing.assert_allclose(runner.gaussian_weights(window, 0.125), gaussian_weights(window), rtol=1e-5)

    @pytest.mark.parametrize("group", get_args(TtaMode))
    def test_an_image_is_seen_in_the_same_transforms(self, group: TtaMode) -> None:
        assert runner.TRANSFORMS[group] == [tuple(transform) for transform in get_transforms(group)]


class TestAfterTheNetwork:
    @pytest.mark.parametrize("task", ["multiclass", "multilabel"])
    def test_probabilities_and_decisions(self, task: Any) -> None:
        labels = LabelMap(["a", "b"], task)
        logits = np.random.default_rng(0).normal(0, 30, (labels.classes, 9, 8)).astype(np.float32)
        expected = labels.activate(torch.from_numpy(logits)[None])
        found = runner.activate(logits, "softmax" if task == "multiclass" else "sigmoid")
        np.testing.assert_allclose(found, expected[0], atol=1e-6)
        rule = {"rule": "likeliest"} if task == "multiclass" else {"rule": "above", "threshold": 0.5}
        np.testing.assert_array_equal(runner.decide(found, rule), labels.decide(expected)[0])

    @given(MASKS, st.booleans(), st.sampled_from([0.0, 3.0]), st.booleans())
    def test_masks_are_postprocessed_alike(
        self, mask: NDArray[np.uint8], holes: bool, least: float, largest: bool
    ) -> None:
        labels, how = LabelMap(["a", "b"], "multiclass"), PostProcessing(holes, least, largest)
        spec = {"labels": {"names": ["a", "b"], "task": "multiclass"}, "postprocess": {"b": asdict(how)}}
        geometry = Geometry((mask.shape[1], mask.shape[2], mask.shape[3]), (1.5, 1.0, 0.5))
        expected = apply_postprocess(mask, geometry, labels, {"b": how})
        np.testing.assert_array_equal(runner.postprocess_mask(mask.copy(), geometry.spacing_mm, spec), expected)


class TestFiles:
    @pytest.mark.parametrize("name", EXACT)
    def test_pictures_are_read_alike_or_refused(self, tmp_path: Path, name: str) -> None:
        write, _ = EXACT[name]
        path = tmp_path / name.replace("png_under_another_name.jpg", "real.png")
        write(path)
        path = path.rename(tmp_path / name)
        if ("16" in name and name not in ("gray_16.png", "gray_16.tiff")) or name.startswith("tiff_under"):
            with pytest.raises(runner.RefusedError, match="cannot be read without loss"):
                image_files.read_picture(path)
            return
        expected = raster.read_image(path)
        image = image_files.read_picture(path)
        np.testing.assert_array_equal(image, expected)
        if name != "gray_signed.tif":  # which Pillow gives as 32 bits
            assert runner.to_storable(image).dtype == expected.dtype

    @pytest.mark.parametrize(
        ("name", "shape", "options"),
        [
            ("8 bits.tif", (9, 12), {"photometric": "miniswhite"}),
            ("16 bits.tif", (9, 12), {"photometric": "miniswhite", "dtype": np.uint16}),
            ("two.tif", (9, 12, 2), {"photometric": "minisblack", "planarconfig": "contig"}),
            ("four.tif", (9, 12, 4), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
            ("colors.bmp", (9, 12), {}),
            ("frames.png", (9, 12), {}),
        ],
    )
    def test_tags_that_pillow_does_not_apply_are_refused(
        self, tmp_path: Path, name: str, shape: tuple[int, ...], options: dict[str, Any]
    ) -> None:
        pixels, path = noise(shape, dtype=options.pop("dtype", np.uint8)), tmp_path / name
        if path.suffix == ".tif":
            tifffile.imwrite(path, pixels, **options)
        elif path.suffix == ".bmp":
            image = Image.fromarray(pixels % 2)
            image.putpalette([0, 0, 0, 255, 255, 255])
            image.save(path)
            np.testing.assert_array_equal(raster.read_image(path)[0], pixels % 2 * 255)
        else:
            Image.fromarray(pixels).save(path, save_all=True, append_images=[Image.fromarray(255 - pixels)])
        with pytest.raises(runner.RefusedError, match=r"cannot be read without loss|holds several images"):
            image_files.read_picture(path)

    @pytest.mark.parametrize("slicing", get_args(Slicing))
    def test_volumes_are_cut_alike(self, tmp_path: Path, slicing: Slicing) -> None:
        path = save_volume(tmp_path / "a.nii.gz", noise((4, 5, 6), dtype=np.int16), (0.5, 3.0, 1.25))
        pixels, geometry = nifti.read_nifti(path)
        turn = find_slicing(geometry, slicing, "a")
        image, found = image_files.read_image(path, slicing)
        np.testing.assert_array_equal(image, turn.apply(pixels))
        np.testing.assert_allclose(found.spacing_mm, geometry.reorient(turn).spacing_mm)

    @pytest.mark.parametrize("slicing", get_args(Slicing))
    @pytest.mark.parametrize("value", [3, 700])
    def test_volumes_are_written_alike(self, tmp_path: Path, slicing: Slicing, value: int) -> None:
        path = save_volume(tmp_path / "a.nii", noise((4, 5, 6)).astype(np.float32), (0.5, 3.0, 1.25))
        labels = LabelMap(["x"], "binary", [value])
        (tmp_path / "ours").mkdir()
        source = FolderSource(str(tmp_path), images=".", masks=None, slicing=slicing)
        (case,) = source.cases()
        mask = noise(source.read(case, labels).geometry.shape) % 2
        source.write(tmp_path / "ours", case, mask[None], labels)
        spec = {"slicing": slicing, "labels": {"names": ["x"], "task": "binary", "values": [value], "colors": None}}
        image_files.write_mask(tmp_path / "theirs", [path], mask[None], spec)
        assert (tmp_path / "theirs" / "a.nii").read_bytes() == (tmp_path / "ours" / "a.nii").read_bytes()
        written = nibabel.load(tmp_path / "ours" / "a.nii")
        assert set(np.unique(written.get_fdata())) == {0, value}
        assert written.get_data_dtype() == np.min_scalar_type(value)

    @pytest.mark.parametrize("colors", [None, {"a": (9, 8, 7), "b": (0, 0, 255), "background": (1, 1, 1)}])
    @pytest.mark.parametrize("values", [None, [5, 300]])
    @pytest.mark.parametrize("task", ["multiclass", "multilabel"])
    def test_pictures_are_written_alike(self, tmp_path: Path, task: Any, values: Any, colors: Any) -> None:
        labels = LabelMap(["a", "b"], task, values, colors=colors)
        mask = noise((labels.mask_channels, 1, 7, 6)) % (2 if labels.overlapping else 3)
        template = save_raster(tmp_path / "one.jpg", noise((7, 6)))
        spec = {"labels": {"names": ["a", "b"], "task": task, "values": values, "colors": colors}}
        image_files.write_mask(tmp_path / "theirs", [template], mask, json.loads(json.dumps(spec)))
        if labels.overlapping:
            for index, name in enumerate(labels.names):
                values = labels.decode_one(mask[index], index, 255, colors is not None)
                write_mask_file(tmp_path / "ours" / name / "one", values, template)
        else:
            write_mask_file(tmp_path / "ours" / "one", labels.decode(mask, colors is not None), template)
        ours = sorted((tmp_path / "ours").rglob("*.png"))
        assert ours
        for path in ours:
            assert path.read_bytes() == (tmp_path / "theirs" / path.relative_to(tmp_path / "ours")).read_bytes()

    def test_a_volume_is_no_picture(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii").write_text("no volume")
        with pytest.raises(runner.RefusedError, match="it cannot be read"):
            image_files.read_image(tmp_path / "a.nii", "file")
        with pytest.raises(runner.RefusedError, match="is of no format that is read"):
            image_files.read_image(tmp_path / "a.txt", "file")

    def test_a_volume_that_is_cut_off(self, tmp_path: Path) -> None:
        whole = save_volume(tmp_path / "a.nii.gz", noise((60, 50, 3))).read_bytes()
        (tmp_path / "b.nii.gz").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(runner.RefusedError, match="it is damaged"):
            image_files.read_image(tmp_path / "b.nii.gz", "file")

    @pytest.mark.parametrize(("place", "kind", "value"), [(70, "<h", 0), (108, "<f", 64.0), (42, "<h", 0)])
    def test_a_header_that_means_nothing(self, tmp_path: Path, place: int, kind: str, value: float) -> None:
        content = bytearray(save_volume(tmp_path / "a.nii", noise((16, 15, 3))).read_bytes())
        struct.pack_into(kind, content, place, value)
        (tmp_path / "b.nii").write_bytes(content)
        with pytest.raises(runner.RefusedError, match="it is damaged"):
            image_files.read_image(tmp_path / "b.nii", "file")

    def test_colors_are_no_numbers(self, tmp_path: Path) -> None:
        colors = np.zeros((4, 4, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nibabel.save(nibabel.Nifti1Image(colors, np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(runner.RefusedError, match=r"has the shape \(4, 4, 2\); expected \(x, y, z\)"):
            image_files.read_image(tmp_path / "a.nii", "file")

    def test_a_second_transform_serves_where_the_first_is_none(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(noise((4, 5, 2)), np.diag([0.5, 0.7, 3, 1]))
        image.set_sform(np.zeros((4, 4)), code=1)
        image.set_qform(np.diag([0.5, 0.7, 3, 1]), code=1)
        nibabel.save(image, tmp_path / "a.nii")
        assert image_files.read_image(tmp_path / "a.nii", "file")[1].spacing_mm == pytest.approx((3, 0.7, 0.5))

    def test_no_png_holds_a_value_below_zero(self, tmp_path: Path) -> None:
        spec = {"labels": {"names": ["x"], "task": "binary", "values": [-1], "colors": None}, "slicing": "file"}
        with pytest.raises(runner.RefusedError, match="values that a PNG cannot hold"):
            image_files.write_mask(tmp_path, [Path("a.png")], np.ones((1, 1, 2, 2), np.uint8), spec)
        assert not list(tmp_path.glob("*.png"))

    def test_masks_never_take_the_place_of_a_file(self, tmp_path: Path) -> None:
        spec = {"labels": {"names": ["x"], "task": "binary"}}
        both = image_files.list_outputs(tmp_path, [Path("a/one.png"), Path("b/one.jpg")], spec)
        with pytest.raises(runner.RefusedError, match=r"one\.png would be written twice"):
            runner.check_outputs(both)
        (tmp_path / "one.png").touch()
        with pytest.raises(runner.RefusedError, match=r"one\.png is there already"):
            runner.check_outputs(both[:1])

    def test_each_file_of_a_folder_is_compared_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[object] = []
        equals = Path.__eq__
        monkeypatch.setattr(Path, "__eq__", lambda one, other: compared.append(other) or equals(one, other))
        for number in range(60):
            (tmp_path / f"{number}.{'txt' if number % 2 else 'png'}").touch()
        files = runner.expand_folders([tmp_path], None)
        runner.check_outputs([tmp_path / "masks" / path.name for path in files])
        assert len(files) == 30
        assert len(compared) < 2 * 60  # each with each would be 30 x 60


@pytest.mark.parametrize("name", ["/abs/dir", "../../x", r"..\x", "", "a/b", "a\x1b[2J", ".x", "C:"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    for spec in ({"labels": {"names": [name]}, "golden": []}, {"golden": [{"file": f"golden/{name}"}]}):
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        with pytest.raises(runner.RefusedError, match=r"spec\.json has the name .* Take the folder"):
            runner.read_specification(tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps({"labels": {"names": ["left kidney"]}}))
    assert runner.read_specification(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"labels": 1}', '{"golden": [{}]}', '{"labels": {"names": [1]}}']
)
def test_what_is_no_specification_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(runner.RefusedError, match=r"spec\.json is no"):
        runner.read_specification(tmp_path)


def test_differences_are_named() -> None:
    now, then = {"a": [1, {"b": None}], "c": True}, {"a": [2, {}], "c": 1, "d": {}}
    assert runner.list_differences(then, then) == []
    assert runner.list_differences(now, then) == [
        "a[0] is 1 and was 2",
        "a[1].b is null and was absent",
        "c is true and was 1",
        "d is absent and was {}",
    ]
