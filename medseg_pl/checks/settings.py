"""What is to be checked: from the command line, or from the configuration of a training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medseg_pl.checks.configured_data import open_configured
from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.label_inference import Labeling, LabelSettings
from medseg_pl.checks.layout_detection import DataSettings, Opened, conclude_labels, open_data_set
from medseg_pl.checks.split_checks import Sides, declared_sides, sides_in_file
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import DecathlonSource, Source
from medseg_pl.data.splits import LabelVoxels, SplitSettings
from medseg_pl.data.transforms.resize import Resize


class Settings(NamedTuple):
    """What is to be checked.

    Attributes:
        root: The folder of the data set.
        opened: The data set.
        said: What was said of labels.
        patch: How images are brought to the network, where that is known.
        split: The split of a configuration, or `None`.
    """

    root: Path
    opened: Opened
    said: LabelSettings
    patch: Resize | None = None
    split: SplitSettings | None = None

    @property
    def source(self) -> Source:
        """What reads the data set."""
        return self.opened.source

    def find_labels(self, cases: Sequence[Case]) -> Labeling:
        """Find what masks should hold; of regions, the values that they are made of."""
        labeling = conclude_labels(self.opened, cases, self.said)
        labels, notes = labeling.labels, labeling.notes
        if isinstance(self.source, DecathlonSource) and self.source.get_file_labels(labels) is not labels:
            note = f"{', '.join(labels.names)} are regions, so the values that they are made of are checked"
            return Labeling(self.source.get_file_labels(labels), (*notes, note))
        return labeling

    def sides(self, cases: Sequence[Case], label_voxels: LabelVoxels) -> tuple[list[Sides], list[Finding]]:
        """The splits that are to be checked: that of the configuration's file, the data's own, or the one drawn."""
        if self.split is not None and self.split.file is not None:
            return sides_in_file(Path(self.split.file), cases)
        declared, found = declared_sides(cases)
        if declared or self.split is None or not cases:
            return declared, found
        try:
            drawn = self.split.choose(cases, label_voxels)
        except (DataError, SettingError) as error:
            return [], [finding("split-invalid", str(error))]
        return [{"train": drawn.train, "val": drawn.val, "test": drawn.test}], []


def settings_of(arguments: argparse.Namespace) -> Settings:
    """What the command line asks for.

    Raises:
        MissingDataError: There is no data set that is known.
        SettingError: Options or a configuration contradict themselves.
    """
    said = DataSettings.from_arguments(arguments)
    patch = Resize("none", (arguments.patch[0], arguments.patch[1])) if arguments.patch else None
    if arguments.config:
        opened, config = open_configured(arguments.config, arguments.directory, said)
        return Settings(Path(config.source.root), opened, said.labels, patch or config.patch, config.split)
    if arguments.directory is None:
        raise SettingError("There is nothing to check. Give a folder, or a training's configuration with --config.")
    return Settings(arguments.directory, open_data_set(arguments.directory, said), said.labels, patch)
