"""What a `dataset.json` says of labels and files, in the dialects of the Decathlon and of nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medseg_pl.core.labels import LabelMap, Task
from medseg_pl.io.paths import is_volume_name, stem

_IGNORE = "ignore"


class DescribedLabels(NamedTuple):
    """The labels of a `dataset.json`, by names in lower case.

    Attributes:
        values: The value of each label that has one, background included.
        regions: The values that make up each label, where some label has several: nnU-Net's regions, which overlap.
        ignore: The value of voxels that nobody annotated.
    """

    values: dict[str, int]
    regions: dict[str, tuple[int, ...]]
    ignore: int | None

    def as_label_map(self) -> LabelMap | None:
        """The labels without the background; `None` where there are none.

        >>> described = read_labels({"background": 0, "tumour": [1, 2], "core": 2, "ignore": 3})
        >>> described.as_label_map()
        LabelMap(names=['tumour', 'core'], task='multilabel', values=None, ignore_value=3, ...)
        """
        if self.regions:
            return LabelMap(list(self.regions), "multilabel", None, self.ignore)
        named = {name: value for name, value in sorted(self.values.items(), key=lambda pair: pair[1]) if value}
        return _make_exclusive(named, self.ignore) if named else None

    def of_values(self) -> LabelMap:
        """A label for each value that regions are made of: what mask files hold before they are united."""
        values = sorted({value for several in self.regions.values() for value in several})
        return _make_exclusive({f"value_{value}": value for value in values}, self.ignore)


def read_labels(labels: object) -> DescribedLabels:
    """Read `{"0": "background", "1": "liver"}`, `{"background": 0, "liver": 1}`, and regions `{"tumour": [1, 2]}`.

    Args:
        labels: The field `labels`; anything that cannot be understood is left out.
    """
    if not isinstance(labels, dict):
        return DescribedLabels({}, {}, None)
    several = {str(name).lower(): _whole_numbers(value) for name, value in labels.items() if isinstance(value, list)}
    pairs = [(name, value) if isinstance(value, int) else (value, name) for name, value in labels.items()]
    single = {str(n).lower(): int(v) for n, v in pairs if isinstance(n, str) and str(v).isdigit()}
    single |= {name: values[0] for name, values in several.items() if len(values) == 1}
    ignore = single.pop(_IGNORE, None)
    if all(len(values) == 1 for values in several.values()):
        return DescribedLabels(single, {}, ignore)
    whole = {str(name).lower(): several.get(str(name).lower()) or () for name in labels}
    regions = {name: values or ((single[name],) if single.get(name) else ()) for name, values in whole.items()}
    return DescribedLabels(single, {name: values for name, values in regions.items() if values}, ignore)


def list_channels(root: Path, name: str, ending: str, channels: int) -> list[str]:
    """Name the channel files of a case as nnU-Net does, below the root.

    A picture with several channels may stand in `<case>_0000` alone.
    """
    names = [f"imagesTr/{name}_{channel:04d}{ending}" for channel in range(channels)]
    in_one = channels > 1 and not is_volume_name(Path(names[0])) and (root / names[0]).is_file()
    return names[:1] if in_one and not any((root / other).exists() for other in names[1:]) else names


def list_dataset(dataset: Any) -> list[Mapping[str, Any]] | None:
    """List the entries of nnU-Net's field `dataset`, each with a name, images and a label; `None` if it is no such.

    >>> list_dataset({"a": {"images": ["x/a.png"], "label": "y/a.png"}})
    [{'name': 'a', 'images': ['x/a.png'], 'label': 'y/a.png'}]
    """
    entries = [{"name": name, **entry} for name, entry in dataset.items()] if _is_dict_of_dicts(dataset) else dataset
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        return None
    return [{"name": entry.get("name") or stem(Path(entry["label"])), **entry} for entry in entries]


def _is_dict_of_dicts(dataset: Any) -> bool:
    return isinstance(dataset, dict) and all(isinstance(entry, dict) for entry in dataset.values())


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        return False
    images = entry.get("images")
    return isinstance(images, list) and bool(images) and all(isinstance(image, str) for image in images)


def _whole_numbers(values: list[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values if str(value).isdigit())


def _make_exclusive(values: dict[str, int], ignore: int | None) -> LabelMap:
    task: Task = "binary" if len(values) == 1 else "multiclass"
    plain = list(values.values()) == list(range(1, len(values) + 1))
    return LabelMap(list(values), task, None if plain else list(values.values()), ignore)
