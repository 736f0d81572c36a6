"""Cases that are image files with mask files: what folder, manifest and Decathlon layouts share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import (
    DataError,
    GeometryError,
    MissingDataError,
    SettingError,
    UnreadableFileError,
    count_noun,
)
from medseg_pl.core.geometry import Geometry, Reorientation, Slicing, find_slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.mask_values import round_near_whole
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import OnProblem, Problem, Source, raise_or_report
from medseg_pl.data.sources.named_masks import read_segmentations
from medseg_pl.io import raster, volumes
from medseg_pl.io.paths import IMAGES, find_suffix, is_picture, name_below
from medseg_pl.io.regions import is_segmentation

_SAME_GRID_VOXELS = 0.1
"""Programs round affines when they write them; a tenth of a voxel moves no border."""


class FileSource(Source):
    """Reads channels and masks from the files of a case.

    Masks are one file with all labels, or files for each label.

    Attributes:
        slicing: How a volume is cut into slices, see `find_slicing`.
    """

    slicing: Slicing = "file"

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Decode one case on the grid of its first channel.

        Args:
            case: One of `cases`.
            labels: The meaning of the values in its masks.

        Raises:
            DataError: A file cannot be used as it is, or lies on another grid.
        """
        channels = [read_image_file(path) for path in case.images]
        geometry = channels[0][1]
        grid = CaseGrid(geometry, case.images[0], "image", "export the mask again from this image")
        planes = [
            bring_to_grid(case.case_id, path, *channel, grid)
            for path, channel in zip(case.images, channels, strict=True)
        ]
        image = np.concatenate(planes) if len(planes) > 1 else planes[0]
        mask = self.read_masks(case, labels, grid) if case.masks else None
        return reorient_volume(Volume(image, mask, geometry), self._find_slicing(case, geometry))

    def read_masks(self, case: Case, labels: LabelMap, grid: CaseGrid) -> UInt8[np.ndarray, "m d h w"]:
        """Decode the masks of one case on its grid.

        Args:
            case: One of `cases`, with masks.
            labels: The meaning of their values.
            grid: The grid of the image.

        Returns:
            `(M, D, H, W)`, see `LabelMap`.

        Raises:
            DataError: A file cannot be used as it is, or lies on another grid.
        """
        if not self.has_value_masks(case):
            return read_segmentations(case.masks, labels, grid.geometry)
        masks = [read_mask_file(path, labels) for path in case.masks]
        return encode_mask_files(case.case_id, case.masks, masks, labels, grid, self.count_label_files(case))

    def has_value_masks(self, case: Case) -> bool:
        """Check whether masks hold values or colors, not named structures."""
        return not any(is_segmentation(path) for path in case.masks)

    def count_label_files(self, case: Case) -> Sequence[int]:
        """Count the mask files of each label; 0 if not annotated."""
        return [1] * len(case.masks)

    def write(self, directory: Path, case: Case, mask: UInt8[np.ndarray, "m d h w"], labels: LabelMap) -> None:
        """Write a mask in the image's format; overlapping labels in folders."""
        template = case.images[0]
        if self.slicing != "file" or self.orientation is not None:
            mask = self._find_slicing(case, read_image_geometry(template)).undo(mask)
        colored = is_read_by_color(template, labels)
        if not labels.overlapping:
            write_mask_file(directory / case.case_id, labels.decode(mask, colored), template)
            return
        # 255 so that a person sees the mask in any viewer
        visible = 1 if volumes.is_volume(template) else 255
        for index, (name, plane) in enumerate(zip(labels.names, mask, strict=True)):
            values = labels.decode_one(plane, index, visible, colored)
            write_mask_file(directory / name / case.case_id, values, template)

    def _find_slicing(self, case: Case, geometry: Geometry) -> Reorientation:
        source = f"Case {case.case_id}: {case.images[0]}"
        return find_slicing(geometry, self.slicing, source, self.orientation)


def map_files_by_name(
    paths: Iterable[Path], directory: Path, what: str, on_problem: OnProblem | None = None
) -> dict[str, Path]:
    """Map files by their names without suffix, with sub-folders.

    Args:
        paths: The files.
        directory: The folder that names begin below.
        what: What an error calls them.
        on_problem: Takes the problem of a second file with one name, which is left out.

    Raises:
        DataError: Two files have one name.
    """
    files: dict[str, Path] = {}
    for path in paths:
        name = name_below(path, directory)
        if name in files:
            error = f"{files[name]} and {path} have the same name, so {what} cannot be told apart. Rename one."
            problem = Problem("duplicate-name", f"There is also {files[name].name}.", name, path)
            raise_or_report(DataError(error), [problem], on_problem)
        else:
            files[name] = path
    return files


def is_image(path: Path) -> bool:
    """Check by its name whether `read_image_file` reads a file."""
    return bool(find_suffix(path)) and not path.name.startswith(".")


