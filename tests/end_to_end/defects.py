"""One fault of each kind, planted into an otherwise clean data set.

Every function takes the folder of a clean set and spoils it. `DEFECTS` says which set it needs, which code must be
found, and which others cannot be told from it or follow from it.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import nibabel
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from scipy import ndimage

from tests.dicom_files import edit
from tests.end_to_end.clean_sets import (
    NAMED,
    NAMES,
    picture,
    read_rows,
    volume,
    write_dicom,
    write_folder,
    write_labels_apart,
    write_manifest,
    write_rows,
    write_scans,
    write_volumes,
)
from tests.sample_files import save_raster, save_volume

Plant = Callable[[Path], object]
VICTIM = 3
SLOPE_AND_INTERCEPT = 112  # where a NIfTI header has them
NAME = NAMES[VICTIM]


class Defect(NamedTuple):
    """A fault.

    Attributes:
        kind: What it is called.
        code: What must be found.
        write: Writes the clean set.
        plant: Spoils it.
        options: Of the command; those of the clean set by default.
        also: Other codes that are found with it, each for a reason.
    """

    kind: str
    code: str
    write: Plant
    plant: Plant
    options: tuple[str, ...] | None = None
    also: frozenset[str] = frozenset()


def image_of(root: Path) -> Path:
    return root / "images" / f"{NAME}.png"


def mask_of(root: Path) -> Path:
    return root / "masks" / f"{NAME}.png"


def spoil_mask(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Plant:
    """Replace a mask by what `change` makes of its values."""
    return lambda root: save_raster(mask_of(root), change(np.asarray(Image.open(mask_of(root)))))


def spoil_image(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Plant:
    """Replace an image by what `change` makes of its pixels."""
    return lambda root: save_raster(image_of(root), change(np.asarray(Image.open(image_of(root)))))


def spoil_all(folder: str, change: Callable[[NDArray[Any], int], NDArray[Any]]) -> Plant:
    """Replace all images, or all masks; `change` is told which one it is given."""

    def plant(root: Path) -> None:
        for number, name in enumerate(NAMES):
            path = root / folder / f"{name}.png"
            save_raster(path, change(np.asarray(Image.open(path)), number))

    return plant


def spoil_volume(
    change: Callable[[NDArray[Any]], NDArray[Any]] = np.copy,
    folder: str = "imagesTr",
    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 3.0),
    moved: NDArray[Any] | None = None,
) -> Plant:
    """Replace one volume, or its mask, and say where it lies."""

    def plant(root: Path) -> None:
        voxels = volume(VICTIM)[folder == "labelsTr"]
        save_volume(root / folder / f"{NAME}.nii.gz", change(voxels), spacing_mm, moved)

    return plant


def place_both(spacing_mm: tuple[float, float, float], moved: NDArray[Any] | None = None) -> Plant:
    """Say of an image and its mask alike where they lie."""

    def plant(root: Path) -> None:
        spoil_volume(np.copy, "imagesTr", spacing_mm, moved)(root)
        spoil_volume(np.copy, "labelsTr", spacing_mm, moved)(root)

    return plant


def truncate(path: Path, kept: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])


def truncated_jpeg(root: Path) -> None:
    image_of(root).unlink()
    Image.fromarray(picture(VICTIM)[0]).save(root / "images" / f"{NAME}.jpg", quality=97)
    truncate(root / "images" / f"{NAME}.jpg")


def truncated_tiff(root: Path) -> None:
    image_of(root).unlink()
    tifffile.imwrite(root / "images" / f"{NAME}.tif", picture(VICTIM)[0], photometric="minisblack")
    truncate(root / "images" / f"{NAME}.tif", 0.9)


def jpeg_called_png(root: Path) -> None:
    Image.fromarray(picture(VICTIM)[0]).save(image_of(root), format="JPEG", quality=97)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def huge_volume(root: Path) -> None:
    """A header that claims terabytes."""
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header.set_data_shape((30000, 30000, 30000))
    path = root / "imagesTr" / f"{NAME}.nii.gz"
    path.write_bytes(gzip.compress(image.header.binaryblock + bytes(4)))


def jpeg_mask_as_png(mask: NDArray[Any]) -> NDArray[Any]:
    """Compressed as JPEG once, then stored as PNG."""
    coded = cv2.imencode(".jpg", (mask == 1).astype(np.uint8) * 255, [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    decoded: NDArray[Any] = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    return decoded


def jpeg_masks(root: Path) -> None:
    for name in NAMES:
        path = root / "masks" / f"{name}.png"
        mask = np.asarray(Image.open(path))
        path.unlink()
        Image.fromarray((mask > 0).astype(np.uint8) * 255).save(path.with_suffix(".jpg"), quality=75)


def palette_mask(root: Path) -> None:
    """Indices 5 and 9 of a palette, whose colors somebody saw as the labels."""
    mask = np.array([0, 5, 9], np.uint8)[picture(VICTIM)[1]]
    image = Image.fromarray(mask, mode=None).convert("P")
    image.putpalette([0, 0, 0] * 5 + [255, 0, 0] * 4 + [0, 255, 0] * 247)
    image.save(mask_of(root))


def palette_of_labels(root: Path) -> None:
    image = Image.fromarray(picture(VICTIM)[1]).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(mask_of(root))


def smoothed(mask: NDArray[Any]) -> NDArray[Any]:
    """As a drawing program fills a shape: with a soft edge."""
    large = np.kron((mask == 1) * 255.0, np.ones((4, 4)))
    blurred = ndimage.uniform_filter(large, 8)[2::4, 2::4]
    return np.round(blurred).astype(np.uint8)


def with_speck(mask: NDArray[Any]) -> NDArray[Any]:
    spoilt = mask.copy()
    spoilt[2, 2:4] = 1
    return spoilt


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def turned_by_exif(root: Path) -> None:
    """A photograph that is to be seen on its side, and a mask that was drawn on the stored pixels."""
    Image.fromarray(picture(VICTIM)[0]).save(image_of(root), exif=exif(6))


def turned_with_fitting_mask(root: Path) -> None:
    """Stored on its side, with a mask that was drawn upright."""
    Image.fromarray(np.ascontiguousarray(np.rot90(picture(VICTIM)[0]))).save(image_of(root), exif=exif(6))


def pages(root: Path) -> None:
    image_of(root).unlink()
    with tifffile.TiffWriter(root / "images" / f"{NAME}.tif") as file:
        file.write(picture(VICTIM)[0], photometric="minisblack")
        file.write(picture(99)[0][:20], photometric="minisblack")


def with_alpha(root: Path) -> None:
    gray = picture(VICTIM)[0]
    alpha = np.full_like(gray, 255)
    alpha[:20] = 10
    Image.fromarray(np.stack([gray, alpha], axis=-1)).save(image_of(root))


def with_opaque_alpha(root: Path) -> None:
    gray = picture(VICTIM)[0]
    Image.fromarray(np.stack([gray, np.full_like(gray, 255)], axis=-1)).save(image_of(root))


def deep(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Plant:
    """All images in 16 bits, one of them spoilt."""

    def deepen(image: NDArray[Any], number: int) -> NDArray[Any]:
        deep = image.astype(np.uint16) * 40
        return change(deep) if number == VICTIM else deep

    return spoil_all("images", deepen)


def another_size(root: Path) -> None:
    image, mask = picture(VICTIM, (240, 280))
    save_raster(image_of(root), image)
    save_raster(mask_of(root), mask)


def copied_case(root: Path) -> None:
    for folder in ("images", "masks"):
        shutil.copy(root / folder / f"{NAMES[0]}.png", root / folder / f"{NAME}.png")


def nearly_copied_case(root: Path) -> None:
    """Recompressed and a little brighter, the mask being the same."""
    image, mask = picture(0)
    coded = cv2.imencode(".jpg", cv2.convertScaleAbs(image, alpha=1.05), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    save_raster(image_of(root), cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))
    save_raster(mask_of(root), mask)


def same_patient_twice(root: Path) -> None:
    for folder in ("images", "masks"):
        shutil.copy(root / folder / f"{NAME}.png", root / folder / f"{NAME[:2]}_b.png")


def moved_mask(root: Path) -> None:
    save_raster(mask_of(root), np.roll(picture(VICTIM)[1], (5, -6), axis=(0, 1)))


def scaled_mask(change: Callable[[NDArray[Any]], NDArray[Any]], slope: float, intercept: float) -> Plant:
    """A mask whose header scales what `change` makes of its values."""

    def plant(root: Path) -> None:
        path = root / "labelsTr" / f"{NAME}.nii.gz"
        stored = change(volume(VICTIM)[1]).astype(np.int16)
        raw = bytearray(nibabel.Nifti1Image(stored, nibabel.load(path).affine).to_bytes())
        struct.pack_into("<ff", raw, SLOPE_AND_INTERCEPT, slope, intercept)
        path.write_bytes(gzip.compress(bytes(raw)))

    return plant


def mirrored_affine() -> NDArray[Any]:
    """The first axis of the file runs the other way, out of the image."""
    return np.diag([-1.0, 1, 1, 1])


def turned_affine() -> NDArray[Any]:
    """The axes of the file point elsewhere, with the same spacing."""
    spacing = np.diag([0.8, 0.8, 3.0, 1.0])
    return np.linalg.inv(spacing) @ np.eye(4)[[1, 2, 0, 3]] @ spacing


def shifted_affine() -> NDArray[Any]:
    matrix = np.eye(4)
    matrix[:3, 3] = (3.0, -2.0, 0.0)
    return matrix


def with_nan(voxels: NDArray[Any]) -> NDArray[Any]:
    spoilt = voxels.astype(np.float32)
    spoilt[:4, :4] = np.nan
    spoilt[-1, -1] = -np.inf
    return spoilt


def stored_values(modality: str) -> Plant:
    """Hounsfield units in all cases but one, which has what its scanner stored."""

    def plant(root: Path) -> None:
        path = root / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "modality": {"0": modality}}))
        for seed, name in enumerate(NAMES):
            voxels = volume(seed)[0].copy()
            voxels[:, :3] = 20  # air
            voxels = voxels - (0 if seed == VICTIM else 1024)
            save_volume(root / "imagesTr" / f"{name}.nii.gz", voxels.astype(np.int16), (0.8, 0.8, 3.0))

    return plant


def edit_rows(change: Callable[[list[dict[str, str]]], Any]) -> Plant:
    """Change the rows of the manifest."""

    def plant(root: Path) -> None:
        rows = read_rows(root)
        change(rows)
        write_rows(root, rows)

    return plant


def overlapping_masks(root: Path) -> None:
    """Two labels of a task that excludes it share voxels."""
    save_raster(root / "organ" / f"{NAME}.png", (picture(VICTIM)[1] > 0).astype(np.uint8) * 255)


DICOM_NAME = NAMES[1]
"""There are three series only."""


def dicom_files(root: Path) -> list[Path]:
    """In the order of their slices, which is not that of their names."""
    return sorted((root / DICOM_NAME / "ct").iterdir(), reverse=True)


def stored_inverted(path: Path) -> Path:
    """Small values are bright, and the header says so."""
    stored = -1 - dcmread(path).pixel_array
    return edit(path, PhotometricInterpretation="MONOCHROME1", PixelData=stored.tobytes())


def another_pair(name: str) -> Plant:
    """One more case."""

    def plant(root: Path) -> None:
        for folder, pixels in zip(("images", "masks"), picture(77), strict=True):
            save_raster(root / folder / f"{name}.png", pixels)

    return plant


def link(target: str) -> Plant:
    """An image that is a link; it is copied to where the link leads, if that is outside."""

    def plant(root: Path) -> None:
        path = image_of(root)
        content = path.read_bytes()
        path.unlink()
        path.symlink_to(root.parent / target)
        if target == "outside.png":
            (root.parent / target).write_bytes(content)

    return plant


def without(*values: int) -> Callable[..., NDArray[Any]]:
    """Masks without some labels, in all cases, or in all but one."""
    return lambda mask, number=0: np.where(np.isin(mask, values), 0, mask).astype(np.uint8)


def only_in_one(value: int) -> Callable[[NDArray[Any], int], NDArray[Any]]:
    return lambda mask, number: mask if number == VICTIM else without(value)(mask)


FILES = [
    Defect("zero bytes", "empty-file", write_folder, lambda root: image_of(root).write_bytes(b"")),
    Defect("truncated PNG", "truncated-png", write_folder, lambda root: truncate(image_of(root))),
    Defect("truncated JPEG", "truncated-jpeg", write_folder, truncated_jpeg),
    Defect("truncated gzip", "truncated-gzip", write_volumes, lambda r: truncate(r / "imagesTr" / f"{NAME}.nii.gz")),
    Defect("truncated TIFF", "truncated-file", write_folder, truncated_tiff),
    Defect("wrong extension", "wrong-extension", write_folder, jpeg_called_png),
    Defect(
        "failed download", "foreign-content", write_folder, lambda r: image_of(r).write_text("<p>Please log in.</p>")
    ),
    Defect(
        "decompression bomb",
        "decompression-bomb",
        write_folder,
        lambda root: image_of(root).write_bytes(png(60000, 60000, zlib.compress(bytes(1000)))),
    ),
    Defect("volume that claims terabytes", "decompression-bomb", write_volumes, huge_volume),
    Defect(
        "unreadable", "unreadable-file", write_folder, lambda r: image_of(r).write_bytes(png(56, 48, b"no deflate"))
    ),
    Defect("several pages", "multi-page-tiff", write_folder, pages),
    Defect("link to nothing", "broken-link", write_folder, link("nowhere.png"), also=frozenset({"missing-image"})),
    Defect("link out of the data", "link-outside", write_folder, link("outside.png")),
    Defect(
        "another format",
        "unread-file",
        write_folder,
        lambda r: (r / "images" / "x.npy").write_bytes(b"\x93NUMPY\x01\x00"),
    ),
    Defect("a text", "ignored-file", write_folder, lambda r: (r / "images" / "notes.txt").write_text("todo")),
]

PAIRS = [
    Defect("missing mask", "missing-mask", write_folder, lambda root: mask_of(root).unlink()),
    Defect("missing image", "missing-image", write_folder, lambda root: image_of(root).unlink()),
    Defect(
        "duplicate stem",
        "duplicate-name",
        write_folder,
        lambda root: save_raster(root / "images" / f"{NAME}.bmp", picture(VICTIM)[0]),
    ),
    Defect("names that differ by case", "names-differ-by-case", write_folder, another_pair(NAME.upper())),
    Defect(
        "pair that differs by case",
        "pair-differs-by-case",
        write_folder,
        lambda root: mask_of(root).rename(root / "masks" / f"{NAME.upper()}.png"),
    ),
    Defect("unknown patient", "group-unknown", write_folder, another_pair("x"), (*NAMED, "--group", "^(p[0-9])_")),
    Defect(
        "row without file",
        "listed-file-missing",
        write_manifest,
        edit_rows(lambda rows: rows[VICTIM].update(image="images/nowhere.png")),
    ),
    Defect(
        "path outside the root",
        "listed-path-outside",
        write_manifest,
        edit_rows(lambda rows: rows[VICTIM].update(image="../../secret.png")),
    ),
    Defect(
        "row that cannot be used",
        "listing-invalid",
        write_manifest,
        edit_rows(lambda rows: rows[VICTIM].update(group="")),
    ),
    Defect(
        "image that no list names",
        "unlisted-file",
        write_volumes,
        lambda root: save_volume(root / "imagesTr" / "extra.nii.gz", volume(77)[0]),
    ),
    Defect(
        "no case",
        "no-cases",
        write_folder,
        lambda root: [path.unlink() for path in root.rglob("*.png")],
        (*NAMED, "--masks", "masks"),
    ),
]

MASKS = [
    Defect(
        "0/255 where ids are expected",
        "mask-0-255",
        write_folder,
        spoil_mask(lambda mask: (mask > 0).astype(np.uint8) * 255),
    ),
    Defect("JPEG artifacts in a PNG", "mask-jpeg-artifacts", write_folder, spoil_mask(jpeg_mask_as_png)),
    Defect(
        "JPEG masks throughout",
        "mask-jpeg-artifacts",
        write_folder,
        jpeg_masks,
        ("--labels", "organ", "--tolerance", "0"),
    ),
    Defect("palette", "mask-palette", write_folder, palette_mask),
    Defect("palette of labels", "mask-palette-indices", write_folder, palette_of_labels),
    Defect(
        "RGB colors",
        "mask-colors",
        write_folder,
        spoil_mask(lambda mask: np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[mask]),
    ),
    Defect("anti-aliased", "mask-antialiased", write_folder, spoil_mask(smoothed)),
    Defect(
        "id out of range",
        "mask-unknown-value",
        write_folder,
        spoil_mask(lambda mask: np.where(mask == 2, 7, mask).astype(np.uint8)),
    ),
    Defect("float with slope", "mask-not-integer", write_volumes, scaled_mask(np.copy, 0.5, 0.0)),
    Defect("header that scales", "mask-scaled", write_volumes, scaled_mask(lambda mask: mask + 1.0, 1.0, -1.0)),
    Defect(
        "NaN in a mask",
        "mask-not-finite",
        write_volumes,
        spoil_volume(lambda mask: np.where(mask == 2, np.nan, mask).astype(np.float32), "labelsTr"),
    ),
    Defect(
        "image in place of the mask", "mask-is-picture", write_folder, lambda r: shutil.copy(image_of(r), mask_of(r))
    ),
    Defect(
        "all empty", "masks-all-empty", write_folder, spoil_all("masks", without(1, 2)), also=frozenset({"mask-empty"})
    ),
    Defect("one mask is empty", "mask-empty", write_folder, spoil_mask(without(1, 2))),
    Defect("one label never present", "label-never-present", write_folder, spoil_all("masks", without(2))),
    Defect("label in one case only", "label-in-one-case", write_folder, spoil_all("masks", only_in_one(2))),
    Defect("specks", "mask-specks", write_folder, spoil_mask(with_speck)),
    Defect("no background", "mask-full", write_folder, spoil_mask(np.ones_like)),
    Defect(
        "ignore value unknown",
        "ignore-value-unset",
        write_folder,
        spoil_mask(lambda mask: np.where(ndimage.binary_dilation(mask) & (mask == 0), 255, mask).astype(np.uint8)),
    ),
    Defect("ignore value nowhere", "ignore-value-absent", write_folder, id, (*NAMED, "--ignore_value", "255")),
]

GEOMETRY = [
    Defect("shape mismatch", "shape-mismatch", write_folder, spoil_mask(lambda mask: mask[:-1])),
    Defect("EXIF on one side", "exif-one-side", write_folder, turned_by_exif),
    Defect("EXIF that fits", "exif-applied", write_folder, turned_with_fitting_mask),
    Defect(
        "affine mismatch", "affine-mismatch", write_volumes, spoil_volume(folder="labelsTr", moved=shifted_affine())
    ),
    Defect(
        "orientation mismatch",
        "orientation-mismatch",
        write_volumes,
        spoil_volume(folder="labelsTr", moved=mirrored_affine()),
    ),
    Defect(
        "spacing mismatch", "spacing-mismatch", write_volumes, spoil_volume(folder="labelsTr", spacing_mm=(1, 1, 3))
    ),
    Defect(
        "spacing in meters",
        "implausible-spacing",
        write_volumes,
        place_both((0.0008, 0.0008, 0.003)),
        also=frozenset({"spacing-outlier"}),
    ),
    Defect("spacing in tenths", "spacing-outlier", write_volumes, place_both((8, 8, 30))),
    Defect(
        "axes in another order",
        "orientations-differ",
        write_volumes,
        place_both((0.8, 0.8, 3.0), turned_affine()),
    ),
    Defect(
        "slice missing",
        "slice-gap",
        write_scans,
        lambda r: next(r.rglob(f"case{VICTIM}_day1/scans/slice_0004*")).unlink(),
    ),
    Defect("DICOM slice missing", "slice-gap", write_dicom, lambda root: dicom_files(root)[3].unlink()),
    Defect("mixed series", "mixed-series", write_dicom, lambda r: edit(dicom_files(r)[3], SeriesInstanceUID="1.2.3")),
    Defect(
        "doubled slice",
        "slices-doubled",
        write_dicom,
        lambda r: shutil.copy(dicom_files(r)[3], r / DICOM_NAME / "ct" / "copy.dcm"),
    ),
    Defect(
        "slice of another spacing",
        "slices-differ",
        write_dicom,
        lambda root: edit(dicom_files(root)[3], PixelSpacing=[9.0, 9.0]),
    ),
    Defect("smaller than the patch", "smaller-than-patch", write_folder, id, (*NAMED, "--patch", "96", "96")),
    Defect("wildly different size", "size-outlier", write_folder, another_size),
    Defect("mask that is moved", "image-mask-shift", write_folder, moved_mask),
]

INTENSITIES = [
    Defect(
        "NaN and infinity", "not-finite", write_volumes, spoil_volume(with_nan), also=frozenset({"data-types-differ"})
    ),
    Defect(
        "nothing but NaN",
        "no-finite-value",
        write_volumes,
        spoil_volume(lambda voxels: np.full(voxels.shape, np.nan, np.float32)),
        also=frozenset({"data-types-differ"}),
    ),
    Defect("constant image", "constant-image", write_folder, spoil_image(lambda image: np.full_like(image, 7))),
    Defect("16 bits cut off", "clipped", write_folder, deep(lambda image: image.clip(0, 4095))),
    Defect("CT among CTs without rescale", "ct-not-rescaled", write_volumes, stored_values("unknown")),
    Defect("declared CT without rescale", "ct-not-rescaled", write_volumes, stored_values("CT")),
    Defect("inverted (MONOCHROME1)", "inverted-image", write_folder, spoil_image(lambda image: 255 - image)),
    Defect(
        "MONOCHROME1 in DICOM",
        "monochrome1",
        write_dicom,
        lambda root: [stored_inverted(path) for path in dicom_files(root)],
    ),
    Defect(
        "channel count differs",
        "channels-differ",
        write_folder,
        spoil_image(lambda image: np.stack([image, image // 2, image], axis=-1)),
    ),
    Defect("alpha channel", "alpha-channel", write_folder, with_alpha),
    Defect("opaque alpha channel", "alpha-opaque", write_folder, with_opaque_alpha),
    Defect("outlier intensities", "intensity-outlier", write_folder, deep(lambda image: image // 20)),
    Defect("16 bits beside 8", "data-types-differ", write_folder, spoil_image(lambda image: image.astype(np.uint16))),
]

WHOLE = [
    Defect("exact duplicate", "exact-duplicate", write_folder, copied_case),
    Defect("repeated image", "repeated-image", write_folder, same_patient_twice, (*NAMED, "--group", "^(p[0-9])_")),
    Defect("near-duplicate", "near-duplicate", write_folder, nearly_copied_case),
    Defect(
        "patient on both sides",
        "patient-on-both-sides",
        write_manifest,
        edit_rows(lambda rows: rows[-1].update(group=rows[0]["group"])),
    ),
    Defect(
        "empty side", "empty-side", write_manifest, edit_rows(lambda rows: [row.update(split="train") for row in rows])
    ),
    Defect(
        "split of some cases only", "split-invalid", write_manifest, edit_rows(lambda rows: rows[-1].update(split=""))
    ),
    Defect(
        "label missing from training",
        "label-missing-from-training",
        write_manifest,
        spoil_all("masks", lambda mask, number: mask if number >= 6 else without(2)(mask)),
    ),
    Defect("labels that overlap", "mask-overlap", write_labels_apart, overlapping_masks),
]

DEFECTS = [*FILES, *PAIRS, *MASKS, *GEOMETRY, *INTENSITIES, *WHOLE]
