"""An exported folder: `run.py` with onnxruntime against the checkpoint's `Predictor` with torch, on phantoms.

Both begin with raw values and end with a mask on the native grid. Needs what `medseg export` needs.

    python benchmarks/export_runner.py [results.json]
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import torch
from _report import Claim, finish, list_left_out, medians

from medseg_pl.__main__ import main as medseg
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Volume
from medseg_pl.data.sources import UWMadisonSource
from medseg_pl.inference.predictor import Predictor

ROUNDS, VOLUMES = 5, 4
CONFIG = "configs/experiment/demo.yaml"
STEPS = ["--trainer.max_epochs", "4", "--data.samples_per_epoch", "160", "--trainer.precision", "32-true"]


def trained(work: Path) -> str:
    """A checkpoint that has seen a little: the masks are not empty."""
    assert medseg(["phantom", str(work / "data")]) == 0
    options = ["--data.source.root", str(work / "data"), "--runs", str(work / "runs"), *STEPS]
    assert medseg(["fit", "--config", CONFIG, *options]) == 0
    return str(work / "runs" / "demo" / "version_0" / "checkpoints" / "best.ckpt")


def volumes(root: Path, labels: LabelMap) -> list[Volume]:
    source = UWMadisonSource(str(root))
    return [source.read(case, labels) for case in source.cases()[:VOLUMES]]


def main() -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        list_left_out("it needs pip install 'medseg[export]'")
        return
    from medseg_pl.export import runner

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        checkpoint = trained(work)
        assert medseg(["export", "--ckpt_path", checkpoint, "-o", str(work / "exported")]) == 0
        model, predictor = runner.Model(work / "exported"), Predictor.from_checkpoint(checkpoint)
        read = volumes(work / "data", predictor.labels)

        def ours() -> list[np.ndarray]:
            return [model.predict(volume.image, volume.geometry.spacing_mm)[0] for volume in read]

        def theirs() -> list[np.ndarray]:
            return [predictor.predict_volume(volume, "a phantom").mask for volume in read]

        agreement = float(np.mean([(a == b).mean() for a, b in zip(ours(), theirs(), strict=True)]))
        spent = medians({"run.py": ours, "Predictor": theirs}, ROUNDS)
    ratio = spent["run.py"] / spent["Predictor"]
    print(f"run.py {spent['run.py'] / VOLUMES:.3f} s a volume, Predictor {spent['Predictor'] / VOLUMES:.3f} s")
    peer = f"Predictor (torch, {torch.get_num_threads()} threads), {agreement:.4%} of pixels equal"
    claims = [Claim("a volume by an exported folder", peer, "-", f"{ratio:.2f} of its time")]
    finish(claims, {**spent, "agreement": agreement}, ["onnxruntime"])


if __name__ == "__main__":
    main()
