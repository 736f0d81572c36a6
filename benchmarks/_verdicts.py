"""What `predict`, `Predictor` and an exported model say of the same files."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from medseg_pl import Predictor
from medseg_pl.core.errors import DataError
from medseg_pl.core.image_findings import describe_findings
from medseg_pl.core.types import Volume
from medseg_pl.io.nifti import write_nifti
from medseg_pl.io.raster import write_png

_FINDING = re.compile(r"(F\d{3}) (.*?)(?= F\d{3} |$)")
_NOTE = "The image does not say"
"""Beginning of the findings that mark nothing: what could not be compared."""

_CALL = """
import json, sys
sys.path.insert(0, sys.argv[1])
import run
for arguments in json.load(sys.stdin):
    run.main(arguments)
"""


class Verdict(NamedTuple):
    """What is said of one file.

    Attributes:
        findings: Code and level of each finding.
        failed: Whether the file was not predicted.
    """

    findings: tuple[tuple[str, str], ...] = ()
    failed: bool = False

    @property
    def is_marked(self) -> bool:
        """Tell whether a person hears of it."""
        return self.failed or any(level == "warning" for _, level in self.findings)

    @property
    def has_mask_warning(self) -> bool:
        """Tell whether the mask is unlike the references of training."""
        return any(code.startswith("F2") for code, _ in self.findings)

    @property
    def has_image_warning(self) -> bool:
        """Tell whether the image is refused, or unlike the training images."""
        return self.failed or any(code.startswith("F1") and level == "warning" for code, level in self.findings)


def write_image(stem: Path, volume: Volume) -> Path:
    """Write a volume as NIfTI, a picture as PNG or, where that cannot hold its values, as TIFF."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    image = volume.image
    if volume.geometry.spacing_mm is not None or image.shape[1] > 1:
        path = stem.with_name(f"{stem.name}.nii.gz")
        write_nifti(path, image[0] if len(image) == 1 else image, volume.geometry)
        return path
    pixels = image[0, 0] if len(image) == 1 else image[:, 0].transpose(1, 2, 0)
    if image.dtype == np.uint8:
        path = stem.with_name(f"{stem.name}.png")
        write_png(path, np.ascontiguousarray(pixels), replace=True)
        return path
    path = stem.with_name(f"{stem.name}.tif")
    tifffile.imwrite(path, pixels, photometric="minisblack" if pixels.ndim == 2 else "rgb")
    return path


def ask_predictor(predictor: Predictor, paths: Sequence[Path]) -> dict[str, Verdict]:
    """Predict files in Python."""
    verdicts = {}
    for path in paths:
        try:
            findings = predictor.predict(path, probabilities=False).findings
        except DataError:
            verdicts[path.name] = Verdict(failed=True)
        else:
            verdicts[path.name] = _parse("written", describe_findings(findings))
    return verdicts


def ask_command(checkpoint: Path, folder: Path, output: Path) -> dict[str, Verdict]:
    """Predict a folder with `medseg predict`."""
    command = [sys.executable, "-m", "medseg_pl", "predict", "--ckpt_path", checkpoint, "--input", folder]
    options = ["--output", output, "--trainer.accelerator=cpu", "--data.num_workers=0"]
    return _run([*command, *options], output)


def ask_export(checkpoint: Path, paths: Sequence[Path], work: Path) -> dict[str, Verdict]:
    """Export a checkpoint, and predict files with its `run.py`."""
    exported, output = work / "exported", work / "masks_exported"
    export = [sys.executable, "-m", "medseg_pl", "export", "--ckpt_path", checkpoint, "-o", exported]
    subprocess.run([str(part) for part in export], check=True, stdout=subprocess.DEVNULL)
    calls, names = [], {}
    for path in paths:
        parts = _split_channels(path, work / "channels")
        names[parts[0].name] = path.name
        if len(parts) > 1:
            calls.append(["--together", "channels", *map(str, parts), "-o", str(output)])
    alone = [str(path) for path in paths if path.name in names]
    calls.append([*alone, "-o", str(output)])
    found = _run([sys.executable, "-c", _CALL, exported], output, json.dumps(calls))
    return {names[name]: verdict for name, verdict in found.items()}


def _split_channels(path: Path, folder: Path) -> list[Path]:
    """Write the channels of a deep color TIFF to files: Pillow, which `run.py` reads with, would reduce them."""
    if path.suffix != ".tif":
        return [path]
    pixels: NDArray[np.generic] = tifffile.imread(path)
    if pixels.ndim == 2:
        return [path]
    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"{path.stem}-channel{index}.tif" for index in range(pixels.shape[2])]
    for index, part in enumerate(parts):
        tifffile.imwrite(part, np.ascontiguousarray(pixels[..., index]), photometric="minisblack")
    return parts


def _run(command: Sequence[object], output: Path, text: str = "") -> dict[str, Verdict]:
    """Run a command, and read its table."""
    done = subprocess.run([str(part) for part in command], input=text, text=True, capture_output=True, check=False)
    table = output / "predictions.csv"
    assert table.is_file(), done.stderr[-2000:]
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return {Path(row["input"]).name: _parse(row["status"], row["reason"]) for row in rows}


def _parse(status: str, reason: str) -> Verdict:
    if status not in ("written", "marked"):
        return Verdict(failed=True)
    findings = [(code, "note" if text.startswith(_NOTE) else "warning") for code, text in _FINDING.findall(reason)]
    verdict = Verdict(tuple(sorted(findings)))
    assert status != "marked" or verdict.is_marked, reason
    return verdict


def list_differences(answers: Mapping[str, Mapping[str, Verdict]]) -> list[str]:
    """List the files of which not all say the same, and what each says."""
    first = next(iter(answers.values()))
    lines = []
    for name in sorted(first):
        said = {who: answer.get(name) for who, answer in answers.items()}
        if len(set(said.values())) > 1:
            lines.append(f"{name}: " + "; ".join(f"{who} {verdict}" for who, verdict in said.items()))
    return lines
