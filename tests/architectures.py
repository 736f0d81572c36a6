"""Train a step of many architectures, encoders and sizes; what cannot be trained has to say so in a sentence.

`python tests/architectures.py FOLDER RANKS RANK` goes through all of them in one of several processes.
"""

from __future__ import annotations

import itertools
import json
import sys
import traceback
from copy import deepcopy
from functools import partial
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from medseg_pl.core.errors import MedsegError
from medseg_pl.models.networks import Shape, build_network, compute_logits, find_untrained, rehearse
from medseg_pl.training.training_checks import exclude_from_ddp, refuse_gradients

ARCHITECTURES = (
    *(smp.Unet, smp.UnetPlusPlus, smp.MAnet, smp.Linknet, smp.FPN, smp.PSPNet),
    *(smp.PAN, smp.DeepLabV3, smp.DeepLabV3Plus, smp.UPerNet, smp.Segformer, smp.DPT),
)
ENCODERS = ("resnet18", "efficientnet-b0", "mobilenet_v2", "mit_b0")
ENCODERS += ("tu-resnet10t", "tu-convnext_atto", "densenet121", "tu-vit_tiny_patch16_224")
SHAPES: tuple[Shape, ...] = ((2, 1, 64, 64), (2, 1, 96, 160), (2, 1, 50, 77), (1, 1, 64, 64))


def train(network: nn.Module, shape: Shape, *, distributed: bool) -> str:
    """Make two steps, the second of which finds what DDP missed in the first; returns how it ended."""
    try:
        rehearse(network, shape, 1)
        unused = find_untrained(network, shape)
        model = network
        if distributed:
            excluded = exclude_from_ddp(DDPStrategy(), network, unused)
            model = DistributedDataParallel(network)
        for _ in range(2):
            compute_logits(model, torch.randn(shape), 1).mean().backward()
            refuse_gradients(network, excluded if distributed else unused)
    except MedsegError:
        return "sentence"
    except Exception:  # what this looks for
        return traceback.format_exc()
    return "trained"


def train_all(*, distributed: bool) -> dict[str, str]:
    """How each combination ended."""
    ends = {}
    for make, encoder in itertools.product(ARCHITECTURES, ENCODERS):
        names = {f"{make.__name__} {encoder} {shape}": shape for shape in SHAPES}
        try:
            network = build_network(partial(make, encoder_name=encoder, encoder_weights=None), 1, 1)
        except MedsegError:
            ends.update(dict.fromkeys(names, "sentence"))
            continue
        except Exception:  # as above
            ends.update(dict.fromkeys(names, traceback.format_exc()))
            continue
        for name, shape in names.items():
            # DDP leaves its hooks on the parameters that it has wrapped; a copy is made sooner than a network.
            ends[name] = train(deepcopy(network), shape, distributed=distributed)
    return ends


if __name__ == "__main__":
    folder, ranks, rank = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    if ranks > 1:
        init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    ends = train_all(distributed=ranks > 1)
    (folder / f"ends_{rank}.json").write_text(json.dumps(ends, indent=1))
    if ranks > 1:
        destroy_process_group()
