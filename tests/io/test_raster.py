"""Every kind of raster file, written by other libraries: the pixels arrive as they stand, and damage is noticed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from medseg_pl.core.errors import (
    MaskValueError,
    MedsegError,
    MissingDataError,
    OutputExistsError,
    UnreadableFileError,
)
from medseg_pl.io import raster, size_limits

SHAPE = (23, 31)
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, SHAPE).astype(np.uint8)
DEEP = RNG.integers(0, 65536, SHAPE).astype(np.uint16)
REAL = RNG.normal(0, 1000, SHAPE).astype(np.float32)
RGB = RNG.integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
RGBA = RNG.integers(0, 256, (*SHAPE, 4)).astype(np.uint8)
DEEP_RGBA = RNG.integers(0, 65536, (*SHAPE, 4)).astype(np.uint16)
INDEX = RNG.choice([0, 2], SHAPE).astype(np.uint8)
COLOR_MASK = np.array([[0, 0, 0], [9, 9, 9], [200, 100, 50]], np.uint8)[INDEX]
COLORS = [10, 20, 30, 0, 0, 0, 200, 100, 50]


def save_palette(path: Path, colors: list[int], **options: Any) -> None:
    image = Image.fromarray(INDEX)
    image.putpalette(colors)
    assert image.mode == "P"
    image.save(path, **options)


def save_chunks(path: Path, pixels: np.ndarray, color_type: int, claimed: tuple[int, int] | None = None) -> None:
    """A PNG byte by byte: for kinds that no library writes."""
    height, width = claimed or pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    save_stream(path, (height, width, color_type), zlib.compress(rows), 8 * pixels.itemsize)


def save_stream(path: Path, header: tuple[int, int, int], stream: bytes, bits: int = 8) -> None:
    """A PNG of height, width and color type, of any compressed stream."""
    height, width, color_type = header
    chunk = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + framed(b"IHDR", chunk) + framed(b"IDAT", stream) + framed(b"IEND", b""))


def framed(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def save_opencv(path: Path, pixels: np.ndarray) -> None:
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, order[pixels.shape[2]]))


def pillow(pixels: np.ndarray, mode: str | None = None, **options: Any) -> Callable[[Path], None]:
    image = Image.fromarray(pixels)
    return lambda path: (image if mode is None else image.convert(mode)).save(path, **options)


def tiff(pixels: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


# Name of the file, how it is written, and the image as `(H, W)` or `(H, W, 3)`.
EXACT: dict[str, tuple[Callable[[Path], None], np.ndarray]] = {
    "gray_8.png": (pillow(GRAY), GRAY),
    "gray_16.png": (pillow(DEEP), DEEP),
    "gray_alpha_8.png": (pillow(RGBA[..., :2]), RGBA[..., 0]),
    "gray_alpha_16.png": (lambda path: save_chunks(path, DEEP_RGBA[..., :2], color_type=4), DEEP_RGBA[..., 0]),
    "rgb_8.png": (pillow(RGB), RGB),
    "rgb_16.png": (lambda path: save_opencv(path, DEEP_RGBA[..., :3]), DEEP_RGBA[..., :3]),
    "rgba_8.png": (pillow(RGBA), RGBA[..., :3]),
    "rgba_16.png": (lambda path: save_opencv(path, DEEP_RGBA), DEEP_RGBA[..., :3]),
    "bit.png": (pillow(INDEX > 0), (INDEX > 0) * np.uint8(255)),
    "palette.png": (
        lambda path: save_palette(path, COLORS),
        np.array(COLORS, np.uint8).reshape(3, 3)[INDEX],
    ),
    "palette_alpha.png": (
        lambda path: save_palette(path, COLORS, transparency=bytes([0, 128, 255])),
        np.array(COLORS, np.uint8).reshape(3, 3)[INDEX],
    ),
    "palette_gray.png": (
        lambda path: save_palette(path, [9, 9, 9, 0, 0, 0, 200, 200, 200]),
        np.array([9, 0, 200], np.uint8)[INDEX],
    ),
    "gray.bmp": (pillow(GRAY), GRAY),
    "rgb.bmp": (pillow(RGB), RGB),
    "gray_8.tif": (tiff(GRAY), GRAY),
    "gray_16.tiff": (tiff(DEEP), DEEP),
    "gray_signed.tif": (tiff(DEEP.view(np.int16)), DEEP.view(np.int16)),
    "gray_float.TIF": (tiff(REAL), REAL),
    "gray_big_endian.tif": (tiff(DEEP, byteorder=">"), DEEP),
    "gray_lzw.tif": (tiff(DEEP, compression="lzw", predictor=True), DEEP),
    "gray_pillow_lzw.tif": (pillow(GRAY, compression="tiff_lzw"), GRAY),
    "gray_deflate.tif": (tiff(GRAY, compression="zlib"), GRAY),
    "rgb_8.tif": (tiff(RGB, photometric="rgb"), RGB),
    "rgb_16.tif": (tiff(DEEP_RGBA[..., :3], photometric="rgb"), DEEP_RGBA[..., :3]),
    "rgb_lzw.tif": (tiff(RGB, photometric="rgb", compression="lzw"), RGB),
    "rgb_planar.tif": (tiff(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), RGB),
    "rgba_16.tif": (tiff(DEEP_RGBA, photometric="rgb", extrasamples=["unassalpha"]), DEEP_RGBA[..., :3]),
    "gray_tiled.tif": (tiff(DEEP, tile=(16, 16)), DEEP),
    "tiff_under_another_name.png": (tiff(DEEP_RGBA[..., :3], photometric="rgb"), DEEP_RGBA[..., :3]),
    "png_under_another_name.jpg": (pillow(RGBA), RGBA[..., :3]),
}  # fmt: skip


@pytest.fixture(params=list(EXACT))
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray]:
    write, pixels = EXACT[request.param]
    # Pillow chooses the format by the suffix.
    path = tmp_path / request.param.replace("png_under_another_name.jpg", "real.png")
    write(path)
    return (path.rename(tmp_path / request.param), pixels)


class TestReadImage:
    def test_pixels_arrive_as_they_stand(self, kind: tuple[Path, np.ndarray]) -> None:
        path, pixels = kind
        image = raster.read_image(path)
        expected = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        np.testing.assert_array_equal(image, expected)
        assert image.dtype == expected.dtype
        assert image.flags.c_contiguous

    def test_the_size_is_known_without_decoding(self, kind: tuple[Path, np.ndarray]) -> None:
        path, pixels = kind
        assert raster.read_image_size(path) == pixels.shape[:2]

    @pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("CMYK", 3)])
    def test_jpeg_equals_what_pillow_decodes(self, tmp_path: Path, mode: str, channels: int) -> None:
        Image.fromarray(RGB).convert(mode).save(tmp_path / "image.jpg")
        image = raster.read_image(tmp_path / "image.jpg")
        with Image.open(tmp_path / "image.jpg") as reference:
            expected = np.asarray(reference.convert("L" if channels == 1 else "RGB"))
        assert image.shape == (channels, *SHAPE)
        np.testing.assert_array_equal(image, expected.reshape(*SHAPE, channels).transpose(2, 0, 1))

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("name", ["image.jpg", "image.png"])
    @pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
    def test_a_rotation_in_exif_is_applied(
        self, tmp_path: Path, orientation: int, name: str, pixels: np.ndarray
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / name
        Image.fromarray(pixels).save(path, exif=exif)
        with Image.open(path) as stored:
            expected = np.asarray(ImageOps.exif_transpose(stored))
        image = raster.read_image(path)
        np.testing.assert_array_equal(image, np.atleast_3d(expected).transpose(2, 0, 1))
        assert raster.read_image_size(path) == image.shape[1:]
        np.testing.assert_array_equal(image[0].shape, SHAPE[::-1] if orientation >= 5 else SHAPE)

    def test_rotations_reach_every_mode(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn clockwise
        for name, pixels in {"deep": DEEP, "alpha": RGBA}.items():
            Image.fromarray(pixels).save(tmp_path / f"{name}.png", exif=exif)
            turned = np.rot90(pixels, -1)
            expected = turned[None] if turned.ndim == 2 else turned[..., :3].transpose(2, 0, 1)
            np.testing.assert_array_equal(raster.read_image(tmp_path / f"{name}.png"), expected)
        save_palette(tmp_path / "palette.png", COLORS, exif=exif)
        np.testing.assert_array_equal(raster.read_mask(tmp_path / "palette.png"), np.rot90(INDEX, -1))


class TestReadMask:
    @pytest.mark.parametrize(
        ("name", "write", "expected"),
        [
            ("gray.png", pillow(GRAY), GRAY),
            ("deep.png", pillow(DEEP), DEEP),
            ("palette.png", lambda path: save_palette(path, COLORS), INDEX),
            ("palette_alpha.png", lambda path: save_palette(path, COLORS, transparency=bytes([0, 1, 2])), INDEX),
            ("palette_bits.png", lambda path: save_palette(path, COLORS, bits=2), INDEX),
            ("bit.png", pillow(INDEX > 0), INDEX // 2),
            ("bit.tif", pillow(INDEX > 0), INDEX // 2),
            ("bit_group4.tif", pillow(INDEX > 0, compression="group4"), INDEX // 2),
            ("gray_alpha.png", pillow(RGBA[..., :2]), RGBA[..., 0]),
            ("deep_alpha.png", lambda path: save_chunks(path, DEEP_RGBA[..., :2], 4), DEEP_RGBA[..., 0]),
            ("rgb_alike.png", pillow(np.stack([GRAY] * 3, axis=-1)), GRAY),
            ("rgba_alike.png", pillow(np.stack([GRAY] * 3 + [RGBA[..., 3]], axis=-1)), GRAY),
            ("deep_rgb_alike.png", lambda path: save_opencv(path, np.stack([DEEP] * 3, axis=-1)), DEEP),
            ("gray.bmp", pillow(GRAY), GRAY),
            ("gray.tif", tiff(GRAY), GRAY),
            ("deep.tif", tiff(DEEP, compression="lzw"), DEEP),
            ("wide.tif", tiff(DEEP.astype(np.int32) * 7), DEEP.astype(np.int32) * 7),
            ("rgb_alike.tif", tiff(np.stack([DEEP] * 3, axis=-1), photometric="rgb"), DEEP),
        ],
    )  # fmt: skip
    def test_values_arrive_as_they_stand(
        self, tmp_path: Path, name: str, write: Callable[[Path], None], expected: np.ndarray
    ) -> None:
        write(tmp_path / name)
        mask = raster.read_mask(tmp_path / name)
        np.testing.assert_array_equal(mask, expected)
        assert mask.dtype == expected.dtype

    def test_the_black_plate_of_a_print_color_file_counts(self, tmp_path: Path) -> None:
        gray = np.repeat(np.array([[0, 255]], np.uint8), 8, axis=0).repeat(8, axis=1)
        Image.fromarray(gray).convert("CMYK").save(tmp_path / "mask.jpg", quality=100)
        np.testing.assert_allclose(raster.read_mask(tmp_path / "mask.jpg"), gray, atol=2)

    @pytest.mark.parametrize(
        ("name", "write"),
        [
            ("mask.png", pillow(RGB)),
            ("mask.bmp", pillow(RGB)),
            ("mask.tif", tiff(RGB, photometric="rgb")),
            # The two channels differ in the lower byte alone, which an 8-bit reading would not see.
            ("deep.png", lambda path: save_opencv(path, np.stack([DEEP & 0xFF00, DEEP | 1, DEEP], axis=-1))),
        ],
    )
    def test_colors_are_no_labels(self, tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
        write(tmp_path / name)
        with pytest.raises(MaskValueError, match=rf"{name} is a mask in colors, \(.*\) …; expected one value for each"):
            raster.read_mask(tmp_path / name)

    def test_the_colors_are_told(self, tmp_path: Path) -> None:
        pillow(COLOR_MASK)(tmp_path / "mask.png")
        with pytest.raises(MaskValueError) as caught:
            raster.read_mask(tmp_path / "mask.png")
        assert str(caught.value) == (
            f"{tmp_path / 'mask.png'} is a mask in colors, (0, 0, 0), (200, 100, 50); expected one value for each "
            "pixel. Say with labels.colors which label each color is."
        )


class TestReadMaskColors:
    @pytest.mark.parametrize(
        ("name", "write"),
        [
            ("rgb.png", pillow(COLOR_MASK)),
            ("rgb.bmp", pillow(COLOR_MASK)),
            ("rgb.tif", tiff(COLOR_MASK, photometric="rgb")),
            ("rgba.png", pillow(np.dstack([COLOR_MASK, RGBA[..., 3:]]))),
            ("palette.png", lambda path: save_palette(path, [0, 0, 0, 9, 9, 9, 200, 100, 50])),
            ("palette_alpha.png", lambda path: save_palette(path, [0, 0, 0, 9, 9, 9, 200, 100, 50], transparency=0)),
            ("palette.tif", lambda path: save_palette(path, [0, 0, 0, 9, 9, 9, 200, 100, 50])),
        ],
    )
    def test_colors_arrive_as_they_are_seen(self, tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
        write(tmp_path / name)
        np.testing.assert_array_equal(raster.read_mask_colors(tmp_path / name), COLOR_MASK.transpose(2, 0, 1))

    @pytest.mark.parametrize(
        ("name", "write", "gray"),
        [
            ("gray.png", pillow(INDEX * 100), INDEX * 100),
            ("bit.png", pillow(INDEX > 0), INDEX // 2 * 255),
            ("bit.tif", pillow(INDEX > 0), INDEX // 2 * 255),
            ("deep.png", pillow(DEEP), DEEP),
        ],
    )
    def test_gray_is_a_color(self, tmp_path: Path, name: str, write: Callable[[Path], None], gray: np.ndarray) -> None:
        write(tmp_path / name)
        np.testing.assert_array_equal(raster.read_mask_colors(tmp_path / name), np.stack([gray] * 3))

    def test_real_numbers_are_no_colors(self, tmp_path: Path) -> None:
        tiff(REAL)(tmp_path / "mask.tif")
        with pytest.raises(UnreadableFileError, match=r"values of the type float32; expected colors of 8 or 16 bits"):
            raster.read_mask_colors(tmp_path / "mask.tif")


class TestDamage:
    @pytest.mark.parametrize("read", [raster.read_image, raster.read_mask, raster.read_image_size])
    @pytest.mark.parametrize("name", ["gone.png", "gone.tif"])
    def test_a_missing_file_is_said_to_be_missing(self, tmp_path: Path, read: Callable[[Path], Any], name: str) -> None:
        with pytest.raises(MissingDataError) as caught:
            read(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name} does not exist."

    @pytest.mark.parametrize("read", [raster.read_image, raster.read_mask])
    @pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
    @pytest.mark.parametrize(
        "name",
        [
            "gray_8.png", "gray_16.png", "gray_alpha_8.png", "gray_alpha_16.png", "rgb_16.png", "rgba_8.png",
            "palette.png", "gray.bmp", "gray_8.tif", "gray_lzw.tif", "gray_deflate.tif", "gray_tiled.tif",
        ],
    )  # fmt: skip
    def test_a_file_cut_short_is_refused(
        self, tmp_path: Path, name: str, share: float, read: Callable[[Path], Any]
    ) -> None:
        path = tmp_path / name
        EXACT[name][0](path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UnreadableFileError) as caught:
            read(path)
        start = f"{path} ({int(share * len(whole))} bytes) cannot be decoded as an image: "
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith(". Replace it with an intact copy.")

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
    def test_a_jpeg_cut_short_is_not_filled_up(self, tmp_path: Path, share: float) -> None:
        path = tmp_path / "photo.jpg"
        Image.fromarray(RGB.repeat(8, axis=0).repeat(8, axis=1)).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UnreadableFileError, match="cannot be decoded as an image"):
            raster.read_image(path)

    @pytest.mark.parametrize("name", ["gray_8.png", "rgb_16.png", "rgba_8.png", "gray_deflate.tif"])
    def test_a_flipped_byte_is_noticed(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        EXACT[name][0](path)
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(UnreadableFileError, match="Replace it with an intact copy"):
            raster.read_image(path)

    @pytest.mark.parametrize("name", ["notes.png", "notes.jpg", "notes.tif", "notes.bmp"])
    def test_text_under_the_name_of_an_image_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("slice 12 was lost")
        for read in (raster.read_image, raster.read_mask, raster.read_image_size):
            with pytest.raises(UnreadableFileError, match=r"\(17 bytes\) cannot be decoded as an image"):
                read(tmp_path / name)

    def test_a_jpeg_named_tif_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(RGB).save(tmp_path / "photo.jpg")
        (tmp_path / "photo.jpg").rename(tmp_path / "photo.tif")
        with pytest.raises(UnreadableFileError, match="not a TIFF file"):
            raster.read_image(tmp_path / "photo.tif")

    @pytest.mark.parametrize("name", ["folder.png", "folder.tif"])
    def test_a_folder_is_no_image(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        with pytest.raises(MedsegError, match="cannot be decoded as an image"):
            raster.read_image(tmp_path / name)


class TestBombs:
    @pytest.mark.parametrize("read", [raster.read_image, raster.read_mask, raster.read_image_size])
    @pytest.mark.parametrize("name", ["gray_8.png", "rgb_16.png", "gray.bmp", "gray_8.tif", "rgb_8.tif"])
    def test_an_image_over_the_limit_is_not_decoded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, read: Callable[[Path], Any]
    ) -> None:
        EXACT[name][0](tmp_path / name)
        monkeypatch.setattr(size_limits, "MAX_PIXELS", 23 * 31 - 1)
        with pytest.raises(UnreadableFileError) as caught:
            read(tmp_path / name)
        assert str(caught.value) == (
            f"{tmp_path / name} claims more than 712 pixels and is not decoded. "
            "Divide it, or remove it from the data set."
        )

    @pytest.mark.parametrize("name", ["gray_8.png", "rgba_16.png", "gray_8.tif", "rgba_16.tif"])
    def test_an_image_at_the_limit_is_decoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        EXACT[name][0](tmp_path / name)
        monkeypatch.setattr(size_limits, "MAX_PIXELS", 23 * 31)
        assert raster.read_image(tmp_path / name).shape[1:] == SHAPE

    def test_a_small_file_that_claims_gigabytes_is_refused(self, tmp_path: Path) -> None:
        save_chunks(tmp_path / "bomb.png", np.zeros((4, 4), np.uint8), color_type=0, claimed=(60_000, 60_000))
        with pytest.raises(UnreadableFileError, match=r"bomb\.png claims more than [\d,]+ pixels and is not decoded"):
            raster.read_image(tmp_path / "bomb.png")

    def test_a_stream_may_go_on_behind_the_last_pixel(self, tmp_path: Path) -> None:
        rows = b"".join(b"\0" + row.tobytes() for row in GRAY)
        save_stream(tmp_path / "long.png", (*SHAPE, 0), zlib.compress(rows + bytes(1 << 20)))
        np.testing.assert_array_equal(raster.read_image(tmp_path / "long.png")[0], GRAY)

    def test_a_text_that_unpacks_to_gigabytes_is_refused(self, tmp_path: Path) -> None:
        EXACT["gray_8.png"][0](tmp_path / "bomb.png")
        whole = (tmp_path / "bomb.png").read_bytes()
        deflate = zlib.compressobj(9)
        text = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(200)) + deflate.flush()
        (tmp_path / "bomb.png").write_bytes(whole[:33] + framed(b"zTXt", b"note\0\0" + text) + whole[33:])
        with pytest.raises(UnreadableFileError, match="Decompressed data too large"):
            raster.read_image(tmp_path / "bomb.png")

    def test_one_limit_for_all_formats(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.fromarray(GRAY).save(tmp_path / "large.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own
        np.testing.assert_array_equal(raster.read_image(tmp_path / "large.png")[0], GRAY)
        assert Image.MAX_IMAGE_PIXELS == 100
        monkeypatch.setattr(size_limits, "MAX_PIXELS", 200)
        with pytest.raises(UnreadableFileError, match="claims more than 200 pixels and is not decoded"):
            raster.read_image(tmp_path / "large.png")


def test_only_the_named_formats_are_opened(tmp_path: Path) -> None:
    # Pillow would hand PostScript to an interpreter, whatever the file is called.
    (tmp_path / "image.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n")
    with pytest.raises(UnreadableFileError, match="cannot be decoded as an image"):
        raster.read_image(tmp_path / "image.png")
    Image.fromarray(GRAY).save(tmp_path / "image.ppm")
    (tmp_path / "image.ppm").rename(tmp_path / "ppm.png")
    with pytest.raises(UnreadableFileError, match="cannot be decoded as an image"):
        raster.read_image(tmp_path / "ppm.png")


class TestWritePng:
    @pytest.mark.parametrize("pixels", [GRAY, DEEP, RGB, DEEP_RGBA[..., :3]], ids=["gray", "deep", "rgb", "deep rgb"])
    def test_another_library_reads_the_same_pixels(self, tmp_path: Path, pixels: np.ndarray) -> None:
        raster.write_png(tmp_path / "image.png", pixels)
        stored = cv2.imread(str(tmp_path / "image.png"), cv2.IMREAD_UNCHANGED)
        assert stored is not None
        np.testing.assert_array_equal(stored[..., ::-1] if pixels.ndim == 3 else stored, pixels)
        assert stored.dtype == pixels.dtype

    def test_pixels_need_not_lie_in_one_piece(self, tmp_path: Path) -> None:
        raster.write_png(tmp_path / "image.png", DEEP[::2, ::-3])
        np.testing.assert_array_equal(raster.read_mask(tmp_path / "image.png"), DEEP[::2, ::-3])

    @pytest.mark.parametrize("dtype", [np.int32, np.float32, np.bool_])
    def test_other_types_are_refused(self, tmp_path: Path, dtype: type) -> None:
        with pytest.raises(TypeError, match="A PNG holds uint8 or uint16, not"):
            raster.write_png(tmp_path / "image.png", GRAY.astype(dtype))
        assert not list(tmp_path.iterdir())

    def test_an_existing_file_is_kept(self, tmp_path: Path) -> None:
        raster.write_png(tmp_path / "image.png", GRAY)
        with pytest.raises(OutputExistsError, match="exists already and is not overwritten"):
            raster.write_png(tmp_path / "image.png", GRAY * 0)
        np.testing.assert_array_equal(raster.read_mask(tmp_path / "image.png"), GRAY)


@pytest.mark.realdata
class TestRealData:
    @pytest.mark.parametrize(
        ("name", "shape", "dtype"),
        [
            ("png_sample-8gray", (1, 266, 278), np.uint8),
            ("png_sample-8grayalpha", (3, 266, 278), np.uint8),  # its gray is written as three channels
            ("png_sample-8rgb", (3, 256, 256), np.uint8),
            ("png_sample-8rgba", (3, 256, 256), np.uint8),
            ("png_sample-16gray", (1, 256, 256), np.uint16),
            ("png_sample-16rgb", (3, 256, 256), np.uint16),
            ("png_sample-16rgba", (3, 256, 256), np.uint16),
            ("tif_sample-8gray", (1, 256, 256), np.uint8),
            ("tif_sample-8rgb", (3, 256, 256), np.uint8),
            ("tif_sample-8rgba", (3, 256, 256), np.uint8),
            ("tif_sample-16gray", (1, 256, 256), np.uint16),
            ("tif_sample-16rgb", (3, 256, 256), np.uint16),
            ("tif_sample-16rgba", (3, 256, 256), np.uint16),
        ],
    )
    def test_image_formats(self, real_data: Path, name: str, shape: tuple[int, ...], dtype: type) -> None:
        path = real_data / "image_formats" / f"sub-{name}_SEM.{name[:3]}"
        image = raster.read_image(path)
        assert image.shape == shape
        assert image.dtype == dtype
        assert raster.read_image_size(path) == shape[1:]

    @pytest.mark.parametrize("kind", ["8rgb", "8rgba", "16gray", "16rgb", "16rgba"])
    def test_png_and_tiff_hold_the_same_micrograph(self, real_data: Path, kind: str) -> None:
        folder = real_data / "image_formats"
        first, second = (raster.read_image(folder / f"sub-{s}_sample-{kind}_SEM.{s}") for s in ("png", "tif"))
        np.testing.assert_array_equal(first, second)

    def test_vessel_masks_are_0_and_1(self, real_data: Path) -> None:
        paths = sorted((real_data / "chase_db1").glob("masks_*/*.png"))
        assert len(paths) == 56
        for path in paths:
            mask = raster.read_mask(path)
            assert mask.shape == (960, 999)
            assert np.unique(mask).tolist() == [0, 1]


def test_color_of_16_bits_is_turned_as_that_of_8_bits(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.uint16).reshape(2, 5, 3) * 257
    exif = Image.Exif()
    exif[0x0112] = 6
    tag = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(tag)) + b"eXIf" + tag + struct.pack(">I", zlib.crc32(b"eXIf" + tag))
    found = []
    for name, pixels in (("deep.png", values), ("flat.png", (values // 257).astype(np.uint8))):
        coded = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        (tmp_path / name).write_bytes(coded[:33] + chunk + coded[33:])  # behind the header
        found.append(raster.read_image(tmp_path / name))
    assert found[0].shape == (3, 5, 2)
    np.testing.assert_array_equal(found[0], found[1].astype(np.uint16) * 257)
