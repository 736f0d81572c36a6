"""NIfTI in every orientation, written and read back by nibabel: no voxel moves, and damage is noticed."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.core.errors import MedsegError, MissingDataError, OutputExistsError, UnreadableFileError
from medseg_pl.core.geometry import Geometry, to_affine
from medseg_pl.io import nifti, size_limits

SHAPE = (4, 5, 6)  # x, y, z
ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]
GRID_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip


def oblique(seed: int, orientation: int | None = None) -> np.ndarray:
    """A rotation, a spacing and an origin, to the digit that a header holds; the axes in one of 48 orders."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3))) if orientation is None else (np.eye(3), None)
    axes, signs = ORIENTATIONS[orientation or 0]
    affine = np.eye(4)
    affine[:3, :3] = (turn[:, axes] * signs) * rng.uniform(0.3, 8.0, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine.astype(np.float32).astype(np.float64)


def values(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None, **header: Any) -> Path:
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine, dtype=array.dtype)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def assert_same_grid(written: Any, template: Any) -> None:
    np.testing.assert_array_equal(written.affine, template.affine)
    for field in GRID_FIELDS:
        np.testing.assert_array_equal(written.header[field], template.header[field], err_msg=field)
    np.testing.assert_array_equal(written.header["pixdim"][:4], template.header["pixdim"][:4])
    assert written.header.endianness == template.header.endianness


