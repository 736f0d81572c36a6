"""Export of a checkpoint to a folder that has proved itself, with a model card and a data card."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from medseg_pl import __version__
from medseg_pl.core import errors, fact_limits, geometry, image_facts, image_findings, intensity, training_profile
from medseg_pl.core.errors import ExportError, SettingError, make_printable
from medseg_pl.core.import_policy import restrict_imports
from medseg_pl.data.prepared_data import open_source, use_mask_values
from medseg_pl.data.sources import Source
from medseg_pl.data.transforms import grids
from medseg_pl.export import image_files
from medseg_pl.inference import components
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.atomic_files import require_empty, write_folder_atomically
from medseg_pl.models.ensemble_file import expand_ensembles, find_ensemble
from medseg_pl.models.segmentation_model import SegmentationModel, load_model
from medseg_pl.reporting import Run, read_run
from medseg_pl.reporting.markdown import escape, format_table, write_blocks, write_label_shares, write_survey
from medseg_pl.reporting.summary import list_limitations
from medseg_pl.training.checkpoints import CheckpointInfo, get_run_folder, read_checkpoint

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")

_RUNNER = Path(__file__).with_name("runner.py")

_RUNTIME = (
    components,
    errors,
    fact_limits,
    geometry,
    grids,
    image_facts,
    image_files,
    image_findings,
    intensity,
    training_profile,
)
"""What the runner shares with medseg: modules that import nothing but each other and `REQUIREMENTS`."""

REQUIREMENTS = """\
# What run.py needs; nibabel reads NIfTI, Pillow pictures.
nibabel>=5.3
numpy>=2.0
onnxruntime>=1.23
opencv-python-headless>=4.10.0.84
pillow>=12.1.1
scipy>=1.13
"""

MODEL_CARD, DATA_CARD = "MODEL_CARD.md", "DATA_CARD.md"

NOT_KNOWN = "not known"


def export(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Write the folder, and prove it with its golden cases.

    It gets its name only then.

    Returns:
        The cost of the export in Dice, where it was measured.

    Raises:
        SettingError: A package is missing, or the checkpoint's settings name code that is not allowed.
        ExportError: The network cannot be written, or computes something else afterwards.
        OutputExistsError: There is something in the folder.
    """
    _require_packages()
    require_empty(arguments.output)
    ensemble = find_ensemble(arguments.ckpt_path)
    members = [read_checkpoint(path) for path in expand_ensembles([arguments.ckpt_path])]
    if ensemble is not None and (arguments.measure or arguments.data_root is not None):
        raise SettingError(
            "--measure needs cases that the model was not trained on, and an ensemble of folds was trained on all of "
            "them. Leave it out; summary_crossval.json has the scores of its members."
        )
    plugins = [name for value in arguments.plugins for name in value.split(",")]
    with restrict_imports(plugins), write_folder_atomically(arguments.output) as folder:
        measured = _write(folder, members, ensemble, arguments)
    program = shlex.quote(str(arguments.output / "run.py"))
    sys.stdout.write(
        f"Wrote {arguments.output}: python {make_printable(program)} IMAGE -o DIR runs it without torch.\n"
    )
    return measured


def export_checkpoint(
    ckpt_path: str | Path, output: str | Path, precision: str = "fp32", plugins: Sequence[str] = ()
) -> None:
    """Export a checkpoint from Python, as `medseg export` does.

    Args:
        ckpt_path: The checkpoint.
        output: A new folder.
        precision: Of the weights: `fp32`, `fp16` or `int8`.
        plugins: Packages of your own that the checkpoint's settings may name.
    """
    options = {"measure": False, "data_root": None, "plugins": list(plugins)}
    export(argparse.Namespace(ckpt_path=str(ckpt_path), output=Path(output), precision=precision, **options))


