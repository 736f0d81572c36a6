"""`medseg info`: what a checkpoint, a run or a data set is; without a path, what is installed.

`--json` prints the same as values, of which `kind` is one of

- `installation`: versions of medseg, Python and packages, CUDA, GPUs, and the commit of a clone;
- `checkpoint`: its model, epochs, steps, parameters, and how many cases it was trained on;
- `ensemble`: the members, and the `first` of them as a checkpoint;
- `run`, `experiment`, `crossval`: what is complete, the scores with intervals, what it was trained with;
- `data set`: layout, cases, patients, labels, and the grid of the first image.

No name of a case is printed, and nothing that a file names is run.
"""

from __future__ import annotations

import math
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from medseg_pl import __version__
from medseg_pl.cli.arguments import add_json, print_json
from medseg_pl.core.errors import MissingDataError, UnreadableFileError, make_printable
from medseg_pl.io.installation import find_cuda, find_version, read_own_git_state
from medseg_pl.io.privacy import redact_config
from medseg_pl.io.scores import SCORED_AGAIN, list_tables, parse_stage, require_run_folder, suggest_run
from medseg_pl.io.torch_archive import TensorShape, read_archive
from medseg_pl.models.ensemble_file import find_ensemble, read_ensemble
from medseg_pl.reporting.run import Run, read_run
from medseg_pl.reporting.summary import compute_mean_interval, get_scored_side

