"""`medseg export`: a trained model in a folder that runs without torch, and proves itself.

```
model.onnx             the network, normalization included: raw values and their statistics in, logits out
weights.safetensors    the network's weights, for torch; model.pretrained reads them
spec.json              all that happens before and after the network, and the checksums of the other files
run.py                 runs the model on images
medseg_runtime/        the modules of medseg that run.py shares with it, none of which needs torch
requirements.txt       what run.py needs: numpy, onnxruntime, OpenCV, SciPy, Pillow, nibabel
golden/                synthetic images with the probabilities and masks that belong to them
MODEL_CARD.md          what the model is, how good it is, and what is known against it
DATA_CARD.md           what it was trained and scored on
```

None of it names a case, a person or a path. `--json` prints `output`, `precision`, `measured` as in `spec.json`, and
`files`.
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_data_root, add_json, add_plugins, keep_stdout_for, print_json

__all__ = ["add_arguments", "run"]

PRECISIONS = ("fp32", "fp16", "int8")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("--ckpt_path", required=True, metavar="RUN", help="run folder, checkpoint, or ensemble.json")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="a new folder")
    precision = "of the weights: fp16 halves the file, int8 quarters it (dynamic quantization); default: fp32"
    add("--precision", choices=PRECISIONS, default="fp32", help=precision)
    add("--measure", action="store_true", help="measure what the export costs in Dice on the validation cases")
    add_data_root(parser)
    add_plugins(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Export a checkpoint, see `medseg_pl.export.exporter`."""
    from medseg_pl.export.exporter import export  # torch, for which --help shall not wait
    from medseg_pl.io.progress import announce

    announce("Writing the network and testing it, which takes a minute or two")
    with keep_stdout_for(arguments.json):
        measured = export(arguments)
    if arguments.json:
        inside = (path for path in arguments.output.rglob("*") if path.is_file())
        files = sorted(path.relative_to(arguments.output).as_posix() for path in inside)
        result = {"output": str(arguments.output), "precision": arguments.precision}
        print_json({**result, "measured": measured, "files": files})
    return 0
