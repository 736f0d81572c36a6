"""`medseg plan`: looks at a data set and writes a configuration for it, each choice with its reason.

Planning the same data again for the same hardware gives the same file.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_pl.arguments import add_data_set, add_workers
from medseg_pl.core.errors import DataError
from medseg_pl.io.files import require_absent, write_text
from medseg_pl.io.progress import progress_bar

if TYPE_CHECKING:
    from medseg_pl.core.types import Case
    from medseg_pl.data.fingerprint import Fingerprint
    from medseg_pl.data.planning import Hardware
    from medseg_pl.data.recognition import Recognised


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    add_data_set(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CONFIG", help="the YAML file to write")
    parser.add_argument("--device", choices=["cpu", "gpu"], help="what it is planned for; default: what there is")
    parser.add_argument("--memory_gb", type=float, metavar="GB", help="of the GPU, or of the machine")
    add_workers(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read the data set, write the configuration and say what was found.

    Raises:
        OutputExistsError: The file is there already.
    """
    from medseg_pl.data.planning import plan
    from medseg_pl.data.recognition import labels_named, recognise

    require_absent(arguments.output)
    labels = labels_named(arguments.labels, arguments.task, arguments.ignore_value)
    found = recognise(
        arguments.directory, layout=arguments.layout, masks=arguments.masks, group=arguments.group, labels=labels
    )
    known = look_at(found, arguments.workers)
    settings = plan(known, found.labels, hardware(arguments.device, arguments.memory_gb))
    write_text(arguments.output, configuration(found, known, settings, arguments))
    for note in found.notes:
        sys.stdout.write(f"Note: {note}.\n")
    sys.stdout.write(f"{summary(known)}\nWrote {arguments.output}; train with\n")
    sys.stdout.write(f"  medseg fit --config {shlex.quote(str(arguments.output))}\n")
    return 0


def look_at(found: Recognised, workers: int) -> Fingerprint:
    """Decode every case into the store, where `fit` finds it again, and measure."""
    from medseg_pl.data.fingerprint import fingerprint
    from medseg_pl.data.store import Store, default_directory

    cases = found.source.cases()
    _require_masks(cases)
    store = Store(default_directory(), found.source, found.labels)
    with progress_bar("Reading cases", len(cases)) as advance:
        entries = store.build(cases, threads=workers, advance=advance)
    return fingerprint(cases, entries, found.labels, found.modality)


def hardware(device: str | None, memory_gb: float | None) -> Hardware:
    """What was asked for, or what the machine has."""
    import torch

    from medseg_pl.data.planning import Hardware

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


def configuration(
    found: Recognised, known: Fingerprint, settings: dict[str, Any], arguments: argparse.Namespace
) -> str:
    """The whole file: what was found, then the settings with their reasons."""
    from medseg_pl.io.annotated_yaml import annotated_yaml

    name = arguments.directory.resolve().name
    head = [f"Planned by `medseg plan` from {summary(known)}", *(f"Taken for granted: {note}." for note in found.notes)]
    data = {"source": found.config, **settings["data"]}
    whole = {"experiment": name, "seed_everything": 0, **settings, "data": data}
    return "".join(f"# {line}\n" for line in head) + annotated_yaml(whole)


def summary(known: Fingerprint) -> str:
    """The data set in one line."""
    height, width = known.sizes[1]
    spacing = "unknown spacing" if known.spacing_mm is None else f"{_times(known.spacing_mm)} mm"
    labels = ", ".join(f"{name} {share:.2%}" for name, share in known.label_shares.items())
    return (
        f"{known.cases} cases of {known.groups} patients, {known.slices} slices, about {height} x {width}, "
        f"{known.channels} channel(s), {spacing}; {labels}."
    )


def _times(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)


def _require_masks(cases: Sequence[Case]) -> None:
    lacking = [case.case_id for case in cases if not case.masks]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(cases)} cases have no reference, {lacking[0]} among them. Planning needs all of "
            "them annotated; move the others away."
        )
