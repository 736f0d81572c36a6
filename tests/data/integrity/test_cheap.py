"""What `fit` can tell from the store alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.integrity import cheap_findings
from medseg_pl.data.store import StoredCase
from medseg_pl.functional.fit import Fit
from tests.data.integrity.facts_of import case_of, codes

LABELS = LabelMap(["organ", "lesion"], "multiclass")


class Untouchable(np.ndarray):
    """Pixels that nobody may look at."""

    def __getitem__(self, key: object) -> object:
        raise AssertionError("a pixel was read")


def stored(voxels: Sequence[int], shape: tuple[int, int, int] = (1, 32, 40)) -> StoredCase:
    pixels = np.zeros((1, *shape)).view(Untouchable)
    return StoredCase(
        image=pixels,
        mask=pixels.astype(np.uint8),
        geometry=Geometry(shape),
        statistics=np.zeros((1, 4), np.float32),
        foreground=[np.zeros((min(count, 1), 3), np.int32) for count in voxels],
        label_voxels=tuple(voxels),
    )


def found(
    *voxels: Sequence[int], train: str = "012", val: str = "3", groups: str = "0123", patch: Fit | None = None
) -> list[str]:
    cases = [case_of(str(number), group) for number, group in zip(range(len(voxels)), groups, strict=True)]
    entries = {str(number): stored(counts) for number, counts in enumerate(voxels)}
    return codes(cheap_findings(cases, entries, LABELS, {"train": list(train), "val": list(val), "test": []}, patch))


@pytest.mark.parametrize(
    ("voxels", "options", "codes"),
    [
        ([(9, 3)] * 4, {}, []),
        ([(0, 0)] * 4, {}, ["masks-all-empty"]),
        ([(9, 0)] * 4, {}, ["label-never-present"]),
        ([(9, 0), (9, 0), (9, 0), (9, 3)], {}, ["label-missing-from-training", "label-in-one-case"]),
        ([(9, 3)] * 4, {"train": "0123", "val": ""}, ["empty-side"]),
        ([(9, 3)] * 4, {"groups": "0120"}, ["patient-on-both-sides"]),
        ([(9, 3)] * 4, {"patch": Fit("native", (33, 40))}, ["smaller-than-patch"] * 4),
    ],
)
def test_findings(voxels: list[tuple[int, int]], options: dict[str, object], codes: list[str]) -> None:
    assert found(*voxels, **options) == codes  # type: ignore[arg-type]


def test_cases_without_masks_hold_no_label() -> None:
    bare = Case("bare", "bare", case_of("a").images)
    with_mask = [case_of(str(number)) for number in range(2)]
    entries = {"bare": stored(()), "0": stored((9, 3)), "1": stored((9, 3))}
    sides = {"train": ["0", "bare"], "val": ["1"]}
    assert codes(cheap_findings([bare, *with_mask], entries, LABELS, sides)) == []