class TestRead:
    @pytest.mark.parametrize("orientation", range(48))
    def test_axes_are_reversed_and_the_affine_with_them(self, tmp_path: Path, orientation: int) -> None:
        array, affine = values(), oblique(orientation, orientation)
        volume, geometry = nifti.read_nifti(save(tmp_path / "a.nii", array, affine))
        np.testing.assert_array_equal(volume, array.T[None])
        assert geometry.shape == (6, 5, 4)
        assert geometry.affine == to_affine(affine[:, [2, 1, 0, 3]])
        i, j, k = 3, 1, 4
        np.testing.assert_array_equal(np.array(geometry.affine) @ (k, j, i, 1), affine[:, [2, 1, 0, 3]] @ (k, j, i, 1))
        np.testing.assert_allclose(np.array(geometry.affine) @ (k, j, i, 1), affine @ (i, j, k, 1))
        assert volume[0, k, j, i] == array[i, j, k]

    @given(seed=st.integers(0, 2**20))
    def test_the_spacing_is_that_of_z_y_x(self, tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
        path = save(tmp_path_factory.mktemp("oblique") / "a.nii", values(), oblique(seed))
        _, geometry = nifti.read_nifti(path)
        zooms = nibabel.load(path).header.get_zooms()  # type: ignore[attr-defined]
        np.testing.assert_allclose(geometry.spacing_mm, zooms[::-1], rtol=1e-5)
        assert nifti.read_geometry(path) == geometry

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.float32])
    def test_values_keep_their_type(self, tmp_path: Path, dtype: type) -> None:
        volume, _ = nifti.read_nifti(save(tmp_path / "a.nii.gz", values(dtype=dtype)))
        assert volume.dtype == dtype
        assert volume.flags.c_contiguous
        np.testing.assert_array_equal(volume, values(dtype=dtype).T[None])

    def test_double_precision_becomes_single(self, tmp_path: Path) -> None:
        array = np.random.default_rng(0).normal(size=SHAPE)
        volume, _ = nifti.read_nifti(save(tmp_path / "a.nii", array))
        assert volume.dtype == np.float32
        np.testing.assert_array_equal(volume[0], array.T.astype(np.float32))

    def test_scaling_in_the_header_is_applied(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(values(), np.eye(4))
        image.header.set_slope_inter(0.5, -1024)
        nibabel.save(image, tmp_path / "a.nii")
        stored = np.asanyarray(nibabel.load(tmp_path / "a.nii").dataobj.get_unscaled())  # type: ignore[attr-defined]
        volume, _ = nifti.read_nifti(tmp_path / "a.nii")
        assert volume.dtype == np.float32
        np.testing.assert_array_equal(volume[0], stored.T * np.float32(0.5) - 1024)

    def test_values_that_are_no_numbers_stay(self, tmp_path: Path) -> None:
        array = values(dtype=np.float32)
        array[0, 0, :3] = (np.nan, np.inf, -np.inf)
        volume, _ = nifti.read_nifti(save(tmp_path / "a.nii", array))
        np.testing.assert_array_equal(volume[0], array.T)

    @pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
    def test_a_file_of_the_other_byte_order(self, tmp_path: Path, kind: Any) -> None:
        header = kind.header_class(endianness=">")
        header.set_data_dtype(np.int16)
        nibabel.save(kind(values(), oblique(1), header), tmp_path / "a.nii")
        assert nibabel.load(tmp_path / "a.nii").header.endianness == ">"  # type: ignore[attr-defined]
        volume, geometry = nifti.read_nifti(tmp_path / "a.nii")
        assert volume.dtype.isnative
        np.testing.assert_array_equal(volume[0], values().T)
        assert geometry.affine == to_affine(oblique(1)[:, [2, 1, 0, 3]])

    @pytest.mark.parametrize(
        ("stored", "read"),
        [
            ((4, 5), (1, 1, 5, 4)),
            ((4, 5, 1), (1, 1, 5, 4)),
            ((4, 5, 6, 1), (1, 6, 5, 4)),
            ((4, 5, 6, 3), (3, 6, 5, 4)),
            ((4, 5, 6, 1, 2), (2, 6, 5, 4)),
        ],
    )
    def test_axes_beyond_the_third_are_channels(
        self, tmp_path: Path, stored: tuple[int, ...], read: tuple[int, ...]
    ) -> None:
        array = values(stored)
        path = save(tmp_path / "a.nii", array)
        volume, geometry = nifti.read_nifti(path)
        assert volume.shape == read
        assert geometry.shape == read[1:]
        assert nifti.read_geometry(path) == geometry
        channels = array.reshape(*(*stored, 1, 1)[:3], -1)
        for index in range(read[0]):
            np.testing.assert_array_equal(volume[index], channels[..., index].T)

    @pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("unknown", 1.0), ("meter", 1000.0), ("micron", 0.001)])
    def test_other_units_become_millimeters(self, tmp_path: Path, unit: str, factor: float) -> None:
        image = nibabel.Nifti1Image(values(), np.diag([2.0, 3.0, 4.0, 1.0]))
        image.header.set_xyzt_units(unit, "sec")
        nibabel.save(image, tmp_path / "a.nii")
        _, geometry = nifti.read_nifti(tmp_path / "a.nii")
        assert geometry.spacing_mm == pytest.approx((4 * factor, 3 * factor, 2 * factor))
        assert np.array(geometry.affine)[2, 0] == pytest.approx(4 * factor)

    def test_a_file_that_has_only_the_quaternion(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(values(), None)
        image.set_sform(None, code=0)
        image.set_qform(oblique(3), code=1)
        nibabel.save(image, tmp_path / "a.nii")
        _, geometry = nifti.read_nifti(tmp_path / "a.nii")
        np.testing.assert_allclose(np.array(geometry.affine)[:, [2, 1, 0, 3]], oblique(3), atol=1e-4)

    def test_an_sform_of_zeros_gives_way_to_the_quaternion(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(values(), None)
        image.set_qform(oblique(3), code=1)
        nibabel.save(image, tmp_path / "a.nii")
        content = bytearray((tmp_path / "a.nii").read_bytes())
        content[252:256], content[280:328] = bytes((1, 0, 1, 0)), bytes(48)
        (tmp_path / "a.nii").write_bytes(content)
        _, geometry = nifti.read_nifti(tmp_path / "a.nii")
        np.testing.assert_allclose(np.array(geometry.affine)[:, [2, 1, 0, 3]], oblique(3), atol=1e-4)
        content[252:254] = bytes(2)  # no quaternion either
        (tmp_path / "a.nii").write_bytes(content)
        with pytest.raises(UnreadableFileError, match="affine that places no voxel"):
            nifti.read_geometry(tmp_path / "a.nii")


class TestWrite:
    @given(
        seed=st.integers(0, 2**20),
        dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32]),
        channels=st.sampled_from([(), (1,), (3,)]),
        suffix=st.sampled_from([".nii", ".nii.gz"]),
    )
    def test_what_is_written_is_read_back(
        self, tmp_path_factory: pytest.TempPathFactory, seed: int, dtype: type, channels: tuple[int, ...], suffix: str
    ) -> None:
        path = tmp_path_factory.mktemp("round") / f"a{suffix}"
        array = values((*channels, 6, 5, 4), dtype, seed)
        affine = oblique(seed)[:, [2, 1, 0, 3]]
        spacing = tuple(float(value) for value in np.linalg.norm(affine[:3, :3], axis=0))
        geometry = Geometry((6, 5, 4), (spacing[0], spacing[1], spacing[2]), to_affine(affine))
        nifti.write_nifti(path, array, geometry)
        volume, again = nifti.read_nifti(path)
        assert again == geometry
        assert volume.dtype == dtype
        np.testing.assert_array_equal(volume, array.reshape(-1, 6, 5, 4))
        image: Any = nibabel.load(path)
        np.testing.assert_array_equal(image.affine, oblique(seed))
        assert image.header.get_xyzt_units()[0] == "mm"

    def test_without_an_affine_the_spacing_decides(self, tmp_path: Path) -> None:
        nifti.write_nifti(tmp_path / "a.nii", values((6, 5, 4)), Geometry((6, 5, 4), (3.0, 1.5, 0.75)))
        nifti.write_nifti(tmp_path / "b.nii", values((6, 5, 4)), Geometry((6, 5, 4)))
        first, second = (nibabel.load(tmp_path / name).affine for name in ("a.nii", "b.nii"))  # type: ignore[attr-defined]
        np.testing.assert_array_equal(first, np.diag([0.75, 1.5, 3.0, 1.0]))
        np.testing.assert_array_equal(second, np.eye(4))

    def test_the_suffix_decides_about_compression(self, tmp_path: Path) -> None:
        for name in ("a.nii", "a.nii.gz"):
            nifti.write_nifti(tmp_path / name, values((6, 5, 4)), Geometry((6, 5, 4)))
        assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == (tmp_path / "a.nii").read_bytes()

    def test_an_existing_file_is_kept(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii", values())
        before = path.read_bytes()
        with pytest.raises(OutputExistsError, match="exists already and is not overwritten"):
            nifti.write_nifti(path, values((6, 5, 4)), Geometry((6, 5, 4)))
        with pytest.raises(OutputExistsError, match="exists already and is not overwritten"):
            nifti.write_mask_like(path, values((6, 5, 4)), path)
        assert path.read_bytes() == before


class TestWriteMaskLike:
    @given(
        seed=st.integers(0, 2**20),
        codes=st.tuples(st.integers(0, 4), st.integers(0, 4)),
        dtype=st.sampled_from(["u1", "<i2", ">i2", "<u2", "<i4", "<i8", "<f4", ">f4", "<f8"]),
        shape=st.sampled_from([SHAPE, (4, 5), (4, 5, 1), (4, 5, 6, 3), (4, 5, 6, 1, 2)]),
        suffix=st.sampled_from([".nii", ".nii.gz"]),
        unit=st.sampled_from(["mm", "micron", "unknown"]),
        kind=st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    )
    def test_the_grid_is_the_templates_to_the_last_bit(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        seed: int,
        codes: tuple[int, int],
        dtype: str,
        shape: tuple[int, ...],
        suffix: str,
        unit: str,
        kind: Any,
    ) -> None:
        folder = tmp_path_factory.mktemp("like")
        header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
        header.set_data_dtype(np.dtype(dtype))
        image = kind(values(shape, dtype), None, header)
        image.header.set_xyzt_units(unit)
        # Scanners write both forms, and not always alike.
        image.header.set_qform(oblique(seed), code=codes[0])
        image.header.set_sform(oblique(seed + 1), code=codes[1])
        nibabel.save(image, folder / f"image{suffix}")
        template: Any = nibabel.load(folder / f"image{suffix}")
        volume, geometry = nifti.read_nifti(folder / f"image{suffix}")

        mask = (volume[0] > 50).astype(np.uint8) * 2
        nifti.write_mask_like(folder / f"mask{suffix}", mask, folder / f"image{suffix}")

        written: Any = nibabel.load(folder / f"mask{suffix}")
        assert_same_grid(written, template)
        assert written.shape == shape[:3]
        assert written.get_data_dtype() == np.uint8
        assert (written.dataobj.slope, written.dataobj.inter) == (1, 0)
        again, same = nifti.read_nifti(folder / f"mask{suffix}")
        np.testing.assert_array_equal(again[0], mask)
        assert same == geometry

    def test_a_scaled_template_does_not_scale_the_labels(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(values(), oblique(0))
        image.header.set_slope_inter(0.01, -3)
        image.header["cal_max"] = 40
        nibabel.save(image, tmp_path / "image.nii")
        mask = values((6, 5, 4), np.uint8) % 3
        nifti.write_mask_like(tmp_path / "mask.nii", mask, tmp_path / "image.nii")
        written: Any = nibabel.load(tmp_path / "mask.nii")
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), mask.T)
        np.testing.assert_array_equal(written.dataobj.get_unscaled(), mask.T)
        assert written.header["cal_max"] == 0

    def test_large_labels_have_the_type_they_came_in(self, tmp_path: Path) -> None:
        save(tmp_path / "image.nii", values(dtype=np.uint8), oblique(0))
        mask = np.zeros((6, 5, 4), np.uint16)
        mask[0] = 600
        nifti.write_mask_like(tmp_path / "mask.nii", mask, tmp_path / "image.nii")
        written, geometry = nifti.read_nifti(tmp_path / "mask.nii")
        np.testing.assert_array_equal(written[0], mask)
        assert geometry == nifti.read_geometry(tmp_path / "image.nii")

    def test_extensions_of_the_template_survive(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(values(), oblique(0))
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"scanned lying down"))
        nibabel.save(image, tmp_path / "image.nii.gz")
        mask = values((6, 5, 4), np.uint8) % 2
        nifti.write_mask_like(tmp_path / "mask.nii.gz", mask, tmp_path / "image.nii.gz")
        written: Any = nibabel.load(tmp_path / "mask.nii.gz")
        assert [bytes(extension.get_content()).rstrip(b"\0") for extension in written.header.extensions] == [
            b"scanned lying down"
        ]
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), mask.T)


