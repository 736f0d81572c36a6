"""Run the model of this folder on images, without torch and without medseg.

    python run.py IMAGE ... -o DIR     a mask for each PNG, JPEG, TIFF, BMP or NIfTI file, or for each in a folder
    python run.py --self-test          prove that this folder still computes what it did when it was made

`pip install -r requirements.txt` installs what it needs. All that is done to an image is written down in spec.json
beside this file; model.onnx holds the same, and a folder in which they differ is refused. medseg_runtime holds the
files of medseg that prediction passes through as well.

In Python, `Model(folder).predict(image)` takes raw values `(C, D, H, W)`; a picture has `D = 1`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
if not __package__:  # a script: `python -I` does not look beside it, and nothing shall be written into its folder
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(FOLDER))

try:
    import cv2
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

    from medseg_pl.core.errors import ForeignImageError, MedsegError, count_noun
    from medseg_pl.core.geometry import Geometry, find_axis_codes
    from medseg_pl.core.image_facts import measure_image, measure_mask
    from medseg_pl.core.image_findings import (
        ImageFinding,
        compare_image,
        compare_mask,
        describe_findings,
        has_warning,
        merge_findings,
    )
    from medseg_pl.core.intensity import HIGH, LOW, MEAN, STD, compute_channel_statistics, replace_not_finite
    from medseg_pl.core.training_profile import TrainingProfile
    from medseg_pl.data.transforms.grids import (
        center_padding,
        compute_padded_size,
        fit_size,
        list_window_starts,
        pad_constant,
        resize_image,
        scale_size,
        stack_context,
    )
    from medseg_pl.export.image_files import (
        RefusedError,
        list_images,
        list_outputs,
        paint_labels,
        read_image,
        write_mask,
    )
    from medseg_pl.inference.components import fill_holes, keep_largest_component, remove_small_components
except (ImportError, SyntaxError) as error:
    if __package__:
        raise
    sys.exit(f"run.py: {error}. Run pip install -r requirements.txt, and take the folder as it was made.")

Array = NDArray[Any]
Spacing = tuple[float, float, float]
Size = tuple[int, int]

RUNTIME = (
    "__init__",
    "components",
    "errors",
    "fact_limits",
    "geometry",
    "grids",
    "image_facts",
    "image_files",
    "image_findings",
    "intensity",
    "training_profile",
)
"""The modules of medseg_runtime: copies of those that medseg itself predicts with."""

OUTCOME = ("input", "status", "reason")
"""The columns of `predictions.csv`."""

PADDINGS = {"mean": MEAN, "std": STD, "low": LOW, "high": HIGH}
"""Columns of the statistics, one of which is the value of padding."""

TRANSFORMS = {
    "none": [(False, 0)],
    "horizontal": [(False, 0), (True, 0)],
    "vertical": [(False, 0), (True, 2)],
    "flips": [(False, 0), (True, 0), (True, 2), (False, 2)],
    "all": [(mirrored, turns) for mirrored in (False, True) for turns in range(4)],
}
"""For each kind of test-time augmentation: whether left and right are exchanged, then how many quarter turns."""


class Model:
    """A network with all steps before and after it.

    Args:
        folder: The folder of spec.json and model.onnx.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.spec = read_specification(folder)
        # onnxruntime answers a damaged file with errors of its own kinds.
        check_file(folder, "model.onnx", self.spec.get("files", {}).get("model.onnx"))
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        check_specification(self.spec, self.session.get_modelmeta().custom_metadata_map)
        # None in folders of older releases, which predict as they did.
        self.profiles = [TrainingProfile.from_dict(plain) for plain in self.spec.get("profiles", [])]

    def compare_image(self, image: Array, geometry: Geometry) -> list[ImageFinding]:
        """Compare an image with those that the model was trained on.

        Args:
            image: `(C, D, H, W)` raw values.
            geometry: Its grid.

        Returns:
            What is unlike the training images.
        """
        if not self.profiles:
            return []
        facts = measure_image(image, geometry.spacing_mm, find_axis_codes(geometry))
        return merge_findings([compare_image(facts, profile) for profile in self.profiles])

    def compare_mask(self, mask: Array, geometry: Geometry) -> list[ImageFinding]:
        """Compare a predicted mask with the references of training.

        Args:
            mask: `(M, D, H, W)`.
            geometry: Its grid.

        Returns:
            What is unlike the references.
        """
        if not self.profiles:
            return []
        names, overlapping = self.spec["labels"]["names"], self.spec["labels"]["task"] == "multilabel"
        # One plane at a time: all of them take several times the memory of the mask.
        planes = (mask[index] == 1 if overlapping else mask[0] == index + 1 for index in range(len(names)))
        spacing = geometry.spacing_mm
        facts = measure_mask(planes, names, spacing)
        return merge_findings([compare_mask(facts, each, names, spacing is not None) for each in self.profiles])

    def predict(
        self,
        image: Array,
        spacing_mm: Spacing | None = None,
        *,
        probabilities: bool = False,
        whole_image_max_pixels: int | None = None,
    ) -> tuple[Array, Array | None]:
        """Predict the mask of a case.

        Args:
            image: `(C, D, H, W)` raw values.
            spacing_mm: Between voxels along `(z, y, x)`, where it is known.
            probabilities: Whether they are wanted; they take `4 K` bytes for each voxel.
            whole_image_max_pixels: Slices of up to so many pixels run whole; by default what the specification says.

        Returns:
            `(M, D, H, W)` with 0 for background and `i + 1` for label `i`, or one channel of 0 and 1 for each label
            where labels may overlap; and the probabilities `(K, D, H, W)` or `None`.
        """
        image = to_storable(image)
        scale = self._find_scale(image, spacing_mm)
        how = self.spec["statistics"]
        statistics = compute_channel_statistics(image, how["percentiles"], how["sample"])
        most = self.spec["whole_image_max_pixels"] if whole_image_max_pixels is None else whole_image_max_pixels
        masks, kept = [], []
        for depth in range(image.shape[1]):
            slice_probabilities = self._predict_slice(image, statistics, depth, scale, most)
            masks.append(decide(slice_probabilities, self.spec["decision"]))
            kept += [slice_probabilities] if probabilities else []
        mask = postprocess_mask(np.stack(masks, axis=1), spacing_mm, self.spec)
        return mask, np.stack(kept, axis=1) if probabilities else None

    def _find_scale(self, image: Array, spacing_mm: Spacing | None) -> tuple[float, float]:
        """Find by how much a slice grows to have the model's spacing."""
        if len(image) != self.spec["channels"]:
            raise RefusedError(
                f"it has {count_noun(len(image), 'channel')}, but the model takes {self.spec['channels']}"
            )
        goal = self.spec["spacing_mm"]
        if goal is None:
            return 1.0, 1.0
        if spacing_mm is None:
            raise RefusedError("it does not say its spacing, which the model needs: give it with --spacing Z Y X")
        return spacing_mm[1] / goal[0], spacing_mm[2] / goal[1]

    def _predict_slice(
        self, image: Array, statistics: Array, depth: int, scale: tuple[float, float], most: int
    ) -> Array:
        """Predict probabilities `(K, H, W)` on the image's own grid."""
        context = self.spec["context_slices"]
        repeated = np.tile(statistics, (2 * context + 1, 1))
        planes = stack_context(image, depth, context)
        native = (planes.shape[1], planes.shape[2])
        fits, goal = self.spec["resize"] == "fit", (self.spec["input_size"][0], self.spec["input_size"][1])
        inner = fit_size(native, goal) if fits else scale_size(native, scale)
        padding = center_padding(inner, goal if fits else inner)
        fill = repeated[:, PADDINGS[self.spec["padding"]]]
        resized = pad_constant(resize_image(planes, inner), padding, fill)
        values = replace_not_finite(resized.astype(np.float32), repeated)
        probabilities = self._predict_windows(values, repeated, fill, most)
        # Decided, they would be background.
        if not np.isfinite(probabilities).all():
            raise RefusedError("the network's output is not a number; export other weights")
        if probabilities.shape[1:] == native:
            return probabilities
        return resize_linear(padding.undo(probabilities), native)

    def _predict_windows(self, image: Array, statistics: Array, fill: Array, most: int) -> Array:
        """Predict a resized slice: whole if small, else averaged over windows."""
        size, window = (image.shape[1], image.shape[2]), (self.spec["window"][0], self.spec["window"][1])
        frame = compute_padded_size(size, 1, at_least=window)
        whole = compute_padded_size(size, self.spec["size_divisor"], at_least=window)
        if whole[0] * whole[1] <= most:
            frame = window = whole
        padding = center_padding(size, frame)
        padded = pad_constant(image, padding, fill)
        tops, lefts = (
            list_window_starts(*sides, self.spec["window_overlap"]) for sides in zip(frame, window, strict=True)
        )
        windows = [(slice(y, y + window[0]), slice(x, x + window[1])) for y in tops for x in lefts]
        if len(windows) == 1:
            return np.asarray(padding.undo(self._predict_window(padded, statistics)))
        trust = gaussian_weights(window, self.spec["window_sigma"])
        total = np.zeros((len(self.spec["classes"]), *frame), np.float32)
        weight = np.zeros(frame, np.float32)
        for rows, columns in windows:
            total[:, rows, columns] += self._predict_window(padded[:, rows, columns], statistics) * trust
            weight[rows, columns] += trust
        return np.asarray(padding.undo(total / weight))

    def _predict_window(self, image: Array, statistics: Array) -> Array:
        """Average the probabilities over the transforms of test-time augmentation."""
        views = []
        for mirrored, turns in TRANSFORMS[self.spec["tta"]]:
            view = np.rot90(image[..., ::-1] if mirrored else image, turns, (-2, -1))
            feed = {"image": np.ascontiguousarray(view)[None], "statistics": statistics[None]}
            logits = self.session.run(["logits"], feed)[0][0]
            back = np.rot90(activate(logits, self.spec["activation"]), -turns, (-2, -1))
            views.append(back[..., ::-1] if mirrored else back)
        mean: Array = sum(views[1:], views[0]) / len(views)
        return mean


