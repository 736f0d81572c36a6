"""Who is trained on, who is watched, who is tested: never one patient on two sides."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.core.errors import DataError, MissingDataError, SettingError
from medseg_pl.core.types import Case
from medseg_pl.data.splits import (
    SIDES,
    Split,
    SplitSettings,
    assign_stratified,
    find_declared_split,
    find_leaking_groups,
    read_split,
    restore_split,
    split_by_folds,
    split_by_fractions,
)


def cases(*sizes: int) -> list[Case]:
    """Patients A, B, C … with so many cases each."""
    names = [(chr(ord("A") + patient), number) for patient, size in enumerate(sizes) for number in range(size)]
    return [Case(f"{group}{number}", group, (Path(f"{group}{number}.png"),)) for group, number in names]


def sides(split: Split) -> list[set[str]]:
    return [set(getattr(split, side)) for side in SIDES]


def check_sound(split: Split, data: list[Case]) -> None:
    """Every case on one side, every patient on one side."""
    train, val, test = sides(split)
    assert len(split.train) + len(split.val) + len(split.test) == len(data)
    assert train | val | test == {case.case_id for case in data}
    groups = [{name[0] for name in side} for side in (train, val, test)]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert find_leaking_groups(split, data) == []


some_patients = st.lists(st.integers(1, 6), min_size=5, max_size=20)


@given(sizes=some_patients, folds=st.integers(2, 5), seed=st.integers(0, 1000))
def test_every_case_is_held_out_exactly_once(sizes: list[int], folds: int, seed: int) -> None:
    data = cases(*sizes)
    splits = [split_by_folds(data, fold, folds, seed) for fold in range(folds)]
    for split in splits:
        check_sound(split, data)
        assert split.test == ()
    held_out = Counter(name for split in splits for name in split.val)
    assert held_out == Counter(case.case_id for case in data)


@given(sizes=some_patients, seed=st.integers(0, 1000), shuffled=st.randoms(use_true_random=False))
def test_the_order_of_the_cases_does_not_matter(sizes: list[int], seed: int, shuffled: Any) -> None:
    data = cases(*sizes)
    mixed = list(data)
    shuffled.shuffle(mixed)
    assert split_by_folds(mixed, 1, 3, seed) == split_by_folds(data, 1, 3, seed)
    assert split_by_fractions(mixed, (0.5, 0.3, 0.2), seed) == split_by_fractions(data, (0.5, 0.3, 0.2), seed)


def test_sides_are_sorted_and_the_origin_is_said() -> None:
    split = split_by_folds(cases(*[3] * 6), fold=2, folds=3, seed=7)
    assert all(list(getattr(split, side)) == sorted(getattr(split, side)) for side in SIDES)
    assert split.origin == "fold 2 of 3 by patient, seed 7"


def test_another_seed_holds_out_other_patients() -> None:
    data = cases(*[1] * 20)
    assert len({split_by_folds(data, 0, 5, seed).val for seed in range(10)}) == 10
    assert split_by_folds(data, 0, 5, 3) == split_by_folds(data, 0, 5, 3)


def test_large_patients_are_spread_over_the_folds() -> None:
    data = cases(9, 8, 7, 1, 1, 1, 2, 1, 3)  # 33 cases: three folds of 11, by hand 9+2, 8+3, 7+1+1+1+1
    assert [len(split_by_folds(data, fold, 3, seed).val) for seed in range(5) for fold in range(3)] == [11] * 15


@pytest.mark.parametrize(("fold", "folds"), [(5, 5), (-1, 5), (0, 1), (0, 0)])
def test_a_fold_that_does_not_exist_is_refused(fold: int, folds: int) -> None:
    with pytest.raises(SettingError) as error:
        split_by_folds(cases(1, 1, 1, 1, 1), fold, folds, 0)
    assert str(error.value) == f"data.fold must be from 0 to data.folds - 1; got fold {fold} of {folds}."


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(SettingError) as error:
        split_by_folds(cases(9, 9, 9), 0, 5, 0)
    assert str(error.value) == "5 folds need at least 5 patients; the data has 3. Lower data.folds."


@given(sizes=some_patients, seed=st.integers(0, 1000))
def test_fractions_are_shares_of_the_patients(sizes: list[int], seed: int) -> None:
    data = cases(*sizes)
    split = split_by_fractions(data, (0.6, 0.2, 0.2), seed)
    check_sound(split, data)
    patients = [len({name[0] for name in side}) for side in sides(split)]
    share = max(1, round(0.2 * len(sizes)))
    assert patients == [len(sizes) - 2 * share, share, share]


def test_a_share_of_zero_leaves_the_side_empty_and_a_small_one_does_not() -> None:
    split = split_by_fractions(cases(*[1] * 10), (0.9, 0.1, 0.0), 0)
    assert [len(side) for side in sides(split)] == [9, 1, 0]
    split = split_by_fractions(cases(*[1] * 10), (0.98, 0.01, 0.01), 0)
    assert [len(side) for side in sides(split)] == [8, 1, 1]
    assert split.origin == "fractions 0.98, 0.01, 0.01 by patient, seed 0"


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.2), (0.5, 0.5), (1.2, -0.1, -0.1), (0.0, 0.5, 0.5)])
def test_shares_must_add_up(fractions: tuple[float, ...]) -> None:
    with pytest.raises(
        SettingError, match=r"data\.split_fractions must be three shares \(train, val, test\) that add up to 1"
    ):
        split_by_fractions(cases(1, 1, 1), fractions, 0)


def test_too_few_patients_for_three_sides() -> None:
    with pytest.raises(SettingError, match=r"2 patients are too few for the fractions \[0\.5, 0\.3, 0\.2\]"):
        split_by_fractions(cases(5, 5), (0.5, 0.3, 0.2), 0)


def declared(**groups: Any) -> list[Case]:
    """`A=["train", 3, None]`: the cases of a patient with what each declares."""
    return [
        Case(
            f"{group}{number}",
            group,
            (Path("x.png"),),
            split=what if isinstance(what, str) else None,
            fold=what if isinstance(what, int) else None,
        )
        for group, declarations in groups.items()
        for number, what in enumerate(declarations)
    ]


def test_a_declared_split_is_taken() -> None:
    split = find_declared_split(declared(A=["train", "train"], B=["val"], C=["test"], D=["train"]), fold=0)
    assert split == Split(("A0", "A1", "D0"), ("B0",), ("C0",), "declared by the data set (fold 0)")


def test_declared_folds_are_taken_beside_a_declared_test_side() -> None:
    data = declared(A=[0, 0], B=[1], C=["test"], D=[1])
    split = find_declared_split(data, fold=1)
    assert split is not None
    assert (split.train, split.val, split.test) == (("A0", "A1"), ("B0", "D0"), ("C0",))


def test_nothing_declared_is_no_split() -> None:
    assert find_declared_split(cases(1, 2), fold=0) is None


def test_half_a_declaration_is_refused() -> None:
    with pytest.raises(DataError, match=r"2 cases declare neither split nor fold while others do, B0 among them\. "):
        find_declared_split(declared(A=["train"], B=[None, None]), fold=0)


def test_a_declared_leak_names_the_patient() -> None:
    with pytest.raises(DataError) as error:
        find_declared_split(declared(A=["train"], Smith=["train", "val"], B=["val"]), fold=0)
    assert str(error.value) == (
        "The split (declared by the data set (fold 0)) puts one patient on two sides: Smith. "
        "Scores would look better than they are. Move all cases of a patient to one side."
    )


def test_a_declared_fold_without_cases_is_refused() -> None:
    with pytest.raises(DataError, match=r"leaves 2 cases for training and 0 for validation; both need at least one"):
        find_declared_split(declared(A=[0], B=[1]), fold=2)


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("folds", [2, 5])
def test_our_own_file_reads_back(tmp_path: Path, folds: int) -> None:
    data = cases(3, 1, 2, 2, 1, 1)
    split = split_by_folds(data, 1, folds, seed=4)
    read = read_split(write(tmp_path / "splits.json", json.dumps(split.as_dict())), data, fold=0)
    assert sides(read) == sides(split)
    assert read.origin == "read from splits.json, fold 0"


def test_a_list_of_folds_as_nnunet_writes_it(tmp_path: Path) -> None:
    folds = [{"train": ["A0", "A1", "B0"], "val": ["C0"]}, {"train": ["C0", "B0"], "val": ["A1", "A0"]}]
    path = write(tmp_path / "splits_final.json", folds)
    data = cases(2, 1, 1)
    assert read_split(path, data, 0) == Split(("A0", "A1", "B0"), ("C0",), (), "read from splits_final.json, fold 0")
    assert read_split(path, data, 1).val == ("A0", "A1")


def test_cases_that_the_file_does_not_name_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", {"train": ["A0"], "val": ["B0"], "test": ["C0"]})
    split = read_split(path, cases(2, 3, 1), 0)
    assert (split.train, split.val, split.test) == (("A0",), ("B0",), ("C0",))


@pytest.mark.parametrize(
    "content",
    [
        {"train": ["A0"], "val": ["A1"]},
        {"train": ["A0", "B0"], "val": ["C0"], "test": ["A1"]},
        {"train": ["B0"], "val": ["A0"], "test": ["A1"]},
    ],
)
def test_a_leak_in_a_file_names_the_patient(tmp_path: Path, content: dict[str, list[str]]) -> None:
    with pytest.raises(DataError, match=r"read from s\.json, fold 0\) puts one patient on two sides: A"):
        read_split(write(tmp_path / "s.json", content), cases(2, 1, 1), 0)


@pytest.mark.parametrize(
    "content",
    [
        {"train": ["A0", "B0"], "val": ["A0"]},
        {"train": ["B0"], "val": ["A0"], "test": ["A0"]},
        {"train": ["B0"], "val": ["A0", "A0"]},
    ],
)
def test_a_case_that_a_file_names_twice_is_refused(tmp_path: Path, content: dict[str, list[str]]) -> None:
    path = write(tmp_path / "s.json", content)
    with pytest.raises(
        DataError, match=r"s\.json names the case A0 twice, on one side or on two\. Name each case once"
    ):
        read_split(path, cases(1, 1), 0)


def test_names_that_the_data_does_not_have_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", {"train": ["A0", "X0"], "val": ["B0", "Y1"]})
    with pytest.raises(DataError, match=r"s\.json names 2 cases that the data does not have, X0 among them"):
        read_split(path, cases(1, 1), 0)


@pytest.mark.parametrize("content", ["not json", "7", "null", [0, 1, 2, [1]], {"train": 5}])
def test_a_file_that_holds_no_split_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"s\.json holds no split for fold 3: "):
        read_split(write(tmp_path / "s.json", content), cases(1, 1), 3)


def test_a_misspelled_side_is_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    data = cases(1, 1, 1)
    names = [case.case_id for case in data]
    path = write(tmp_path / "s.json", {"train": names[:1], "val": names[1:2], "tests": names[2:]})
    with pytest.raises(DataError, match="it has a list 'tests', and the sides are train, val, test"):
        read_split(path, data, 0)
    path.write_text("\ufeff" + json.dumps({"train": names[:2], "val": names[2:]}), encoding="utf-8")
    assert read_split(path, data, 0).val == (names[2],)


@pytest.mark.parametrize("fold", [-1, 2, 9])
def test_a_fold_that_a_list_does_not_have_is_refused(tmp_path: Path, fold: int) -> None:
    path = write(tmp_path / "s.json", [{"train": ["A0"], "val": ["B0"]}, {"train": ["B0"], "val": ["A0"]}])
    with pytest.raises(SettingError) as error:
        read_split(path, cases(1, 1), fold)
    assert str(error.value) == f"{path} has 2 folds; data.fold must be from 0 to 1, not {fold}."


def test_a_file_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"s\.json does not exist\. Set data\.split_file to a splits\.json"):
        read_split(tmp_path / "s.json", cases(1, 1), 0)


SAVED = Split(("A0", "A1"), ("B0",), ("C0",), "fold 1 of 3 by patient, seed 4")


def test_a_split_is_plain_values() -> None:
    expected = {"train": ["A0", "A1"], "val": ["B0"], "test": ["C0"], "origin": "fold 1 of 3 by patient, seed 4"}
    assert SAVED.as_dict() == expected
    assert json.loads(json.dumps(SAVED.as_dict())) == expected


def test_a_restored_split_is_the_same_whatever_came_since() -> None:
    assert restore_split(SAVED.as_dict(), cases(2, 1, 1)) == SAVED
    assert restore_split(SAVED.as_dict(), cases(3, 2, 2, 5)) == SAVED


def test_a_restored_split_needs_no_case_that_was_only_trained_on() -> None:
    data = [case for case in cases(2, 1, 1) if case.case_id != "A0"]
    assert restore_split(SAVED.as_dict(), data) == Split(("A1",), ("B0",), ("C0",), SAVED.origin)


@pytest.mark.parametrize(("missing", "count"), [("B", 1), ("C", 1), ("BC", 2)])
def test_a_restored_split_needs_the_cases_that_are_scored(missing: str, count: int) -> None:
    data = [case for case in cases(2, 1, 1) if case.group not in missing]
    with pytest.raises(DataError) as error:
        restore_split(SAVED.as_dict(), data)
    assert str(error.value) == (
        f"The data lacks {count} case{'s' * (count > 1)} that the checkpoint's split scores, such as {missing[0]}0. "
        "Set data.source to the data of the training, or give a split: data.split_file, data.split_fractions or "
        "data.folds."
    )


def settings(**asked: Any) -> SplitSettings:
    return SplitSettings(**{"fold": 0, "folds": 3, "fractions": None, "file": None, "seed": 0, **asked})


def test_a_file_comes_before_what_the_data_declares(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", {"train": ["A0"], "val": ["B0"]})
    data = declared(A=["val"], B=["train"])
    split = settings(file=str(path)).choose(data)
    assert (split.val, split.origin) == (("B0",), "read from s.json, fold 0")
    assert settings().choose(data).val == ("A0",)


def test_what_the_data_declares_comes_before_folds() -> None:
    split = settings(folds=2, fold=1).choose(declared(A=[0], B=[1], C=[0]))
    assert (split.val, split.origin) == (("B0",), "declared by the data set (fold 1)")


def test_fractions_come_before_folds() -> None:
    split = settings(fractions=(0.4, 0.4, 0.2), fold=1).choose(cases(*[1] * 5))
    assert [len(side) for side in sides(split)] == [2, 2, 1]


def test_a_file_and_fractions_are_two_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", {"train": ["A0"], "val": ["B0"]})
    with pytest.raises(SettingError) as error:
        settings(file=str(path), fractions=(0.5, 0.5, 0.0)).choose(cases(1, 1))
    assert str(error.value) == (
        "The split is read from s.json, fold 0, and data.split_fractions asks for another. Set "
        "data.split_fractions to null, or do without the file, or the split and fold columns, that say otherwise."
    )


def test_a_declared_split_and_fractions_are_two_answers() -> None:
    with pytest.raises(
        SettingError, match=r"The split is declared by the data set \(fold 0\), and data\.split_fractions asks"
    ):
        settings(fractions=(0.5, 0.5, 0.0)).choose(declared(A=["train"], B=["val"]))


def test_settings_survive_a_file() -> None:
    asked = settings(fractions=(0.5, 0.25, 0.25), seed=7)
    again = json.loads(json.dumps(asked.as_dict()))
    assert again == asked.as_dict()
    assert again == {"fold": 0, "folds": 3, "fractions": [0.5, 0.25, 0.25], "file": None, "seed": 7}


def test_leaks_are_found_in_any_split() -> None:
    split = Split(("A0", "B0"), ("A1", "C0"), ("B1", "D0"), "by hand")
    assert find_leaking_groups(split, cases(2, 2, 1, 1)) == ["A", "B"]


def skewed(seed: int, groups: int = 40) -> np.ndarray:
    """Cases, voxels of a common and of a rare label, and the cases that hold them."""
    rng = np.random.default_rng(seed)
    cases = rng.integers(1, 5, groups).astype(float)
    voxels = np.stack([rng.lognormal(8, 1, groups), rng.lognormal(5, 2, groups) * (rng.random(groups) < 0.3)], axis=1)
    return np.column_stack([cases, voxels, (voxels > 0) * cases[:, None]])


def measure_imbalance(amounts: np.ndarray, parts: np.ndarray, goals: list[float]) -> float:
    """Average the distance of each part's share from its goal."""
    there = amounts[:, amounts.sum(axis=0) > 0]
    shares = np.stack([there[parts == part].sum(axis=0) for part in range(len(goals))]) / there.sum(axis=0)
    return float(np.abs(shares - np.asarray(goals)[:, None]).mean())