class TestDamage:
    def test_a_missing_file_is_said_to_be_missing(self, tmp_path: Path) -> None:
        for read in (nifti.read_nifti, nifti.read_geometry):
            with pytest.raises(MissingDataError) as caught:
                read(tmp_path / "gone.nii.gz")
            assert str(caught.value) == f"{tmp_path / 'gone.nii.gz'} does not exist."

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.9, 0.99])
    def test_a_file_cut_short_is_refused(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = save(tmp_path / f"a{suffix}", values((16, 16, 16)))
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UnreadableFileError) as caught:
            nifti.read_nifti(path)
        start = f"{path} ({int(share * len(whole))} bytes) cannot be read as NIfTI: "
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith(". Replace it with an intact copy.")

    def test_flipped_bytes_in_a_compressed_file_are_noticed(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii.gz", values((16, 16, 16)))
        whole = path.read_bytes()
        for place in range(10, len(whole), len(whole) // 40):
            damaged = bytearray(whole)
            damaged[place] ^= 0xFF
            path.write_bytes(damaged)
            with pytest.raises(UnreadableFileError, match="Replace it with an intact copy"):
                nifti.read_nifti(path)

    @pytest.mark.parametrize("place", [*range(40, 56), *range(70, 74), 76, 108, 111, 123, 252, 254, 283, 344])
    def test_a_damaged_header_ends_in_one_sentence_or_a_volume(self, tmp_path: Path, place: int) -> None:
        path = save(tmp_path / "a.nii", values())
        whole = path.read_bytes()
        for value in (0, 1, 127, 128, 255):
            damaged = bytearray(whole)
            damaged[place] = value
            path.write_bytes(damaged)
            try:
                volume, geometry = nifti.read_nifti(path)
            except MedsegError as error:
                assert str(error).startswith(str(path))
            else:
                assert volume.shape[1:] == geometry.shape

    def test_text_under_the_name_of_a_volume_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii").write_text("the scan was lost" * 50)
        with pytest.raises(UnreadableFileError, match=r"a\.nii \(850 bytes\) cannot be read as NIfTI"):
            nifti.read_nifti(tmp_path / "a.nii")

    def test_a_volume_over_the_limit_is_not_decoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(tmp_path / "a.nii", values())
        monkeypatch.setattr(size_limits, "MAX_VOXELS", 120)
        assert nifti.read_nifti(path)[0].shape == (1, 6, 5, 4)
        monkeypatch.setattr(size_limits, "MAX_VOXELS", 119)
        for read in (nifti.read_nifti, nifti.read_geometry):
            with pytest.raises(UnreadableFileError) as caught:
                read(path)
            assert str(caught.value) == (
                f"{path} claims more than 119 voxels and is not decoded. Divide it, or remove it from the data set."
            )

    def test_a_film_of_channels_is_no_volume(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii", values((4, 5, 6, 2, 3)))
        with pytest.raises(UnreadableFileError) as caught:
            nifti.read_nifti(path)
        assert str(caught.value) == (
            f"{path} has the shape (4, 5, 6, 2, 3); expected (x, y, z) or (x, y, z, channels)."
        )

    @pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
    def test_values_that_are_not_one_number_are_refused(self, tmp_path: Path, dtype: Any) -> None:
        path = tmp_path / "a.nii"
        nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, dtype), np.eye(4)), path)
        with pytest.raises(UnreadableFileError, match="expected one real number per voxel"):
            nifti.read_nifti(path)


