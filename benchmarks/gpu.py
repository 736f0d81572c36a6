"""What a GPU gains by half precision, channels_last, a fused optimizer, 8-bit transfer, torch.compile, and more GPUs.

A training step of a Unet with a ResNet-34 on 256 x 256 patches, from patches in pinned memory to the optimizer's step;
each line changes one thing. Then, with several GPUs, steps of `medseg fit` on 1, 2, 4, … of them. Without a GPU it says
so; `--device cpu` runs the same code on small images, to see that it runs.

    python benchmarks/gpu.py [--device cpu] [results.json]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from _report import Claim, finish, list_left_out, medians
from torch import nn

from medseg_pl.__main__ import main as medseg

ROUNDS, STEPS, SCALING_STEPS = 5, 20, 60


@dataclass(frozen=True)
class Setting:
    """How a step is computed."""

    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    compiled: bool = False
    fused: bool = False
    bytes_sent: torch.dtype = torch.float32


@dataclass(frozen=True)
class Job:
    """What is computed: where, and how much."""

    device: str
    encoder: str
    batch: int
    side: int


PLAIN = Setting()
BEST = Setting(torch.bfloat16, channels_last=True, fused=True, bytes_sent=torch.uint8)
SETTINGS = {
    "32 bits (TF32 off)": PLAIN,
    "bf16": replace(PLAIN, dtype=torch.bfloat16),
    "bf16, channels_last": replace(PLAIN, dtype=torch.bfloat16, channels_last=True),
    "bf16, channels_last, fused": replace(BEST, bytes_sent=torch.float32),
    "bf16, channels_last, fused, 8 bit sent": BEST,
    "the same, compiled": replace(BEST, compiled=True),
}


def batches(job: Job, setting: Setting) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same batch from the host again and again."""
    image = torch.randint(0, 255, (job.batch, 1, job.side, job.side), dtype=torch.uint8).to(setting.bytes_sent)
    target = torch.randint(0, 2, (job.batch, 1, job.side, job.side), dtype=torch.uint8)
    if job.device == "cuda":
        image, target = image.pin_memory(), target.pin_memory()
    while True:
        yield image.to(job.device, non_blocking=True), target.to(job.device, non_blocking=True)


def steps(job: Job, setting: Setting, amount: int) -> Callable[[], None]:
    """So many training steps, and the wait for the last of them."""
    torch.manual_seed(0)
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    network = smp.Unet(job.encoder, encoder_weights=None, in_channels=1, classes=1).to(job.device, memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), fused=setting.fused)
    forward: nn.Module = torch.compile(network) if setting.compiled else network  # type: ignore[assignment]
    stream = batches(job, setting)

    def run() -> None:
        for _ in range(amount):
            image, target = next(stream)
            image = image.to(memory_format=layout).float() / 255
            with torch.autocast(job.device, setting.dtype, enabled=setting.dtype != torch.float32):
                loss = nn.functional.binary_cross_entropy_with_logits(forward(image), target.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if job.device == "cuda":
            torch.cuda.synchronize()

    return run


def rates(job: Job, rounds: int, amount: int) -> dict[str, float]:
    """Images a second of each setting."""
    usable = {name: setting for name, setting in SETTINGS.items() if job.device == "cuda" or not setting.compiled}
    spent = medians({name: steps(job, setting, amount) for name, setting in usable.items()}, rounds)
    return {name: amount * job.batch / seconds for name, seconds in spent.items()}


def scaling(most: int, accelerator: str = "gpu", precision: str = "bf16-mixed") -> dict[str, float]:
    """Images a second of `medseg fit` on 1, 2, 4, … devices, each with a batch of its own."""
    from training_step import BATCH, FIT, fit

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        assert medseg(["phantom", str(Path(folder) / "data")]) == 0
        for devices in (1 << power for power in range(most.bit_length())):
            strategy = "auto" if devices == 1 else "ddp"
            where = {"accelerator": accelerator, "devices": devices, "strategy": strategy, "precision": precision}
            spent = fit(Path(folder), SCALING_STEPS, **where)[FIT]
            found[str(devices)] = devices * BATCH / statistics.median(spent[SCALING_STEPS // 6 :])
    return found


def main() -> None:
    on_cpu = "cpu" in sys.argv
    if not on_cpu and not torch.cuda.is_available():
        list_left_out("there is no GPU; --device cpu runs the same code on small images")
        return
    job = Job("cpu", "tu-resnet10t", 2, 64) if on_cpu else Job("cuda", "resnet34", 32, 256)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found = rates(job, *((2, 2) if on_cpu else (ROUNDS, STEPS)))
    first = next(iter(found.values()))
    claims = []
    for name, rate in found.items():
        print(f"{name:42} {rate:8.0f} images/s, {rate / first:5.2f} times 32 bits")
        claims.append(Claim(f"training with {name}", "32 bits", "-", f"{rate / first:.2f} times its throughput"))
    scaled = scaling(torch.cuda.device_count()) if torch.cuda.device_count() > 1 else {}
    for devices, rate in scaled.items():
        claims.append(
            Claim(f"medseg fit on {devices} GPUs", "one", "-", f"{rate / scaled['1']:.2f} times its throughput")
        )
    device = "cpu" if on_cpu else torch.cuda.get_device_name()
    finish(
        [] if on_cpu else claims,
        {"device": device, "images_per_s": found, "scaling": scaled},
        ["segmentation-models-pytorch"],
    )


if __name__ == "__main__":
    main()