_PACKAGES = ("torch", "lightning", "segmentation-models-pytorch", "timm", "numpy", "onnxruntime")
_RUN_FILES = ("config.yaml", "splits.json", "environment.json", "checkpoints")
_GPUS = Path("/proc/driver/nvidia/gpus")
_WEIGHTS = "model.network."
# What batch normalization counts, and no optimizer changes
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    what = "a checkpoint, an ensemble.json, a run folder or a data set; default: this installation"
    parser.add_argument("path", type=Path, nargs="?", metavar="PATH", help=what)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Describe the installation or a path, and print it.

    Raises:
        MissingDataError: There is nothing at the path.
        UnreadableFileError: A file is damaged, or would run code when loaded.
    """
    described = describe_installation() if arguments.path is None else _describe(arguments.path)
    if arguments.json:
        print_json(described)
    else:
        for line in list_lines(described):
            sys.stdout.write(f"{make_printable(line)}\n")
    return 0


def _describe(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise MissingDataError(
            f"There is nothing at {path}. {suggest_run(path)}Name a checkpoint, a run folder or a data set."
        )
    if (described := describe_path(path)) is not None:
        return described
    # Of all experiments: no data set, and too much for a description. One of them is described as such, see below.
    require_run_folder(path)
    return _describe_data_set(path)


def _describe_data_set(path: Path) -> dict[str, Any]:
    """Describe a data set as `check` and `plan` see it."""
    # torch, for which checkpoints and runs need not wait
    from medseg_pl.checks.layout_detection import DataSettings, detect_labels, open_data_set

    settings = DataSettings()
    opened = open_data_set(path, settings)
    found = detect_labels(opened, settings.labels)
    cases = found.source.cases()
    volume = found.source.read(cases[0], found.labels)
    return {
        "kind": "data set",
        "path": str(path),
        "source": type(found.source).__name__,
        "cases": len(cases),
        "patients": len({case.group for case in cases}),
        "annotated": sum(bool(case.masks) for case in cases),
        "labels": list(found.labels.names),
        "task": found.labels.task,
        "first_image": {
            "channels": len(volume.image),
            "shape": list(volume.geometry.shape),
            "spacing_mm": volume.geometry.spacing_mm and list(volume.geometry.spacing_mm),
            "type": str(volume.image.dtype),
        },
        "notes": list(found.notes),
    }


def describe_installation() -> dict[str, Any]:
    """Describe this installation: versions, CUDA, GPUs and commit.

    It imports none of the packages.
    """
    # Versions come from the packages' metadata: importing torch for its own takes seconds.
    return {
        "kind": "installation",
        "medseg": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: find_version(name) for name in _PACKAGES},
        "cuda": find_cuda(),
        "gpus": _list_gpus(),
        "git": read_own_git_state(),
    }


def describe_path(path: Path) -> dict[str, Any] | None:
    """Describe a checkpoint, an ensemble or a folder of runs.

    A folder may be of a run, an experiment or a cross-validation.

    Args:
        path: A file or a folder.

    Returns:
        Plain values with `kind` and `path`; `None` for a folder that is none of these.

    Raises:
        MissingDataError: There is nothing there.
        UnreadableFileError: A file is damaged, or would run code when loaded.
    """
    if path.is_dir():
        return _describe_folder(path)
    return _describe_ensemble(path) if path.suffix.lower() == ".json" else describe_checkpoint(path)


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Describe a checkpoint's model, training and data.

    Args:
        path: The file. No case and no folder that it names is in the description.

    Raises:
        UnreadableFileError: It is damaged, or no checkpoint of medseg.
    """
    content = read_archive(path)
    try:
        model = dict(content["hyper_parameters"])
        state = content["state_dict"]
        weights = [
            value
            for name, value in state.items()
            if name.startswith(_WEIGHTS) and not name.endswith(_BUFFERS) and isinstance(value, TensorShape)
        ]
        data = content.get("SegmentationDataModule") or {}
        source = (content.get("datamodule_hyper_parameters") or {}).get("source")
        # What a description is pasted into may be public: an issue, a mail.
        shown = redact_config({"model": model, "data": {"source": source} if isinstance(source, Mapping) else {}})
        split = data.get("split") or {}
        return {
            "kind": "checkpoint",
            "path": str(path),
            "bytes": path.stat().st_size,
            "epoch": content.get("epoch"),
            "step": content.get("global_step"),
            "resumable": "optimizer_states" in content,
            "parameters": sum(math.prod(each.shape) for each in weights),
            "precision": str(content.get("precision")),
            "model": {name: shown["model"].get(name) for name in _SHOWN_OF_MODEL},
            "data": {
                "source": shown["data"].get("source"),
                "cases": {side: len(split.get(side) or []) for side in ("train", "val", "test")},
                "trained_patients": len(data["groups"]) if "groups" in data else None,
            },
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableFileError(
            f"{path} is no checkpoint of medseg: {type(error).__name__} of {error}. Use best.ckpt of a run folder."
        ) from None


_SHOWN_OF_MODEL = (
    "network",
    "labels",
    "channels",
    "context_slices",
    "resize",
    "input_size",
    "spacing_mm",
    "normalization",
    "tta",
    "postprocess",
)


def _describe_ensemble(path: Path) -> dict[str, Any]:
    members = read_ensemble(path)
    return {
        "kind": "ensemble",
        "path": str(path),
        "members": [member.relative_to(path.parent).as_posix() for member in members],
        "first": describe_checkpoint(members[0]),
    }


def _describe_folder(path: Path) -> dict[str, Any] | None:
    if list_tables(path, "crossval") or any(path.glob("fold_*/version_*")):
        return _describe_crossval(path)
    if any((path / name).exists() for name in _RUN_FILES) or any(path.glob("scores_*.csv")):
        return describe_run(path)
    runs = sorted(path.glob("version_*"), key=_parse_number)
    if runs:
        newest = describe_run(runs[-1])
        return {"kind": "experiment", "path": str(path), "runs": [run.name for run in runs], "newest": newest}
    ensemble = find_ensemble(path)
    return None if ensemble is None else _describe_ensemble(ensemble)


def describe_run(path: Path) -> dict[str, Any]:
    """Describe a run folder: progress, scores and settings.

    Raises:
        UnreadableFileError: A file in it is damaged.
    """
    stages = sorted({stage for table in path.glob("scores_*.csv") if (stage := parse_stage(table)) is not None})
    runs = {stage: read_run(path, stage) for stage in stages}
    run = next(iter(runs.values()), None) or read_run(path, None, labels=())
    environment = run.environment or {}
    return {
        "kind": "run",
        "path": str(path),
        "title": run.title,
        "complete": run.progress is not None,
        "epochs": (run.progress or {}).get("epochs"),
        "steps": (run.progress or {}).get("steps"),
        "planned_steps": (run.progress or {}).get("planned_steps"),
        "out_of_time": (run.progress or {}).get("out_of_time"),
        "checkpoints": sorted(each.name for each in (path / "checkpoints").glob("[!.]*.ckpt")),
        "cases": {side: len((run.splits or {}).get(side) or []) for side in ("train", "val", "test")},
        "scores": {stage: _describe_scores(each) for stage, each in runs.items()},
        "packages": environment.get("packages") or {},
        "git": environment.get("git"),
    }


def _describe_crossval(path: Path) -> dict[str, Any]:
    folds = sorted(path.glob("fold_*"), key=_parse_number)
    newest = {fold.name: sorted(fold.glob("version_*"), key=_parse_number)[-1:] for fold in folds}
    complete = [name for name, runs in newest.items() if runs and (runs[0] / "complete.json").is_file()]
    scores = _describe_scores(read_run(path, "crossval")) if list_tables(path, "crossval") else None
    ensemble = find_ensemble(path)
    return {
        "kind": "crossval",
        "path": str(path),
        "folds": list(newest),
        "complete": complete,
        "scores": scores,
        "ensemble": ensemble and str(ensemble),
    }


def _describe_scores(run: Run) -> dict[str, Any]:
    ends = compute_mean_interval(run)
    folds = ((run.summary.get("folds") or {}).get("foreground_mean") or {}).get("dice")
    return {
        "cases": run.summary.get("n_cases"),
        "patients": run.summary.get("n_groups"),
        "dice": run.summary.get("foreground_mean", {}).get("dice"),
        "ci95": ends and list(ends),
        "labels": {label: (each.get("dice") or {}).get("mean") for label, each in run.summary["labels"].items()},
        **({"over_folds": folds} if folds else {}),
        **({"caution": SCORED_AGAIN} if get_scored_side(run) != run.stage else {}),
    }


def _parse_number(path: Path) -> tuple[int, str]:
    match = re.search(r"_(\d+)$", path.name)
    return (int(match[1]) if match else -1, path.name)


def _list_gpus() -> list[str]:
    """List the NVIDIA GPUs that the driver knows."""
    # The driver's own list: nvidia-smi may be missing in a container, and takes a second where it is not.
    files = sorted(_GPUS.glob("*/information"))
    matches = [re.search(r"^Model:\s*(.+)$", file.read_text(errors="replace"), re.MULTILINE) for file in files]
    return [match[1].strip() for match in matches if match]


def list_lines(described: Mapping[str, Any], indent: str = "") -> Sequence[str]:
    """List a description as lines of names and values.

    >>> list_lines({"kind": "run", "cases": {"train": 2, "val": 1}, "gpus": []})
    ['kind: run', 'cases:', '  train: 2', '  val: 1', 'gpus: –']
    """
    lines = []
    for name, value in described.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", *list_lines(value, f"{indent}  ")]
        else:
            lines.append(f"{indent}{name}: {_format(value)}")
    return lines


def _format(value: Any) -> str:
    if value is None or value in ([], {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list | tuple):
        return ", ".join(_format(each) for each in value)
    return str(value)
