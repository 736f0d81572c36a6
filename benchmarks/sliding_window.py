"""Sliding window: against MONAI's on eight shapes, and the whole image against its windows.

Both blend probabilities with Gaussian weights and an overlap of one half, and give the same numbers: that is checked.

    python benchmarks/sliding_window.py [results.json]
"""

from __future__ import annotations

import statistics

import segmentation_models_pytorch as smp
import torch
from _report import Claim, finish, medians
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from medseg_pl.core.labels import LabelMap
from medseg_pl.inference.sliding_window import SlidingWindow

ROUNDS, WINDOW, LABELS = 5, (128, 128), LabelMap(["lesion"], "binary")
SHAPES = [(256, 256), (512, 512), (384, 640), (300, 500), (1000, 250), (777, 333), (129, 129), (512, 1024)]


def network() -> nn.Module:
    """A U-Net with an encoder made for CPUs."""
    torch.manual_seed(0)
    model = smp.Unet("tu-mobilenetv3_small_100", encoder_weights=None, in_channels=1, classes=1)
    return model.eval().requires_grad_(False)


def compare(shape: tuple[int, int], model: nn.Module) -> dict[str, float]:
    """Seconds of ours, MONAI's and the whole image, and how far ours is from MONAI's."""
    image = torch.randn((1, 1, *shape), generator=torch.Generator().manual_seed(1))
    fill = torch.zeros(1, 1, 1, 1)
    windows, whole = (SlidingWindow(LABELS, WINDOW, 32, max_pixels=most) for most in (0, 1 << 30))

    def activated(part: Tensor) -> Tensor:
        return LABELS.activate(model(part))

    def ours() -> Tensor:
        return windows(model, image, fill)

    def monai() -> Tensor:
        result = sliding_window_inference(image, WINDOW, 1, activated, 0.5, mode="gaussian")
        assert isinstance(result, Tensor)
        return result

    spent = medians({"ours_s": ours, "monai_s": monai, "whole_s": lambda: whole(model, image, fill)}, ROUNDS)
    difference = float((ours() - monai()).abs().max())
    assert difference < 1e-5, difference
    return {**spent, "difference": difference}


def main() -> None:
    torch.set_num_threads(1)
    model = network()
    results = {}
    with torch.inference_mode():
        for shape in SHAPES:
            found = results[f"{shape[0]} x {shape[1]}"] = compare(shape, model)
            share, gain = found["ours_s"] / found["monai_s"], found["ours_s"] / found["whole_s"]
            print(f"{shape[0]:5} x {shape[1]:<5} {share:6.3f} of MONAI's time, {gain:5.2f} times the whole image's")
    share = statistics.median(found["ours_s"] / found["monai_s"] for found in results.values())
    gain = statistics.median(found["ours_s"] / found["whole_s"] for found in results.values())
    most = max(found["difference"] for found in results.values())
    claims = [
        Claim(
            "sliding window",
            "MONAI's, equal within 1e-5",
            "1.05 of its time",
            f"{share:.3f} of its time",
            share <= 1.05,
        ),
        Claim("the whole image", "its windows", "2 times as fast", f"{gain:.1f} times as fast", gain >= 2),
    ]
    print(f"equal within {most:.0e}")
    finish(claims, results, ["monai", "segmentation-models-pytorch"], cores=1)


if __name__ == "__main__":
    main()