def read_specification(folder: Path) -> dict[str, Any]:
    """Read spec.json.

    Raises:
        RefusedError: It is no JSON, or holds a name that `check_names` refuses.
    """
    try:
        spec: dict[str, Any] = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"spec.json is no JSON: {error}. Take the folder as it was made.") from error
    check_names(spec)
    return spec


def check_names(spec: Any) -> None:
    """Check that no name leads out of its folder.

    The specification may be a stranger's.

    Raises:
        RefusedError: A name does.
    """
    try:
        golden = [case["file"].removeprefix("golden/") for case in spec.get("golden", ())]
        names = [*spec.get("labels", {}).get("names", ()), *golden]
        wrong = [name for name in names if not is_name(name)]
    except (AttributeError, KeyError, TypeError) as error:
        raise RefusedError("spec.json is no specification. Take the folder as it was made.") from error
    if wrong:
        raise RefusedError(f"spec.json has the name {wrong[0]!r}, which is none of a file. Take the folder as made.")


def is_name(name: str) -> bool:
    """Tell whether every system allows a file or folder this name."""
    return name.strip(". ") == name != "" and name.isprintable() and not set(name) & set('/\\:*?"<>|')


def check_specification(spec: dict[str, Any], metadata: dict[str, str]) -> None:
    """Check that spec.json is what the metadata of model.onnx says.

    Raises:
        RefusedError: A field differs.
    """
    if "medseg" not in metadata:
        raise RefusedError("model.onnx holds no specification, so it is not the one that belongs to spec.json.")
    # Checksums cannot stand in the model: its own is among them.
    stated = {name: value for name, value in spec.items() if name != "files"}
    if changed := list_differences(stated, json.loads(metadata["medseg"])):
        raise RefusedError(f"spec.json is not what the model was exported with: {'; '.join(changed)}. Export it again.")