def _write(
    folder: Path, members: Sequence[CheckpointInfo], ensemble: Path | None, arguments: argparse.Namespace
) -> dict[str, Any] | None:
    from medseg_pl.export.golden_cases import (
        make_golden_cases,
        save_arrays,
    )  # these need the packages that were asked for
    from medseg_pl.export.onnx_model import (
        export_onnx,
        list_golden_entries,
        make_specification,
        replace_network,
        seal_folder,
    )

    trained = members[0]
    changes = {"compile_network": False}  # torch.export takes no compiled network
    settings = {**trained.settings["model"], **changes}
    model = load_ensemble(members, changes)
    model.labels = use_mask_values(model.labels, trained.mask_values)
    tensors = save(select_network_weights(model.state_dict()), {"format": "pt", "medseg": __version__})
    (folder / "weights.safetensors").write_bytes(tensors)
    graph = export_onnx(model, arguments.precision)
    spec = make_specification(
        model,
        settings,
        slicing=_find_slicing(trained),
        any_size=graph.any_size,
        precision=arguments.precision,
        orientation=trained.orientation,
    )
    spec["profiles"] = [member.profile for member in members if member.profile is not None]
    exact = arguments.precision == "fp32"
    cases = make_golden_cases(model if exact else replace_network(model, graph.model), spec["whole_image_max_pixels"])
    (folder / "golden").mkdir()
    for case in cases:
        save_arrays(folder / "golden" / f"{case.name}.npz", case.arrays)
    copy_runner(folder)
    spec |= {"golden": list_golden_entries(cases), "measured": None}
    seal_folder(folder, graph.model, spec)
    sys.stdout.write(_run_self_test(folder))
    measured = arguments.measure or arguments.data_root is not None
    for note in _list_notes(spec, str(trained.settings["trainer"]["precision"]), measured=measured):
        sys.stdout.write(f"{note}\n")
    if measured:
        plugins = [name for value in arguments.plugins for name in value.split(",")]
        source = open_source(trained.settings, arguments.data_root, plugins).orient(trained.orientation)
        spec["measured"] = _measure(trained, folder, source)
        seal_folder(folder, graph.model, spec)
        _run_self_test(folder)
    write_cards(folder, trained, spec, ensemble)  # sealed with no checksum: they are there to be written on
    result: dict[str, Any] | None = spec["measured"]
    return result


def copy_runner(folder: Path) -> None:
    """Copy the runner, the modules that it shares, and its requirements.

    The modules lie in a package of another name, so that a folder on Python's path never hides medseg itself.
    """
    runtime = folder / "medseg_runtime"
    runtime.mkdir()
    (runtime / "__init__.py").write_text(f'"""Modules of medseg {__version__} that predict and export share."""\n')
    copies = {folder / "run.py": _RUNNER}
    copies |= {runtime / f"{module.__name__.rpartition('.')[2]}.py": Path(str(module.__file__)) for module in _RUNTIME}
    for copy, original in copies.items():
        text = original.read_text(encoding="utf-8")
        renamed = re.sub(
            r"^( *from) medseg_pl(?:\.\w+)*\.(\w+) import", r"\1 medseg_runtime.\2 import", text, flags=re.M
        )
        copy.write_bytes(renamed.encode())  # bytes: the checksums are the same on every system
    (folder / "requirements.txt").write_text(REQUIREMENTS)


def select_network_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """Select the network's weights from a model's state, by the network's names."""
    prefix = "network."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name: value.contiguous().clone() for name, value in weights.items()}


def _measure(trained: CheckpointInfo, folder: Path, source: Source) -> dict[str, Any]:
    from medseg_pl.export.golden_cases import measure_accuracy

    predictor = Predictor([load_model(trained)], precision=str(trained.settings["trainer"]["precision"]))
    accuracy = measure_accuracy(trained, predictor, folder, source)
    dice = {name: "unknown" if value is None else f"{value:.4f}" for name, value in accuracy["dice"].items()}
    sys.stdout.write(
        f"Mean Dice of {accuracy['cases']} validation cases: {dice['checkpoint']} by the checkpoint, "
        f"{dice['exported']} exported.\n"
    )
    return accuracy