@pytest.mark.parametrize("seed", range(20))
def test_more_even_than_a_random_split_of_the_groups(seed: int) -> None:
    amounts, goals = skewed(seed), [0.2] * 5
    dealt = assign_stratified(amounts, None, goals, seed)
    chance = np.random.default_rng(seed).permutation(np.arange(len(amounts)) % 5)
    assert measure_imbalance(amounts, dealt, goals) < measure_imbalance(amounts, chance, goals)


@given(groups=st.integers(5, 60), parts=st.integers(2, 5), seed=st.integers(0, 9))
def test_every_group_has_a_part_and_every_part_a_group(groups: int, parts: int, seed: int) -> None:
    dealt = assign_stratified(skewed(seed, groups), None, [1 / parts] * parts, seed)
    assert dealt.shape == (groups,)
    assert set(dealt.tolist()) == set(range(parts))


@given(seed=st.integers(0, 9))
def test_room_is_kept_to(seed: int) -> None:
    dealt = assign_stratified(skewed(seed, 20), [12, 5, 3], [0.6, 0.25, 0.15], seed)
    assert np.bincount(dealt).tolist() == [12, 5, 3]


def test_names_in_another_form_of_unicode_are_found(tmp_path: Path) -> None:
    data = [Case(normalize("NFC", name), name, ()) for name in ("é", "ü")]
    path = write(tmp_path / "s.json", {"train": [normalize("NFD", "é")], "val": [normalize("NFD", "ü")]})
    assert read_split(path, data, 0).val == (normalize("NFC", "ü"),)