def list_differences(now: Any, then: Any, where: str = "") -> list[str]:
    """List the fields in which two JSON values differ, and how.

    >>> list_differences({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}})
    ['a.b[1] is 2 and was 3']
    """
    if isinstance(now, dict) and isinstance(then, dict):
        names = sorted({*now, *then})
        pairs = [(now.get(name, ...), then.get(name, ...), f"{where}.{name}".lstrip(".")) for name in names]
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        pairs = [(one, other, f"{where}[{i}]") for i, (one, other) in enumerate(zip(now, then, strict=True))]
    else:
        texts = ["absent" if value is ... else json.dumps(value) for value in (now, then)]
        return [] if texts[0] == texts[1] else [f"{where} is {texts[0]} and was {texts[1]}"]
    return [line for one, other, field in pairs for line in list_differences(one, other, field)]


def to_storable(image: Array) -> Array:
    """Keep the types that scanners write; convert everything else to `float32`.

    Raises:
        RefusedError: No value is finite.
    """
    keeps = image.dtype.name in ("uint8", "uint16", "int16", "float32")
    stored = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("=") if keeps else np.float32)
    if not np.isfinite(stored).any():
        raise RefusedError("it holds no number at all, only NaN or infinity")
    return stored


def resize_linear(probabilities: Array, size: Size) -> Array:
    """Scale `(K, H, W)` linearly both ways, as torch's `interpolate` does.

    Args:
        probabilities: `(K, h, w)`.
        size: `(height, width)` afterwards.
    """
    height, width = size
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in probabilities])