def _run_self_test(folder: Path) -> str:
    """Run `run.py --self-test` where only the folder is visible."""
    # Isolated: neither this environment's variables nor the current folder may help the runner.
    command = [sys.executable, "-I", "run.py", "--self-test"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExportError(
            "The exported model does not compute what the checkpoint does, so nothing was written: "
            f"{done.stderr.strip().splitlines()[-1]} Train longer, or let a normalization of your own treat "
            "each pixel by itself."
        )
    return done.stdout


def _find_slicing(trained: CheckpointInfo) -> str:
    """Find how the source cuts volumes; by default into the file's slices."""
    return str((trained.settings["data"]["source"].get("init_args") or {}).get("slicing", "file"))


def _list_notes(spec: Mapping[str, Any], precision: str, *, measured: bool) -> list[str]:
    """List what a user should know of this export.

    Args:
        spec: Its specification.
        precision: In which the checkpoint computes, in Lightning's words.
        measured: Whether the cost in Dice is measured.
    """
    lines = []
    # Settings keep Lightning's short names, such as bf16.
    if precision.startswith(("bf16", "16")):
        lines.append(
            f"run.py computes in 32 bits and medseg predict in the checkpoint's {precision}, so masks may differ by a "
            "few voxels; compare with medseg predict --trainer.precision 32-true."
        )
    if spec["precision"] != "fp32" and not measured:
        lines.append(
            f"What {spec['precision']} costs in Dice was not measured; --measure does, on the validation cases."
        )
    if not spec["any_size"]:
        height, width = spec["window"]
        lines.append(
            f"The network can be exported for one size only, {height} x {width}: larger images run in windows, which "
            "medseg predict runs whole where they fit."
        )
    return lines


def _require_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingError(
            f"medseg export needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed. "
            "Install what belongs to it with pip install 'medseg[export]'."
        )


class EnsembleNetwork(nn.Module):
    r"""Compute logits whose probabilities are the mean over several networks.

    With exclusive classes the softmax of $\log \sum_i \mathrm{softmax}(z_i)$ is the mean of the softmaxes; otherwise
    the sigmoid of $\log \bar p - \log (1 - \bar p)$ is $\bar p$.

    Args:
        members: Networks that take the same images and know the same classes.
        exclusive: Whether one class excludes the others.
    """

    def __init__(self, members: Sequence[nn.Module], *, exclusive: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.exclusive = exclusive

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Compute the logits of the mean probabilities."""
        # In 32 bits whatever the members compute in: the logarithms of half precision are coarse.
        logits = torch.stack([member(image).float() for member in self.members])
        if self.exclusive:
            return torch.logsumexp(log_softmax(logits, dim=2), dim=0)
        # The number of members cancels out.
        return torch.logsumexp(logsigmoid(logits), dim=0) - torch.logsumexp(logsigmoid(-logits), dim=0)


def load_ensemble(members: Sequence[CheckpointInfo], changes: dict[str, Any]) -> SegmentationModel:
    """Load checkpoints that differ only in their weights as one model.

    Args:
        members: At least one.
        changes: Settings of the model that differ from those of the checkpoints.

    Raises:
        SettingError: The members differ in more than their weights.
    """
    first = members[0].settings["model"]
    for member in members[1:]:
        if differing := sorted(name for name in first if first[name] != member.settings["model"].get(name)):
            raise SettingError(
                f"{member.path} differs from {members[0].path} in model.{differing[0]}, so both cannot be one graph. "
                "Export each of them alone; medseg predict averages any."
            )
    models = [
        load_model(each._replace(settings={**each.settings, "model": {**each.settings["model"], **changes}}))
        for each in members
    ]
    model = models[0]
    if len(models) > 1:
        # Normalization is the first model's: it follows from the settings, which are the same.
        networks = [each.network for each in models]
        model.network = EnsembleNetwork(networks, exclusive=model.labels.task == "multiclass").eval()
    return model


def write_cards(folder: Path, trained: CheckpointInfo, spec: Mapping[str, Any], ensemble: Path | None = None) -> None:
    """Write both cards.

    Args:
        folder: Of the export.
        trained: The checkpoint, whose run folder has the scores.
        spec: The specification of the export.
        ensemble: The file of the ensemble of which the checkpoint is the first member; its folder has the scores.

    Raises:
        UnreadableFileError: A file of the run folder is damaged.
    """
    checkpoint = (ensemble or Path(trained.path)).name
    if ensemble is not None and any(ensemble.parent.glob("scores_crossval*.csv")):
        run = read_run(ensemble.parent, "crossval")
    else:
        run = find_run(trained, spec["labels"]["names"])
    environment = Environment(
        loader=PackageLoader("medseg_pl.export", "cards"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["escaped"] = escape
    values: dict[str, Any] = {"run": run, "spec": spec, "labels": run.labels, "blocks": write_blocks(run)}
    values |= {
        "checkpoint": checkpoint,
        "inputs": describe_inputs(spec),
        "exported": describe_export(spec),
    }
    values |= {
        "survey": write_survey(run),
        "shares": write_label_shares(run),
        "limits": list_limitations(run) + _list_export_limits(spec, checkpoint),
    }
    values["evaluation"] = values["blocks"]["evaluate"] if run.rows else f"Its scores are {NOT_KNOWN}: medseg test."
    for name in (MODEL_CARD, DATA_CARD):
        text = environment.get_template(f"{name.lower()}.j2").render(values)
        (folder / name).write_text(text, encoding="utf-8")


def find_run(trained: CheckpointInfo, labels: list[str]) -> Run:
    """Read the run of a checkpoint.

    A checkpoint without a run folder gives a run without scores.
    """
    folder = get_run_folder(Path(trained.path))
    if (folder / "config.yaml").is_file():
        return read_run(folder, None, labels=labels)
    summary: dict[str, Any] = {"labels": {label: {} for label in labels}}
    title = str(trained.settings.get("experiment") or Path(trained.path).stem)
    return Run(folder, title, "none", [], summary, [], trained.data.get("split"), None, trained.settings)


def describe_inputs(spec: Mapping[str, Any]) -> list[str]:
    """Describe what an image has to be, and what the masks are."""
    context, spacing = spec["context_slices"], spec["spacing_mm"]
    neighbors = f"; each is seen with {context} of its neighbors on each side" if context else ""
    rows = [
        ["channels", spec["channels"]],
        ["slices", f"slicing: {spec['slicing']}{neighbors}"],
        ["values", "raw; the network normalizes them"],
        ["size", "as it is" if spec["resize"] == "none" else f"scaled to {_join_sides(spec['input_size'])}"],
        ["spacing", "as it is" if spacing is None else f"resampled to {_join_sides(spacing)} mm, and back"],
        ["labels", ", ".join(escape(name) for name in spec["labels"]["names"])],
        ["labels may overlap", "yes" if spec["labels"]["task"] == "multilabel" else "no"],
        ["cleaning", ", ".join(escape(name) for name in spec["postprocess"]) or "none"],
    ]
    return format_table(["", ""], rows)


def describe_export(spec: Mapping[str, Any]) -> list[str]:
    """Describe how the export differs from the checkpoint."""
    tolerance, measured = spec["tolerance"], spec["measured"]
    rows = [
        ["precision", spec["precision"]],
        ["sizes", "any" if spec["any_size"] else f"windows of {_join_sides(spec['window'])}"],
        ["self-test", f"{tolerance['agreement']:.2%} of the pixels of {len(spec['golden'])} golden cases must agree"],
    ]
    if measured is None:
        return format_table(["", ""], [*rows, ["cost in Dice", NOT_KNOWN]])
    before, after, cost = (_format_dice(measured["dice"][name]) for name in ("checkpoint", "exported", "cost"))
    cost_line = f"{cost}: {before} by the checkpoint, {after} exported, over {measured['cases']} validation cases"
    return format_table(["", ""], [*rows, ["cost in Dice", cost_line]])


def _list_export_limits(spec: Mapping[str, Any], checkpoint: str) -> list[str]:
    limits = []
    if checkpoint.endswith(".json"):
        limits.append("It is an ensemble; the scores are of its members, each on patients that it was not trained on.")
    elif checkpoint != "best.ckpt":
        limits.append(f"The scores are of the run; this export is of {checkpoint}, which may not be what was scored.")
    if spec["precision"] != "fp32" and spec["measured"] is None:
        limits.append(f"What {spec['precision']} costs in Dice was not measured.")
    return limits


def _join_sides(numbers: Any) -> str:
    return " × ".join(f"{number:g}" for number in numbers)


def _format_dice(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.4f}"