def test_voxels_that_begin_in_the_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_filename(path)
    content = bytearray(path.read_bytes())
    content[108:112] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"a\.nii says that its voxels begin in its header"):
        nifti.read_nifti(path)


class TestBombs:
    def test_voxels_that_the_compressed_bytes_cannot_hold_are_refused(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii.gz", values())
        header = bytearray(gzip.decompress(path.read_bytes()))
        header[42:48] = np.array([2000, 1000, 1000], "<i2").tobytes()
        path.write_bytes(gzip.compress(header))
        for read in (nifti.read_nifti, nifti.read_geometry):
            with pytest.raises(UnreadableFileError) as caught:
                read(path)
            assert str(caught.value) == (
                f"{path} claims 4,000,000,000 bytes of voxels, more than its {path.stat().st_size} bytes can hold. "
                "Replace it with an intact copy."
            )

    def test_an_empty_mask_compresses_a_thousandfold_and_is_read(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii.gz", np.zeros((200, 200, 200), np.uint8))
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 9))
        assert path.stat().st_size < 200**3 / 900
        assert not nifti.read_nifti(path)[0].any()

    def test_the_type_of_a_voxel_counts_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(tmp_path / "a.nii", values(dtype=np.float64))
        monkeypatch.setattr(size_limits, "MAX_VOXELS", 120)
        assert nifti.read_nifti(path)[0].shape == (1, 6, 5, 4)
        monkeypatch.setattr(size_limits, "MAX_ITEM_BYTES", 7)
        with pytest.raises(UnreadableFileError, match="claims more than 840 bytes and is not decoded"):
            nifti.read_nifti(path)

    def test_what_follows_the_last_voxel_is_not_inflated_without_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save(tmp_path / "a.nii.gz", values())
        monkeypatch.setattr(size_limits, "MAX_BEHIND_BYTES", 1 << 20)
        path.write_bytes(path.read_bytes() + gzip.compress(bytes(1 << 20)))
        np.testing.assert_array_equal(nifti.read_nifti(path)[0][0], values().T)
        path.write_bytes(path.read_bytes() + gzip.compress(bytes(4 << 20)) + b"no gzip at all, and never reached")
        with pytest.raises(UnreadableFileError) as caught:
            nifti.read_nifti(path)
        assert str(caught.value) == (
            f"{path} goes on for more than 1,048,576 bytes behind its last voxel. Replace it with an intact copy."
        )

    @pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_voxels_that_begin_too_late_are_not_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, order: str, suffix: str
    ) -> None:
        path = tmp_path / f"a{suffix}"
        image = kind(values(), oblique(0), kind.header_class(endianness=order))
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 4000))
        nibabel.save(image, path)
        monkeypatch.setattr(size_limits, "MAX_BEHIND_BYTES", 6000)
        assert nifti.read_nifti(path)[0].shape == (1, 6, 5, 4)
        monkeypatch.setattr(size_limits, "MAX_BEHIND_BYTES", 4000)
        for read in (nifti.read_nifti, nifti.read_geometry):
            with pytest.raises(UnreadableFileError, match="claims more than 4,000 bytes of header and is not decoded"):
                read(path)