def gaussian_weights(window: Size, sigma: float) -> Array:
    """Compute weights that trust the middle of a window.

    Args:
        window: `(height, width)`.
        sigma: Standard deviation as a share of the window's side.
    """
    axes = [(np.arange(side, dtype=np.float32) - (side - 1) / 2) / (side * sigma) for side in window]
    y, x = (np.exp(-0.5 * axis**2) for axis in axes)
    weights: Array = np.maximum(y[:, None] * x[None, :], 1e-3)
    return weights.astype(np.float32)


def activate(logits: Array, activation: str) -> Array:
    """Convert logits to probabilities.

    Args:
        logits: `(K, H, W)`.
        activation: `sigmoid` or `softmax`.
    """
    if activation == "sigmoid":
        return np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * logits))  # as a sigmoid, without overflow
    powers = np.exp(logits - logits.max(axis=0))  # less the maximum: no power overflows
    shares: Array = powers / powers.sum(axis=0)
    return shares


def decide(probabilities: Array, decision: dict[str, Any]) -> Array:
    """Decide on probabilities: the likeliest class, or labels above a threshold.

    Args:
        probabilities: `(K, ...)`.
        decision: `rule`, and a `threshold` where labels may overlap.

    Returns:
        `(M, ...)`.
    """
    if decision["rule"] == "likeliest":
        likeliest: Array = probabilities.argmax(axis=0)[None]
        return likeliest.astype(np.uint8)
    above: Array = probabilities > decision["threshold"]
    return above.astype(np.uint8)


