"""`medseg export`: takes the weights out of a checkpoint, for other programs and other people.

`weights.safetensors` holds the network's weights and nothing that could run; `spec.json` says what network they belong
to and what its input and output mean. Neither names a case or a person. `model.initial_weights` reads the weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg_pl import __version__
from medseg_pl.io.files import require_empty, whole_file, write_text

_SPECIFIED = (
    "network",
    "labels",
    "normalisation",
    "channels",
    "context",
    "fit",
    "size",
    "spacing_mm",
    "multiple",
    "overlap",
    "max_whole_pixels",
    "tta",
    "postprocess",
)
"""The settings of the model that a user of its weights needs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--ckpt_path", required=True, metavar="FILE", help="a checkpoint that medseg fit wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="a new folder")


def run(arguments: argparse.Namespace) -> int:
    """Write both files.

    Raises:
        OutputExistsError: There is something in the folder.
    """
    from safetensors.torch import save_file

    from medseg_pl.checkpointing import read_trained
    from medseg_pl.checkpointing.reading import load_plain

    require_empty(arguments.output)
    trained = read_trained(arguments.ckpt_path)
    weights = network_weights(load_plain(Path(arguments.ckpt_path))["state_dict"])
    with whole_file(arguments.output / "weights.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt", "medseg": __version__})
    write_text(arguments.output / "spec.json", json.dumps(specification(trained.settings["model"]), indent=1) + "\n")
    sys.stdout.write(f"Wrote {len(weights)} tensors and spec.json to {arguments.output}\n")
    return 0


def network_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """The network's own part of a module's state, under the names that the network gives.

    Of a compiled network, too: its parts have the name of the original in front.
    """
    own = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    return {name.removeprefix("_orig_mod."): value.contiguous().clone() for name, value in own.items()}


def specification(model: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be known to use the weights.

    Args:
        model: The model's settings, as a checkpoint holds them.
    """
    labels = model["labels"]
    exclusive = labels["task"] == "multiclass"
    return {
        "medseg": __version__,
        **{name: model[name] for name in _SPECIFIED if name in model},
        "in_channels": model["channels"] * (2 * model["context"] + 1),
        "classes": (["background"] if exclusive else []) + list(labels["names"]),
        "activation": "softmax" if exclusive else "sigmoid",
    }