@pytest.mark.realdata
class TestRealData:
    @pytest.mark.parametrize("folder", ["spine_nifti", "cord_mri", "spleen_ct"])
    def test_files_come_back_on_the_grid_they_came_from(self, real_data: Path, tmp_path: Path, folder: str) -> None:
        paths = sorted((real_data / folder).glob("*.nii.gz"))
        assert paths
        for path in paths:
            template: Any = nibabel.load(path)
            volume, geometry = nifti.read_nifti(path)
            np.testing.assert_array_equal(volume[0], np.asanyarray(template.dataobj).astype(volume.dtype).T)
            is_mask = len(np.unique(volume)) <= 3
            mask = volume[0] if is_mask else (np.nan_to_num(volume[0]) > np.median(volume)).astype(np.uint8)
            nifti.write_mask_like(tmp_path / path.name, mask, path)
            written: Any = nibabel.load(tmp_path / path.name)
            assert_same_grid(written, template)
            assert written.shape == template.shape
            assert written.get_data_dtype() == mask.dtype
            again, same = nifti.read_nifti(tmp_path / path.name)
            np.testing.assert_array_equal(again[0], mask)
            assert same == geometry

    def test_the_grids_of_the_spine_are_oblique_and_anisotropic(self, real_data: Path) -> None:
        geometry = nifti.read_geometry(real_data / "spine_nifti" / "t2s.nii.gz")
        assert geometry.spacing_mm == pytest.approx((7.5, 0.5, 0.5), rel=0.01)
        mtr, _ = nifti.read_nifti(real_data / "spine_nifti" / "mtr.nii.gz")
        assert np.isneginf(mtr).any()