def postprocess_mask(mask: Array, spacing_mm: Spacing | None, spec: dict[str, Any]) -> Array:
    """Post-process a mask in place, label by label.

    Args:
        mask: `(M, D, H, W)`.
        spacing_mm: Between voxels along `(z, y, x)`, where it is known.
        spec: The specification, with `postprocess`.
    """
    overlapping = spec["labels"]["task"] == "multilabel"
    z, y, x = spacing_mm or (1.0, 1.0, 1.0)
    voxel = y * x if mask.shape[1] == 1 else z * y * x  # sizes of a single slice are areas
    for index, name in enumerate(spec["labels"]["names"]):
        if (how := spec["postprocess"].get(name)) is None:
            continue
        plane, value = (mask[index], 1) if overlapping else (mask[0], index + 1)
        before = plane == value
        after = fill_holes(before) if how["fill_holes"] else before
        after = remove_small_components(after, how["minimum_size"] / voxel) if how["minimum_size"] else after
        after = keep_largest_component(after) if how["largest_only"] else after
        plane[before & ~after] = 0
        plane[after & (plane == 0)] = value
    return mask


def run_self_test(folder: Path = FOLDER) -> list[str]:
    """Run the golden cases.

    Returns:
        A line for each of them.

    Raises:
        RefusedError: A file or a field is not as it was, or a result differs.
    """
    model = Model(folder)
    check_files(folder, model.spec)
    return [check_case(model, folder / case["file"], case["whole_image_max_pixels"]) for case in model.spec["golden"]]


def check_files(folder: Path, spec: dict[str, Any]) -> None:
    """Check that the folder's files are those that were exported.

    Raises:
        RefusedError: A file is missing, is another one, or is not listed.
    """
    shipped = [f"medseg_runtime/{name}.py" for name in RUNTIME]
    golden = [case["file"] for case in spec["golden"]]
    expected = {"model.onnx", "weights.safetensors", "run.py", "requirements.txt", *shipped, *golden}
    if set(spec["files"]) != expected:
        raise RefusedError(f"spec.json lists {sorted(spec['files'])} as its files; expected {sorted(expected)}.")
    for name, digest in spec["files"].items():
        check_file(folder, name, digest)


def check_file(folder: Path, name: str, digest: str | None) -> None:
    """Check a file against its SHA-256 in hexadecimal digits.

    Raises:
        RefusedError: The file is missing, or is another one.
    """
    if not (folder / name).is_file():
        raise RefusedError(f"{name} is missing. Take the folder as it was made.")
    if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
        raise RefusedError(f"{name} is not the file that was exported. Take the folder as it was made.")


def check_case(model: Model, path: Path, whole_image_max_pixels: int | None) -> str:
    """Run a golden case, and describe in a line how it agrees.

    Raises:
        RefusedError: It does not agree.
    """
    with np.load(path) as case:
        expected = dict(case)
    spacing = tuple(expected["spacing_mm"].tolist()) if "spacing_mm" in expected else None
    if "image" in expected:
        mask, probabilities = model.predict(
            expected["image"], spacing, probabilities=True, whole_image_max_pixels=whole_image_max_pixels
        )
    else:
        probabilities = expected["probabilities"]
        mask = postprocess_mask(decide(probabilities, model.spec["decision"]), spacing, model.spec)
        if (np.stack([*paint_labels(mask, model.spec, picture=True).values()]) != expected["values"]).any():
            raise RefusedError(f"{path.name}: other values would be written into the mask's file.")
    assert probabilities is not None, "they were asked for"
    agreed = float((mask == expected["mask"]).mean())
    apart = np.abs(probabilities.astype(np.float64) - expected["probabilities"])
    line = f"Test {path.stem}: {100 * agreed:.4f} % of pixels are medseg's, probabilities within {apart.max():.1e}"
    least, mean = model.spec["tolerance"]["agreement"], model.spec["tolerance"]["mean_difference"]
    if not (agreed >= least and apart.mean() <= mean):
        raise RefusedError(f"{line}, {apart.mean():.1e} on average; expected {100 * least} % and {mean:.0e}.")
    return line


