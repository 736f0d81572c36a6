"""Pictures and NIfTI volumes, read and written beside an exported model: Pillow or nibabel is all that it takes."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import MedsegError
from medseg_pl.core.geometry import Geometry, Reorientation, Slicing, find_slicing, to_affine

Array = NDArray[Any]

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUMES = (".nii", ".nii.gz")
_DAMAGE = (ArithmeticError, EOFError, LookupError, TypeError, ValueError, zlib.error)


class RefusedError(MedsegError):
    """A file, a folder or an image cannot be used.

    It says what was expected, what came instead, and what to do.
    """


def is_volume(path: Path) -> bool:
    """Tell whether the name is that of a NIfTI file."""
    return path.name.lower().endswith(VOLUMES)


def list_images(folder: Path) -> list[Path]:
    """List the files of a folder that are images by their names.

    Hidden files are none, nor is anything in folders within it.

    Raises:
        RefusedError: There is no image.
    """
    visible = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if images := [path for path in visible if path.suffix.lower() in PICTURES or is_volume(path)]:
        return images
    raise RefusedError(f"{folder} holds no image. Name a folder with files of {', '.join((*PICTURES, *VOLUMES))}.")


def read_image(path: Path, slicing: Slicing, orientation: str | None = None) -> tuple[Array, Geometry]:
    """Read `(C, D, H, W)` raw values and their grid.

    Args:
        path: A picture or a volume.
        slicing: Across which axis volumes are cut.
        orientation: Axis codes of the training slices, see `find_slicing`.

    Raises:
        RefusedError: The file is damaged, or of a kind that is not read without loss.
    """
    if is_volume(path):
        image, geometry = read_volume(path)
        turn = find_slicing(geometry, slicing, str(path), orientation)
        return turn.apply(image), geometry.reorient(turn)
    if path.suffix.lower() not in PICTURES:
        raise RefusedError(f"it is of no format that is read; expected one of {', '.join((*PICTURES, *VOLUMES))}")
    pixels = read_picture(path)[:, None]
    return pixels, Geometry((1, pixels.shape[2], pixels.shape[3]))


def read_picture(path: Path) -> Array:
    """Read `(C, H, W)` upright, with no value changed.

    Raises:
        RefusedError: It is too large, holds several images, or cannot be read without loss.
    """
    from PIL import Image, ImageOps

    try:
        opened = Image.open(path, formats=("PNG", "JPEG", "BMP", "TIFF"))
    except Image.DecompressionBombError as error:
        raise RefusedError(f"it is too large: {error}") from error
    with opened as image:
        _check_depth(image, path)
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in ("L", "I;16", "I;16B", "I", "F", "RGB"):
            color = upright.mode not in ("1", "LA", "La")
            if upright.mode == "P":
                palette = np.asarray(upright.getpalette() or [0, 0, 0]).reshape(-1, 3)
                color = bool((palette != palette[:, :1]).any())
            upright.info.pop("transparency", None)  # else Pillow makes it an alpha channel
            upright = upright.convert("RGB" if color else "L")
        pixels = np.asarray(upright)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_depth(image: Any, path: Path) -> None:
    """Raise `RefusedError` for files whose pixels Pillow would change without a word."""
    if image.format in ("TIFF", "PNG") and getattr(image, "n_frames", 1) > 1:
        raise RefusedError("it holds several images; save each as a file of its own")
    if image.format == "PNG":
        with path.open("rb") as file:
            bits, kind = file.read(26)[24:]
        lossy = bits > 8 and kind != 0
    else:
        tags = getattr(image, "tag_v2", {})
        bits, kinds = tags.get(258, (8,)), tags.get(339, (1,))  # BitsPerSample, SampleFormat
        inverted = tags.get(262) == 0 and bits[0] > 1  # PhotometricInterpretation: WhiteIsZero
        extra = 0 in tags.get(338, ()) or (len(bits) == 4 and tags.get(262) == 2 and 338 not in tags)  # ExtraSamples
        lossy = (max(bits) > 8 and len(bits) > 1) or inverted or extra or (bits[0] == 8 and kinds[0] == 2)
        if image.format == "BMP" and image.mode == "1":  # Pillow takes bytes of two colors for bits
            with path.open("rb") as file:
                lossy = file.read(30)[28] != 1
    if lossy:
        raise RefusedError("its kind of pixels cannot be read without loss here; save it as gray or as 8-bit color")


def read_volume(path: Path) -> tuple[Array, Geometry]:
    """Read a volume and its grid, sliced along the file's last axis.

    Returns:
        `(C, D, H, W)` raw values, and the grid.

    Raises:
        RefusedError: The file is damaged, or has other axes or complex numbers.
    """
    import nibabel

    try:
        image: Any = nibabel.load(path)
        data = np.asanyarray(image.dataobj)
    except nibabel.filebasedimages.ImageFileError as error:
        raise RefusedError(f"it cannot be read: {error}") from error
    except (*_DAMAGE, nibabel.spatialimages.HeaderDataError) as error:
        raise RefusedError(f"it is damaged: {error}") from error
    if 0 in data.shape:
        raise RefusedError(f"it is damaged: its shape is {data.shape}")
    data = data.astype(np.float32) if data.dtype == np.float64 else data
    data = data[:, :, None] if data.ndim == 2 else data
    data = data[:, :, :, 0] if data.ndim == 5 and data.shape[3] == 1 else data
    data = data[..., None] if data.ndim == 3 else data
    if data.ndim != 4 or data.dtype.kind not in "iuf":
        raise RefusedError(f"it has the shape {image.shape}; expected (x, y, z) or (x, y, z, channels) of real numbers")
    affine = np.asarray(image.affine, np.float64)
    if abs(np.linalg.det(affine)) < 1e-12 and image.header["qform_code"]:
        affine = np.asarray(image.header.get_qform(), np.float64)
    affine = affine[:, [2, 1, 0, 3]]
    affine[:3] *= {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) % 8, 1.0)  # meters, micrometers
    pixels = data.transpose(3, 2, 1, 0)
    z, y, x = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    depth, height, width = pixels.shape[1:]
    # Without a code the header knows the spacing but not the place, and nibabel makes one up.
    placed = bool(image.header["sform_code"] or image.header["qform_code"])
    return pixels, Geometry((depth, height, width), (z, y, x), to_affine(affine) if placed else None)


def paint_labels(mask: Array, spec: dict[str, Any], picture: bool) -> dict[str, Array]:
    """Convert a mask to the content of its files.

    Args:
        mask: `(M, D, H, W)`.
        spec: The specification, whose labels say which value or color each has.
        picture: Whether the files are pictures, which alone have colors.

    Returns:
        `(D, H, W)` values or `(3, D, H, W)` colors, by the sub-folder that they go to.
    """
    labels = spec["labels"]
    colors = labels["colors"] if picture else None
    background = [0] if colors is None else colors.get("background", [0, 0, 0])
    marks = [[value] for value in labels["values"] or range(1, len(labels["names"]) + 1)]
    if colors is not None:
        marks = [colors[name] for name in labels["names"]]
    if labels["task"] != "multilabel":
        return {"": _paint(mask[0], [background, *marks])}
    if colors is None and labels["values"] is None and picture:
        marks = [[255]] * len(marks)  # to be seen
    pairs = zip(labels["names"], mask, marks, strict=True)
    return {name: _paint(plane, [background, mark]) for name, plane, mark in pairs}


def _paint(plane: Array, marks: list[list[int]]) -> Array:
    """Paint the mark of each index in the smallest data type."""
    table = np.array(marks)
    low, high = int(table.min()), int(table.max())
    table = table.astype(np.min_scalar_type(min(low, -high - 1) if low < 0 else high))
    channels = [column[plane] for column in table.T]
    return channels[0] if len(channels) == 1 else np.stack(channels)


def list_outputs(folder: Path, sources: list[Path], spec: dict[str, Any]) -> list[Path]:
    """List the files that `write_mask` writes."""
    names = spec["labels"]["names"] if spec["labels"]["task"] == "multilabel" else [""]
    return [folder / name / _name_output(source) for name in names for source in sources]


def write_mask(folder: Path, sources: list[Path], mask: Array, spec: dict[str, Any]) -> None:
    """Write a file for each source, and each label that may overlap.

    Files are named like their source, and lie on its grid.

    Args:
        folder: The folder of the masks.
        sources: The files of the case.
        mask: `(M, D, H, W)`.
        spec: The specification.
    """
    volume = is_volume(sources[0])
    for name, values in paint_labels(mask, spec, picture=not volume).items():
        for depth, source in enumerate(sources):
            path = folder / name / _name_output(source)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".writing-{path.name}")
            if volume:
                _write_volume(unfinished, values, source, spec)
            else:
                _write_picture(unfinished, values[..., depth, :, :])
            unfinished.replace(path)  # a mask appears whole or not at all


def _name_output(source: Path) -> str:
    return source.name if is_volume(source) else f"{source.stem}.png"


def _write_picture(path: Path, values: Array) -> None:
    """Write `(H, W)` values or `(3, H, W)` colors as a PNG."""
    from PIL import Image

    if values.min(initial=0) < 0 or values.max(initial=0) > (255 if values.ndim == 3 else 65535):
        raise RefusedError("its labels have values that a PNG cannot hold")
    pixels = values if values.ndim == 2 else np.moveaxis(values, 0, -1)
    # By the labels and not by what this mask holds, so that all masks of a folder are of one type
    Image.fromarray(pixels.astype(np.uint8 if values.itemsize == 1 else np.uint16)).save(path, format="PNG")


def _write_volume(path: Path, values: Array, source: Path, spec: dict[str, Any]) -> None:
    """Write `(D, H, W)` values with the header of their image."""
    import nibabel

    image: Any = nibabel.load(source)
    turn: Reorientation = find_slicing(read_volume(source)[1], spec["slicing"], str(source), spec.get("orientation"))
    header = image.header.copy()
    header.set_slope_inter(1.0, 0.0)
    header["cal_min"], header["cal_max"] = 0, 0
    header.set_data_dtype(values.dtype)  # that of the image was meant for intensities
    header.set_data_shape((*image.shape, 1, 1)[: max(2, min(3, len(image.shape)))])
    data = turn.undo(values).transpose(2, 1, 0).astype(header.get_data_dtype())
    result = type(image)(data.reshape(header.get_data_shape()), None, header)
    result.header["pixdim"][:4] = image.header["pixdim"][:4]  # nibabel forgets the thickness of a single slice
    nibabel.save(result, path)
