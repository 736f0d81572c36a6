"""The configuration of `medseg plan` as a file: YAML in which a comment gives the reason for a value."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import yaml

from medseg_pl.checks.layout_detection import DetectedDataset
from medseg_pl.core.errors import DataError
from medseg_pl.core.types import Case
from medseg_pl.data.cache.case_cache import CaseCache, find_default_directory
from medseg_pl.data.prepared_data import find_time_axes
from medseg_pl.io.progress import show_progress
from medseg_pl.planning.fingerprint import Fingerprint, compute_fingerprint
from medseg_pl.planning.planner import Commented, Hardware, plan


def dump_annotated_yaml(settings: Mapping[str, Any]) -> str:
    """Write nested mappings as YAML, the same text for the same settings.

    >>> print(dump_annotated_yaml({"model": {"channels": Commented(1, "gray"), "input_size": [64, 64]}}), end="")
    model:
      channels: 1  # gray
      input_size: [64, 64]

    A list of mappings takes a line for each of their values, so that each can have its comment.

    >>> print(dump_annotated_yaml({"channels": [{"low": Commented(0, "air")}, {"low": 1}]}), end="")
    channels:
      - low: 0  # air
      - low: 1
    """
    return "".join(line + "\n" for line in _format_lines(settings, ""))


def _format_lines(settings: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in settings.items():
        inner, comment = value if isinstance(value, Commented) else (value, "")
        if isinstance(inner, Mapping):
            yield f"{indent}{key}:" + (f"  # {comment}" if comment else "")
            yield from _format_lines(inner, indent + "  ")
        elif isinstance(inner, list) and inner and all(isinstance(item, Mapping) and item for item in inner):
            yield f"{indent}{key}:" + (f"  # {comment}" if comment else "")
            for item in inner:
                first, *others = _format_lines(item, indent + "    ")
                yield f"{indent}  - {first.lstrip()}"
                yield from others
        else:
            yield f"{indent}{key}: {_format_scalar(inner)}" + (f"  # {comment}" if comment else "")


def _format_scalar(value: Any) -> str:
    """Format a value on one line, quoted where YAML would read something else."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    # PyYAML ends a bare scalar with the mark of a document's end.
    text = text.removesuffix("...\n").rstrip("\n")  # only these: a no-break space may be the value
    if text.isprintable():
        return text
    # Line breaks, of which Unicode has several, would be folded; between double quotes they are escaped.
    return yaml.safe_dump(value, default_style='"', default_flow_style=True, width=10**9).strip()


class PlannedConfig(NamedTuple):
    """A configuration, and what there is to say of it.

    Attributes:
        text: The YAML file.
        summary: The data set in one line.
        notes: What was taken for granted.
    """

    text: str
    summary: str
    notes: Sequence[str]


def plan_config(dataset: DetectedDataset, hardware: Hardware, name: str, workers: int) -> PlannedConfig:
    """Read a data set whole and write a configuration for it.

    Args:
        dataset: The data set.
        hardware: What it is planned for.
        name: Of the experiment.
        workers: How many cases are read at once.

    Raises:
        DataError: A case has no reference.
        SettingError: The data cannot be trained on.
    """
    fingerprint = measure_dataset(dataset, workers)
    settings = plan(fingerprint, dataset.labels, hardware)
    notes = [note.rstrip(".") for note in find_time_axes(dataset.source.cases())]
    text = _write_config(dataset, fingerprint, settings, name)
    return PlannedConfig(text, summarize(fingerprint), (*dataset.notes, *notes))


def measure_dataset(dataset: DetectedDataset, workers: int) -> Fingerprint:
    """Decode every case into the store, where `fit` finds it again, and measure."""
    cases = dataset.source.cases()
    _require_masks(cases)
    cache = CaseCache(find_default_directory(), dataset.source, dataset.labels)
    with show_progress("Reading cases", len(cases)) as advance:
        index = cache.build(cases, threads=workers, advance=advance)
    return compute_fingerprint(cases, index, dataset.labels, dataset.modalities)


def detect_hardware(device: str | None, memory_gb: float | None) -> Hardware:
    """Take what was asked for, or what the machine has."""
    here = torch.cuda.is_available()
    gpu = here if device is None else device == "gpu"
    if memory_gb is None:
        memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        if gpu:
            memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9 if here else 16.0
    if gpu:
        return Hardware(gpu, memory_gb, bf16=torch.cuda.is_bf16_supported() if here else True)
    # No public function tells: `torch.backends.cpu` knows AVX-512 as a whole, which came ten years before its bf16.
    return Hardware(gpu, memory_gb, bf16=torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _write_config(dataset: DetectedDataset, fingerprint: Fingerprint, settings: dict[str, Any], name: str) -> str:
    """Write what was found, then the settings with their reasons."""
    head = [
        f"Planned by `medseg plan` from {summarize(fingerprint)}",
        *(f"Taken for granted: {note}." for note in dataset.notes),
    ]
    data = {"source": dataset.config, **settings["data"]}
    whole = {"experiment": name, "seed_everything": 0, **settings, "data": data}
    return "".join(f"# {line}\n" for line in head) + dump_annotated_yaml(whole)


def summarize(fingerprint: Fingerprint) -> str:
    """Describe the data set in one line."""
    height, width = fingerprint.sizes[1]
    spacing = "unknown spacing" if fingerprint.spacing_mm is None else f"{_format_lengths(fingerprint.spacing_mm)} mm"
    labels = ", ".join(f"{name} {share:.2%}" for name, share in fingerprint.label_shares.items())
    return (
        f"{fingerprint.cases} cases of {fingerprint.groups} patients, {fingerprint.slices} slices, about {height} x "
        f"{width}, {fingerprint.channels} channel(s), {spacing}; {labels}."
    )


def _format_lengths(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)


def _require_masks(cases: Sequence[Case]) -> None:
    lacking = [case.case_id for case in cases if not case.masks]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(cases)} cases have no reference, {lacking[0]} among them. Planning needs all of "
            "them annotated; move the others away."
        )