def expand_folders(images: list[Path], together: str | None) -> list[Path]:
    """Put the images of a folder in its place, and say what else is in it.

    Args:
        images: Files and folders.
        together: How files make up one case, see `group_files`.

    Raises:
        RefusedError: A folder holds no image, or the order of its files matters.
    """
    files = []
    for path in images:
        if not path.is_dir():
            files.append(path)
            continue
        if together is not None:
            raise RefusedError(f"{path} is a folder. Give the {together} of a case as files, in their order.")
        files += (inside := list_images(path))
        others = [each for each in {*path.iterdir()} - {*inside} if not each.name.startswith(".")]
        if others:
            amount = count_noun(len(others), "other file or folder was", "other files or folders were")
            sys.stderr.write(f"run.py: {path}: {amount} not read.\n")
    return files


def group_files(images: list[Path], together: str | None) -> list[tuple[list[Path], list[Path]]]:
    """Group files into cases.

    Args:
        images: The files.
        together: How files make up one case: `slices`, or the channels of one image; `None` for a case each.

    Returns:
        For each case its files, and those of them that get a mask.
    """
    if together is None:
        return [([path], [path]) for path in images]
    return [(images, images if together == "slices" else images[:1])]


def check_outputs(paths: list[Path]) -> None:
    """Raise `RefusedError` where a mask would take the place of another file."""
    for path, count in Counter(paths).items():
        if count > 1 or path.exists():
            reason = "is there already" if path.exists() else "would be written twice"
            raise RefusedError(f"{path} {reason}. Choose another folder, or other names.")


def run_case(model: Model, paths: list[Path], masked: list[Path], arguments: argparse.Namespace) -> list[ImageFinding]:
    """Read, predict and write one case.

    Args:
        model: The exported model.
        paths: The files of the case.
        masked: Those of them that get a mask.
        arguments: Those of the command.

    Returns:
        What is unlike the training cases.

    Raises:
        ForeignImageError: The case has a warning, and such cases are refused.
        RefusedError: Volumes are given as slices, or an image cannot be read.
    """
    parts = [read_image(path, model.spec["slicing"], model.spec.get("orientation")) for path in paths]
    slices = arguments.together == "slices"
    image = np.concatenate([image for image, _ in parts], axis=1 if slices else 0)
    if slices and image.shape[1] != len(paths):
        raise RefusedError("volumes are no slices: give each of them by itself")
    spacing = parts[0][1].spacing_mm or (tuple(arguments.spacing) if arguments.spacing else None)
    shape = (image.shape[1], image.shape[2], image.shape[3])
    geometry = Geometry(shape, spacing, parts[0][1].affine)
    compares, refuses = arguments.on_foreign != "ignore", arguments.on_foreign == "refuse"
    # Before the network runs: what is refused costs no time.
    findings = model.compare_image(image, geometry) if compares else []
    if refuses:
        refuse_warnings(findings)
    mask, probabilities = model.predict(image, spacing, probabilities=arguments.probabilities)
    findings += model.compare_mask(mask, geometry) if compares else []
    if refuses:
        refuse_warnings(findings)
    write_mask(arguments.output, masked, mask, model.spec)
    if probabilities is not None:
        path = arguments.output / f"{masked[0].name}.npz"
        unfinished = path.with_name(f".writing-{path.name}")
        np.savez_compressed(unfinished, probabilities=probabilities)
        unfinished.replace(path)
    return findings


def refuse_warnings(findings: list[ImageFinding]) -> None:
    """Raise `ForeignImageError` where a case is unlike the training cases."""
    if has_warning(findings):
        raise ForeignImageError(f"it is unlike what the model was trained on. {describe_findings(findings)}")


