"""Compressed pixels against uncompressed ones, and files that lie about their size or end too early."""

from __future__ import annotations

import resource
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file

from medseg_pl.core.errors import MedsegError, UnreadableFileError
from medseg_pl.io.dicom import pixels
from medseg_pl.io.dicom.headers import read_dataset
from medseg_pl.io.dicom.pixels import read_codestream_size, read_frames
from tests.dicom_files import compress, edit, read_series, save_enhanced, save_series

RNG = np.random.default_rng(0)
STORED = RNG.integers(0, 3000, (3, 16, 24)).astype(np.int16)
SYNTAXES = [uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless]
NAMES = ["RLE", "JPEG lossless", "JPEG-LS", "JPEG 2000"]


def pydicoms(name: str) -> Path:
    """A file that comes with pydicom, written by other programs."""
    return Path(str(get_testdata_file(name, download=False)))


def frames_of(path: Path, wanted: list[int] | None = None) -> dict[int, np.ndarray]:
    return dict(read_frames(read_dataset(path, pixels=True), path, wanted))


class TestCompressed:
    @pytest.mark.parametrize("syntax", SYNTAXES, ids=NAMES)
    @pytest.mark.parametrize("lowest", [0, -1500], ids=["positive", "negative"])
    def test_no_value_changes(self, tmp_path: Path, syntax: str, lowest: int) -> None:
        paths = save_series(tmp_path, STORED + np.int16(lowest))
        for path in paths:
            compress(path, syntax)
            assert dcmread(path).file_meta.TransferSyntaxUID == syntax
        values, _ = read_series(paths)
        assert values.dtype == np.int16
        np.testing.assert_array_equal(values[0], STORED + lowest - 1024)

    @pytest.mark.parametrize("syntax", SYNTAXES, ids=NAMES)
    def test_many_frames_in_one_file(self, tmp_path: Path, syntax: str) -> None:
        path = compress(save_enhanced(tmp_path / "a.dcm", STORED, order=[2, 0, 1]), syntax)
        np.testing.assert_array_equal(read_series([path])[0][0], STORED - 1024)

    @pytest.mark.parametrize("syntax", SYNTAXES, ids=NAMES)
    def test_only_what_is_wanted_is_decoded(self, tmp_path: Path, syntax: str) -> None:
        path = compress(save_enhanced(tmp_path / "a.dcm", STORED), syntax)
        frames = frames_of(path, [0, 2])
        assert list(frames) == [0, 2]
        np.testing.assert_array_equal(frames[2], STORED[2])

    @pytest.mark.parametrize("bits", [8, 10, 12, 13, 15, 16])
    @pytest.mark.parametrize("signed", [False, True])
    def test_lossless_jpeg_of_any_depth(self, tmp_path: Path, bits: int, signed: bool) -> None:
        stored = RNG.integers(0, 1 << bits, (1, 16, 24)).astype(np.uint16)
        (path,) = save_series(
            tmp_path, stored, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(signed), RescaleIntercept=0
        )
        compress(path, uid.JPEGLossless, [imagecodecs.ljpeg_encode(stored[0], bitspersample=bits)])
        expected = stored[0].astype(np.int64)
        expected -= (expected >> (bits - 1) << bits) * signed
        np.testing.assert_array_equal(frames_of(path)[0], expected)

    @pytest.mark.parametrize(
        "name",
        [
            "MR_small_RLE.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
            "MR_small_bigendian.dcm",
            "MR_small_implicit.dcm",
        ],
    )
    def test_files_of_other_programs(self, name: str) -> None:
        values, geometry = read_series([pydicoms(name)])
        expected, same = read_series([pydicoms("MR_small.dcm")])
        np.testing.assert_array_equal(values, expected)
        assert geometry == same
        np.testing.assert_array_equal(expected[0, 0], dcmread(pydicoms("MR_small.dcm")).pixel_array)

    def test_a_sign_that_jpeg_2000_does_not_know_of(self) -> None:
        """The header says 13 bits with a sign, the codestream 13 bits without."""
        values, _ = read_series([pydicoms("J2K_pixelrep_mismatch.dcm")])
        assert values[0, 0, 0, 0] == -2000  # outside the circle that was scanned
        assert values.max() == 1896  # as GDCM decodes it

    def test_jpeg_of_twelve_bits(self) -> None:
        (frame,) = frames_of(pydicoms("JPGExtended.dcm")).values()
        assert frame.shape == (1024, 256)
        assert frame[420, 140] == 244  # as GDCM decodes it

    def test_signed_single_frame_with_fragments_and_padding(self) -> None:
        values, _ = read_series([pydicoms("693_J2KI.dcm")])
        assert values.shape == (1, 1, 512, 512)