def read_image_file(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read an image of any format with its grid.

    Args:
        path: The file.

    Returns:
        `(C, D, H, W)` values in the data type of the file, and the grid.

    Raises:
        UnreadableFileError: The file is damaged, or of no format that is read.
    """
    if volumes.is_volume(path):
        return volumes.read_volume(path)
    if not is_picture(path):
        raise UnreadableFileError(f"{path} is of no format that is read; expected one of {', '.join(IMAGES)}.")
    pixels = raster.read_image(path)[:, None]
    return pixels, Geometry((1, pixels.shape[2], pixels.shape[3]))


def read_image_geometry(path: Path) -> Geometry:
    """Read the grid of an image file from its header alone."""
    if volumes.is_volume(path):
        return volumes.read_volume_geometry(path)
    return Geometry((1, *raster.read_image_size(path)))


def read_mask_file(path: Path, labels: LabelMap | None = None) -> tuple[NDArray[Any], Geometry]:
    """Read a mask's values or colors, with its grid.

    Args:
        path: The file.
        labels: Labels that may have colors; without them values are read.

    Returns:
        `(D, H, W)` values or `(3, D, H, W)` colors, and the grid.

    Raises:
        UnreadableFileError: A volume has several values for each voxel.
    """
    if not volumes.is_volume(path):
        colored = labels is not None and is_read_by_color(path, labels)
        pixels = raster.read_mask_colors(path) if colored else raster.read_mask(path)
        return pixels[..., None, :, :], Geometry((1, *pixels.shape[-2:]))
    values, geometry = volumes.read_volume(path, seen=False)
    if len(values) != 1:
        raise UnreadableFileError(
            f"{path} is a mask with {count_noun(len(values), 'channel')}; expected one value for each voxel."
        )
    return round_near_whole(values[0]), geometry


def is_read_by_color(path: Path, labels: LabelMap) -> bool:
    """Check whether labels are colors in this file."""
    return labels.colors is not None and not volumes.is_volume(path)


def encode_mask_files(
    case_id: str,
    paths: Sequence[Path],
    masks: Sequence[tuple[NDArray[Any], Geometry]],
    labels: LabelMap,
    grid: CaseGrid,
    shares: Sequence[int] | None = None,
) -> UInt8[np.ndarray, "m d h w"]:
    """Encode the mask files of one case.

    There is one file with all labels, or files for each label.

    Args:
        case_id: The case.
        paths: The files.
        masks: The result of `read_mask_file` for each of them.
        labels: How they are encoded.
        grid: Where they must lie.
        shares: How many of the files, in their order, each label has; one by default. A label is where any of its
            files has it, and nowhere without a file.

    Raises:
        GeometryError: A file lies on another grid, or there are too many or too few of them.
        MaskValueError: A file holds a value that no label claims.
    """
    pixels = [bring_to_grid(case_id, path, *mask, grid) for path, mask in zip(paths, masks, strict=True)]
    shares = [1] * len(paths) if shares is None else shares
    if len(shares) == 1 and len(paths) == 1 and not labels.overlapping:
        return labels.encode(pixels[0], str(paths[0]), is_read_by_color(paths[0], labels))[None]
    if len(shares) != len(labels.names):
        raise GeometryError(
            f"Case {case_id} has {count_noun(len(paths), 'mask file')} for the "
            f"{count_noun(len(labels.names), 'label')} "
            f"{', '.join(labels.names)}. Name one for each in data.source, or set model.labels.task to multiclass for "
            "one mask with ids."
        )
    files = zip(paths, pixels, strict=True)
    empty = np.zeros(grid.geometry.shape, np.uint8)
    planes = [
        labels.unite(
            [labels.encode_one(p, i, str(path), is_read_by_color(path, labels)) for path, p in islice(files, share)]
            or [empty]
        )
        for i, share in enumerate(shares)
    ]
    return labels.combine(planes, f"Case {case_id}")


def write_mask_file(stem: Path, values: NDArray[Any], template: Path) -> None:
    """Write a mask in a template's format and grid.

    Any picture becomes PNG.

    Args:
        stem: The file without its suffix.
        values: `(D, H, W)` in the smallest type for the labels, as `LabelMap.decode` returns it; for pictures also
            colors, `(3, D, H, W)`.
        template: The image whose format and grid are taken.

    Raises:
        SettingError: A PNG cannot hold the values.
    """
    if volumes.is_volume(template):
        path = stem.with_name(stem.name + find_suffix(template))
        volumes.write_mask_like(path, values, template)
        return
    if not 0 <= values.min(initial=0) <= values.max(initial=0) <= 65535:
        raise SettingError(
            f"{stem}.png cannot hold labels.values from {values.min()} to {values.max()}; expected 0 to 65535. Choose "
            "other values for what is written."
        )
    pixels = np.moveaxis(values[:, 0], 0, -1) if values.ndim == 4 else values[0]
    # By the labels and not by what this mask holds, so that all masks of a folder are of one type
    raster.write_png(stem.with_name(stem.name + ".png"), pixels.astype(np.uint8 if values.itemsize == 1 else np.uint16))


def check_mask_names(names: Sequence[str], labels: LabelMap, what: str) -> None:
    """Check that the masks that `what` names are in the labels' order.

    Raises:
        SettingError: Names or order differ.
    """
    if list(names) != list(labels.names):
        raise SettingError(
            f"{what} names the masks {', '.join(names)}, but labels.names is {', '.join(labels.names)}. "
            "Name the same labels in the same order on both sides."
        )


def resolve_inside(root: Path, relative: str, what: str) -> Path:
    """Resolve a name below `root`, which it may not leave.

    A manifest may be a stranger's. A name may be spelled in another form of Unicode than the file's.

    Args:
        root: The folder of the data set.
        relative: The name as it is written, with `/` or as the system does.
        what: The file that holds the name, which the error begins with.

    Raises:
        MissingDataError: The name leaves the folder, or is one that no file can have.
    """
    path = root / relative
    try:
        # macOS writes accents apart from their letters (NFD), most other systems together (NFC).
        spellings = (root / normalize(form, relative) for form in ("NFC", "NFD"))
        path = next((other for other in (path, *spellings) if other.exists()), path)
        within = path.resolve().is_relative_to(root.resolve())
        path.exists()  # raises for a name that is too long
    except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, or links in a circle
        raise MissingDataError(f"{what} names {relative!r}, which is no file: {error}. Correct the name.") from error
    if not within:
        raise MissingDataError(
            f"{what} names {relative!r}, which lies outside {root}. Move the file inside, or set root."
        )
    return path


class CaseGrid(NamedTuple):
    """The grid that all files of a case must share.

    Attributes:
        geometry: The grid.
        path: The file that has it.
        what: What an error calls this file.
        remedy: What to do with a file that lies elsewhere.
    """

    geometry: Geometry
    path: Path
    what: str
    remedy: str


def bring_to_grid(case_id: str, path: Path, array: NDArray[Any], got: Geometry, grid: CaseGrid) -> NDArray[Any]:
    """Reorient a file's array to its case's grid, without changing voxels.

    Args:
        case_id: The case.
        path: The file.
        array: `(..., D, H, W)`.
        got: The file's grid.
        grid: The grid of the case.

    Raises:
        GeometryError: The file lies elsewhere, or lacks a position that the case has.
    """
    # Programs store one grid in other axis orders, which is no fault of the mask.
    if (turn := find_turn(got, grid.geometry)) is not None:
        return np.ascontiguousarray(turn.apply(array))
    _check_grid(case_id, path, got, grid)
    return array


def find_turn(got: Geometry, grid: Geometry) -> Reorientation | None:
    """Find the reorientation that brings a file exactly onto a grid.

    Returns:
        `None` where the file lies there already, or elsewhere.
    """
    turn = got.find_reorientation(grid)
    if turn is None or turn == Reorientation():
        return None
    turned = got.reorient(turn)
    return turn if turned.shape == grid.shape and grid.distance_voxels(turned) <= _SAME_GRID_VOXELS else None


def _check_grid(case_id: str, path: Path, got: Geometry, grid: CaseGrid) -> None:
    """Check that a file lies on the grid of its case."""
    if grid.geometry.shape != got.shape:
        raise GeometryError(
            f"Case {case_id}: {path} is {_size(got.shape)}, but the {grid.what} {grid.path} is "
            f"{_size(grid.geometry.shape)}. They must share one grid: {grid.remedy}, or remove the case."
        )
    # NIfTI readers then invent an affine, which fits only by chance.
    if grid.geometry.affine is not None and got.is_unplaced:
        raise GeometryError(
            f"Case {case_id}: {path} does not say where it lies (its sform and qform codes are 0), but the {grid.what} "
            f"{grid.path} does, so it may be flipped. {grid.remedy[0].upper()}{grid.remedy[1:]}, or copy its affine."
        )
    shift = grid.geometry.distance_voxels(got)
    if shift > _SAME_GRID_VOXELS:
        raise GeometryError(
            f"Case {case_id}: {path} lies elsewhere in space (flipped, shifted, or of another spacing): a corner is "
            f"{shift:.1f} voxels from where the {grid.what} {grid.path} has it. "
            f"{grid.remedy[0].upper()}{grid.remedy[1:]}, or correct the affine."
        )


def reorient_volume(volume: Volume, slicing: Reorientation) -> Volume:
    """Reorient image and mask of a volume."""
    if slicing == Reorientation():
        return volume
    mask = None if volume.mask is None else np.ascontiguousarray(slicing.apply(volume.mask))
    image, geometry = np.ascontiguousarray(slicing.apply(volume.image)), volume.geometry.reorient(slicing)
    return replace(volume, image=image, mask=mask, geometry=geometry)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape) + " (depth, height, width)"