def read_outcomes(path: Path) -> list[tuple[str, ...]]:
    """Read the outcomes of an earlier run, if there was one.

    Raises:
        RefusedError: The file is something else.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [tuple(row) for row in csv.reader(file)]
    if rows[:1] != [OUTCOME]:
        raise RefusedError(f"{path} is not a table of this program. Choose another folder.")
    return rows[1:]


def write_outcomes(path: Path, rows: list[tuple[str, str, str]]) -> None:
    """Write each input, its status and why, after those of earlier runs."""
    # One run for each image into one folder is as good as one run for all.
    known = {row[0]: row for row in [*read_outcomes(path), *rows] if row}
    path.parent.mkdir(parents=True, exist_ok=True)
    # A table that was cut off looks whole: it gets its name when it is.
    unfinished = path.with_name(f".writing-{path.name}")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([OUTCOME, *known.values()])
    unfinished.replace(path)


def main(argv: list[str] | None = None, folder: Path = FOLDER) -> int:
    """Run the command.

    Args:
        argv: Its arguments; those of the process by default.
        folder: The exported model; by default the one that this file lies in.

    Returns:
        The exit code: 0 if all went well, 1 if something failed, 2 for wrong use.
    """
    parser = argparse.ArgumentParser(prog="run.py", description=str(__doc__).splitlines()[0])
    add = parser.add_argument
    add("images", nargs="*", type=Path, metavar="IMAGE", help="PNG, JPEG, TIFF, BMP or NIfTI, or a folder")
    add("-o", "--output", type=Path, metavar="DIR", help="where the masks go")
    add("--together", choices=("channels", "slices"), help="the images are the channels, or the slices, of one case")
    add("--spacing", nargs=3, type=float, metavar=("Z", "Y", "X"), help="of pictures, in mm")
    add("--probabilities", action="store_true", help="write these as well, as IMAGE.npz")
    foreign = "images unlike those of training: mark them, refuse them without a mask, or ignore it; default: mark"
    add("--on_foreign", choices=("mark", "refuse", "ignore"), default="mark", help=foreign)
    add("--self-test", action="store_true", help="run the golden cases")
    arguments = parser.parse_args(argv)
    if arguments.spacing and not all(0 < length < math.inf for length in arguments.spacing):
        parser.error("--spacing takes three lengths above 0")
    if bool(arguments.images) == arguments.self_test or bool(arguments.images) != bool(arguments.output):
        parser.error("give images and -o DIR, or --self-test")
    try:
        if arguments.self_test:
            sys.stdout.write("\n".join([*run_self_test(folder), "The self-test passed.\n"]))
            return 0
        model = Model(folder)
        cases = group_files(expand_folders(arguments.images, arguments.together), arguments.together)
        outputs = [out for _, masked in cases for out in list_outputs(arguments.output, masked, model.spec)]
        tables = [arguments.output / f"{masked[0].name}.npz" for _, masked in cases if arguments.probabilities]
        check_outputs([*outputs, *tables])
        read_outcomes(arguments.output / "predictions.csv")  # before hours of work
    except (MedsegError, OSError) as error:
        sys.stderr.write(f"run.py: {error}\n")
        return 1
    if not model.profiles and arguments.on_foreign != "ignore":
        sys.stderr.write("run.py: the model does not record what it was trained on, so no image is compared with it.\n")
    rows = []
    for paths, masked in cases:
        try:
            findings = run_case(model, paths, masked, arguments)
            said = describe_findings(findings)
            rows.append((str(paths[0]), "marked" if has_warning(findings) else "written", said))
            sys.stdout.write(f"{paths[0]}: done\n")
        except (MedsegError, ImportError, OSError, ValueError, SyntaxError) as error:
            rows.append((str(paths[0]), "failed", str(error)))
            sys.stderr.write(f"run.py: {paths[0]} was left out: {error}\n")
    # At the end, where they are read, and not between hundreds of lines.
    for name, status, said in rows:
        if status == "marked":
            sys.stderr.write(f"run.py: {name} is unlike what the model was trained on; look at its mask. {said}\n")
    write_outcomes(arguments.output / "predictions.csv", rows)
    return 0 if all(status == "written" for _, status, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