class TestBits:
    def test_frames_of_bits_need_not_begin_on_a_byte(self, tmp_path: Path) -> None:
        """3 frames of 5 x 7 pixels: 105 bits, the second frame begins in the middle of the fifth byte."""
        bits = RNG.integers(0, 2, (3, 5, 7)).astype(np.uint8)
        path = save_enhanced(tmp_path / "a.dcm", bits)
        packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
        edit(path, BitsAllocated=1, BitsStored=1, HighBit=0, PixelRepresentation=0, PixelData=packed)
        for wanted in ([0, 1, 2], [1], [2, 0]):
            frames = frames_of(path, wanted)
            assert list(frames) == wanted
            for number in wanted:
                np.testing.assert_array_equal(frames[number], bits[number])


class TestRefused:
    def test_no_pixels(self, tmp_path: Path) -> None:
        (path,) = save_series(tmp_path, STORED[:1], PixelData=None)
        with pytest.raises(UnreadableFileError) as error:
            read_series([path])
        assert str(error.value) == (
            f"{path} has no pixel data: it is cut off, or was exported without. Replace it with a complete copy."
        )

    def test_fewer_pixels_than_promised(self, tmp_path: Path) -> None:
        (path,) = save_series(tmp_path, STORED[:1], PixelData=bytes(100))
        with pytest.raises(UnreadableFileError) as error:
            read_series([path])
        assert str(error.value) == (
            f"{path} holds 100 bytes of pixel data; expected 768 for 1 image of 16 x 24 pixels. It is cut off: "
            "replace it with a complete copy."
        )

    @pytest.mark.filterwarnings("ignore:.*(Unexpected end of file|End of file)")  # pydicom says so too
    @pytest.mark.parametrize("syntax", [None, *SYNTAXES], ids=["plain", *NAMES])
    def test_a_file_that_is_cut_off_anywhere(self, tmp_path: Path, syntax: str | None) -> None:
        (path,) = save_series(tmp_path, STORED[:1])
        whole = (compress(path, syntax) if syntax else path).read_bytes()
        for length in [*range(0, len(whole) - 30, 37), len(whole) - 30]:
            path.write_bytes(whole[:length])
            with pytest.raises(UnreadableFileError, match=r"IM001\.dcm"):
                read_series([path])

    def test_fewer_frames_than_promised(self, tmp_path: Path) -> None:
        path = save_enhanced(tmp_path / "a.dcm", STORED)
        encoded = [imagecodecs.jpegls_encode(frame.view(np.uint16)) for frame in STORED[:2]]
        compress(path, uid.JPEGLSLossless, encoded)
        with pytest.raises(UnreadableFileError, match=r"a\.dcm"):
            read_series([path])

    @pytest.mark.parametrize(("rows", "columns", "frames"), [(60000, 60000, 1000), (60000, 60000, 1), (9000, 9000, 99)])
    @pytest.mark.parametrize("syntax", [None, *SYNTAXES], ids=["plain", *NAMES])
    def test_a_bomb_is_not_decoded(
        self, tmp_path: Path, syntax: str | None, rows: int, columns: int, frames: int
    ) -> None:
        (path,) = save_series(tmp_path, STORED[:1])
        if syntax:
            compress(path, syntax)
        edit(path, Rows=rows, Columns=columns, NumberOfFrames=frames)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(UnreadableFileError, match=r"claims more than 4[0,]*00,000,000 (pixels|voxels) and"):
            read_series([path])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB

    def test_a_codestream_larger_than_the_header_is_not_decoded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (path,) = save_series(tmp_path, STORED[:1])
        for syntax, encoded in (
            (uid.JPEG2000Lossless, imagecodecs.jpeg2k_encode(np.zeros((900, 800), np.uint16), level=0)),
            (uid.JPEGLSLossless, imagecodecs.jpegls_encode(np.zeros((900, 800), np.uint16))),
            (uid.JPEGLosslessSV1, imagecodecs.ljpeg_encode(np.zeros((900, 800), np.uint16), bitspersample=16)),
        ):
            compress(path, syntax, [encoded])
            monkeypatch.setitem(pixels._DECODERS, syntax, lambda frame: pytest.fail("decoded"))
            with pytest.raises(UnreadableFileError) as error:
                read_series([path])
            assert str(error.value) == (
                f"{path} holds an image of the shape (900, 800), but its header says (16, 24) (rows, columns). Replace "
                "it with an intact copy."
            )

    def test_a_compression_without_a_decoder(self, tmp_path: Path) -> None:
        (path,) = save_series(tmp_path, STORED[:1])
        compress(path, uid.MPEG2MPML, [b"\0" * 100])
        with pytest.raises(UnreadableFileError) as error:
            read_series([path])
        assert str(error.value) == (
            f"{path} is stored as MPEG2 Main Profile / Main Level, for which there is no decoder. Convert it, for "
            "example with gdcmconv --raw."
        )

    def test_a_build_without_the_decoder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (path,) = save_series(tmp_path, STORED[:1])
        compress(path, uid.JPEG2000Lossless)

        def missing(frame: bytes) -> Any:
            raise ImportError("could not import name 'jpeg2k_decode' from imagecodecs")

        monkeypatch.setitem(pixels._DECODERS, uid.JPEG2000Lossless, missing)
        with pytest.raises(UnreadableFileError) as error:
            read_series([path])
        assert str(error.value) == (
            f"{path} is compressed, and this build of imagecodecs lacks the decoder (could not import name "
            "'jpeg2k_decode' from imagecodecs). Install imagecodecs from PyPI, or convert the file, for example with "
            "gdcmconv --raw."
        )

    @pytest.mark.filterwarnings("ignore")  # pydicom may say what is wrong with random bytes
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seed=st.integers(0, 2**20), syntax=st.sampled_from([None, *SYNTAXES]))
    def test_damaged_bytes_are_never_more_than_an_error(self, tmp_path: Path, seed: int, syntax: str | None) -> None:
        rng = np.random.default_rng(seed)
        (path,) = save_series(tmp_path, STORED[:1])
        content = bytearray((compress(path, syntax) if syntax else path).read_bytes())
        for place in rng.integers(132, len(content), rng.integers(1, 12)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            values, geometry = read_series([path])
        except MedsegError:
            return
        assert values.shape[1:] == geometry.shape


class TestCodestreamSize:
    @pytest.mark.parametrize("shape", [(3, 5), (700, 300)])
    def test_it_is_what_the_encoder_was_given(self, shape: tuple[int, int]) -> None:
        image = RNG.integers(0, 250, shape).astype(np.uint16)
        for encoded in (
            imagecodecs.ljpeg_encode(image, bitspersample=12),
            imagecodecs.jpeg8_encode(image.astype(np.uint8)),
            imagecodecs.jpegls_encode(image),
            imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"),
            imagecodecs.jpeg2k_encode(image, level=0, codecformat="jp2"),
        ):
            assert read_codestream_size(encoded) == shape

    def test_a_thumbnail_in_the_header_is_not_the_image(self) -> None:
        """An application segment is skipped as a whole."""
        thumbnail = bytes.fromhex("ffc3 000b 10 0001 0001 01 0000 00")
        segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
        image = imagecodecs.ljpeg_encode(np.zeros((30, 40), np.uint16), bitspersample=16)
        assert read_codestream_size(image[:2] + segment + image[2:]) == (30, 40)

    @pytest.mark.parametrize("frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda" + bytes(20), bytes(40)])
    def test_bytes_that_do_not_say(self, frame: bytes) -> None:
        assert read_codestream_size(frame) is None
