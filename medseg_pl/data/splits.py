"""Splits of cases into training, validation and test; no patient is on two sides.

Folds and fractions are stratified: beside the number of cases, the voxels of each label and the cases that hold it are
shared out evenly, as well as whole groups allow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from jaxtyping import Float64, Int64

from medseg_pl.core.errors import DataError, MissingDataError, SettingError, count_noun, shorten
from medseg_pl.core.types import Case
from medseg_pl.io.config_files import find_config, read_json


def assign_stratified(
    amounts: Float64[np.ndarray, "g a"], room: Sequence[int] | None, goals: Sequence[float], seed: int
) -> Int64[np.ndarray, " g"]:
    r"""Assign groups to parts so that each gets its share.

    Groups are taken from the largest to the smallest, a group being large where it holds much of any amount: the ones
    with a rare label come first, as long as there is room to balance them. Each goes where it lowers most

    $$\sum_k \frac{1}{g_k} \sum_a (s_{ka} - g_k)^2, $$

    with $s_{ka}$ the share of amount $a$ that part $k$ has. Groups within a factor of two count as equally large, and
    the seed orders them.

    Args:
        amounts: Of each group; a column of zeros says nothing.
        room: How many groups each part takes; `None` for as many as come.
        goals: The share of each part, above 0; together 1.
        seed: Orders groups that are alike.

    References:
        Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011 (rare labels
        first, each to the part that lacks most).

    >>> assign_stratified(np.array([[3.0], [1.0], [1.0], [1.0]]), None, [0.5, 0.5], seed=0).tolist()
    [0, 1, 1, 1]
    """
    goal = np.asarray(goals, dtype=np.float64)
    # Shares make cases and voxels comparable: one label may have a million times the voxels of another.
    totals = amounts.sum(axis=0)
    shares = amounts / np.where(totals > 0, totals, 1)
    lacking = np.repeat(goal[:, None], shares.shape[1], axis=1)
    left = np.full(len(goal), len(shares)) if room is None else np.array(room)
    parts = np.zeros(len(shares), np.int64)
    for group in _order_largest_first(shares, seed):
        share = shares[group]
        # By how much the sum grows; `lacking` is g_k - s_ka, so one product does for all parts.
        growth = ((share - 2 * lacking) @ share) / goal
        part = int(np.where(left > 0, growth, np.inf).argmin())
        parts[group] = part
        lacking[part] -= share
        left[part] -= 1
    return parts


def _order_largest_first(shares: Float64[np.ndarray, "g a"], seed: int) -> Int64[np.ndarray, " g"]:
    # Whole powers of two: else the order would follow from single voxels, and no seed could change it.
    sizes = np.floor(np.log2(np.maximum(np.linalg.norm(shares, axis=1), 1e-300)))
    shuffled = np.random.default_rng(seed).permutation(len(shares))
    return shuffled[np.argsort(-sizes[shuffled], kind="stable")]


LabelVoxels = Mapping[str, Sequence[int]]
"""How many voxels each label has, by case."""

SIDES = ("train", "val", "test")

_OTHER_LISTS = ("accepted_duplicates",)


@dataclass(frozen=True)
class Split:
    """The case ids of each side, sorted.

    `origin` says in words how they were chosen.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    origin: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain lists and text, for `splits.json` and checkpoints."""
        return {**{side: list(getattr(self, side)) for side in SIDES}, "origin": self.origin}


@dataclass(frozen=True)
class SplitSettings:
    """Settings of a split, which a file or the data may override.

    A file comes first, then what the data declares, then fractions, then folds.

    Args:
        fold: The fold that is held out.
        folds: The number of folds.
        fractions: Shares of the groups for train, validation and test.
        file: A `splits.json`.
        seed: Shuffles the groups.
    """

    fold: int
    folds: int
    fractions: tuple[float, ...] | None
    file: str | None
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {**asdict(self), "fractions": None if self.fractions is None else list(self.fractions)}

    def find_explicit_split(self, cases: Sequence[Case], recorded: Mapping[str, Any] | None = None) -> Split | None:
        """Find a split that a checkpoint, a file or the data gives.

        Args:
            cases: All of them.
            recorded: A checkpoint's record of its data; its split is kept where the settings are the same.

        Raises:
            SettingError: Another way of splitting was asked for, too.
            DataError: The split puts a group on two sides, or leaves a side empty.
        """
        if recorded and recorded["settings"] == self.as_dict():
            return restore_split(recorded["split"], cases)
        if self.file is None:
            split = find_declared_split(cases, self.fold)
        else:
            split = read_split(find_config(self.file), cases, self.fold)
        if split is not None and self.fractions is not None:
            raise SettingError(
                f"The split is {split.origin}, and data.split_fractions asks for another. Set "
                "data.split_fractions to null, or do without the file, or the split and fold columns, that say "
                "otherwise."
            )
        return split

    def choose(self, cases: Sequence[Case], label_voxels: LabelVoxels | None = None) -> Split:
        """Choose the split of these cases.

        Args:
            cases: All of them.
            label_voxels: Balances folds and fractions by label too; without it they are balanced by case alone.

        Raises:
            SettingError: Two ways of splitting were asked for.
            DataError: The split puts a group on two sides, or leaves a side empty.
        """
        split = self.find_explicit_split(cases)
        if split is not None:
            return split
        if self.fractions is not None:
            return split_by_fractions(cases, self.fractions, self.seed, label_voxels)
        return split_by_folds(cases, self.fold, self.folds, self.seed, label_voxels)


def split_by_folds(
    cases: Sequence[Case], fold: int, folds: int, seed: int, label_voxels: LabelVoxels | None = None
) -> Split:
    """Hold out one fold of groups, and train on the others.

    Args:
        cases: All of them.
        fold: The fold to hold out, from 0.
        folds: The number of folds.
        seed: Shuffles the groups.
        label_voxels: Balances the folds by label too.

    Raises:
        SettingError: There is no such fold, or fewer groups than folds.
    """
    if not 0 <= fold < folds or folds < 2:
        raise SettingError(f"data.fold must be from 0 to data.folds - 1; got fold {fold} of {folds}.")
    groups = sorted({case.group for case in cases})
    if len(groups) < folds:
        raise SettingError(
            f"{count_noun(folds, 'fold')} need at least {count_noun(folds, 'patient')}; the data has "
            f"{len(groups)}. Lower data.folds."
        )
    amounts = _count_amounts(cases, groups, label_voxels)
    fold_of = dict(zip(groups, assign_stratified(amounts, None, [1 / folds] * folds, seed).tolist(), strict=True))
    held_out = [case.case_id for case in cases if fold_of[case.group] == fold]
    return _make_split(
        cases, val=held_out, test=[], origin=f"fold {fold} of {folds} {_describe_balance(amounts)}, seed {seed}"
    )


def split_by_fractions(
    cases: Sequence[Case], fractions: Sequence[float], seed: int, label_voxels: LabelVoxels | None = None
) -> Split:
    """Give each side its share of the groups, at least one.

    Args:
        cases: All of them.
        fractions: Shares for train, validation and test.
        seed: Shuffles the groups.
        label_voxels: Balances the sides by label too.

    Raises:
        SettingError: The fractions do not add up to one, or there are too few groups.
    """
    # `not ... <=` and not `>`, which NaN would pass.
    if len(fractions) != 3 or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6 or not fractions[0]:
        raise SettingError(
            f"data.split_fractions must be three shares (train, val, test) that add up to 1; got {fractions}."
        )
    groups = sorted({case.group for case in cases})
    wanted = [max(1, round(share * len(groups))) if share else 0 for share in fractions]
    # What rounding leaves over goes to training, which misses it least.
    wanted[0] = len(groups) - wanted[1] - wanted[2]
    if wanted[0] < 1:
        raise SettingError(
            f"{count_noun(len(groups), 'patient is', 'patients are')} too few for the fractions "
            f"{list(fractions)}. Set data.folds, or a share of 0 for test."
        )
    used_sides = [side for side in range(3) if wanted[side]]
    amounts = _count_amounts(cases, groups, label_voxels)
    room = [wanted[side] for side in used_sides]
    parts = assign_stratified(amounts, room, [count / len(groups) for count in room], seed)
    side_of = {group: used_sides[part] for group, part in zip(groups, parts.tolist(), strict=True)}
    sides = [[case.case_id for case in cases if side_of[case.group] == side] for side in range(3)]
    origin = f"fractions {', '.join(f'{share:g}' for share in fractions)} {_describe_balance(amounts)}, seed {seed}"
    return _make_split(cases, val=sides[1], test=sides[2], origin=origin)


def find_declared_split(cases: Sequence[Case], fold: int) -> Split | None:
    """Find the split that the data set declares by case, if any.

    Args:
        cases: All of them.
        fold: The fold to hold out, where cases declare folds.

    Raises:
        DataError: Some cases declare a side and others do not.
    """
    if all(case.split is None and case.fold is None for case in cases):
        return None
    undeclared = [case.case_id for case in cases if case.split is None and case.fold is None]
    if undeclared:
        raise DataError(
            f"{count_noun(len(undeclared), 'case declares', 'cases declare')} neither split nor fold while others do, "
            f"{undeclared[0]} among them. Declare all or none."
        )
    val = [case.case_id for case in cases if case.split == "val" or (case.split is None and case.fold == fold)]
    test = [case.case_id for case in cases if case.split == "test"]
    return _make_split(cases, val=val, test=test, origin=f"declared by the data set (fold {fold})")


def read_split(path: Path, cases: Sequence[Case], fold: int) -> Split:
    """Read a `splits.json`, or nnU-Net's list of folds.

    Cases that the file does not name are left out of the run.

    Args:
        path: The file.
        cases: Those of the data set.
        fold: Which entry of a list of folds.

    Raises:
        DataError: It holds no split, names a case twice, or one that the data does not have.
        MissingDataError: There is no such file.
        SettingError: It has no such fold.
    """
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist. Set data.split_file to a splits.json.")
    try:
        content = read_json(path)
        if isinstance(content, list) and not 0 <= fold < len(content):
            raise SettingError(
                f"{path} has {count_noun(len(content), 'fold')}; data.fold must be from 0 to {len(content) - 1}, not "
                f"{fold}."
            )
        # nnU-Net's splits_final.json is a list of folds.
        chosen: dict[str, Any] = content[fold] if isinstance(content, list) else content
        sides = read_sides(chosen)
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} holds no split for fold {fold}: {error}. Give lists of cases as train and val."
        ) from None
    case_ids = {case.case_id for case in cases}
    unknown = [name for names in sides.values() for name in names if name not in case_ids]
    if unknown:
        raise DataError(
            f"{path} names {count_noun(len(unknown), 'case')} that the data does not have, {unknown[0]} among them. "
            "Correct their names, or set data.source to the data that it was written for."
        )
    named = Counter(name for names in sides.values() for name in names)
    repeated = [name for name, times in named.items() if times > 1]
    if repeated:
        raise DataError(f"{path} names the case {repeated[0]} twice, on one side or on two. Name each case once.")
    listed = [case for case in cases if case.case_id in named]
    return _make_split(listed, val=sides["val"], test=sides["test"], origin=f"read from {path.name}, fold {fold}")


def read_sides(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the cases of each side, spelled as sources spell them.

    Raises:
        ValueError: There is a list under another name, such as `tests`.

    >>> read_sides({"train": ["a", "b"], "val": ["c"]})
    {'train': ['a', 'b'], 'val': ['c'], 'test': []}
    """
    others = [key for key, value in content.items() if isinstance(value, list) and key not in (*SIDES, *_OTHER_LISTS)]
    if others:
        raise ValueError(f"it has a list {shorten(others[0])}, and the sides are {', '.join(SIDES)}")
    return {side: [normalize("NFC", str(name)) for name in content.get(side, [])] for side in SIDES}


def restore_split(recorded: Mapping[str, Any], cases: Sequence[Case]) -> Split:
    """Restore what `Split.as_dict` recorded, without cases that came since.

    Raises:
        DataError: Cases that the checkpoint wants to score are not there.
    """
    split = Split(tuple(recorded["train"]), tuple(recorded["val"]), tuple(recorded["test"]), recorded["origin"])
    case_ids = {case.case_id for case in cases}
    missing = [name for name in (*split.val, *split.test) if name not in case_ids]
    if missing:
        raise DataError(
            f"The data lacks {count_noun(len(missing), 'case')} that the checkpoint's split scores, such as "
            f"{missing[0]}. Set data.source to the data of the training, or give a split: data.split_file, "
            "data.split_fractions or data.folds."
        )
    return replace(split, train=tuple(name for name in split.train if name in case_ids))


def refuse_trained_groups(cases: Sequence[Case], trained: Iterable[str]) -> None:
    """Refuse to score patients that a checkpoint was trained on.

    Args:
        cases: The cases to be scored.
        trained: The groups that the checkpoint was trained on.

    Raises:
        DataError: A case belongs to one of them.
    """
    groups = set(trained)
    seen = [case.case_id for case in cases if case.group in groups]
    if seen:
        raise DataError(
            f"The checkpoint was trained on the patients of {len(seen)} of {count_noun(len(cases), 'scored case')}, "
            f"such as {seen[0]}. Leave the split's settings as they were in training, or give other data."
        )


def find_leaking_groups(split: Split, cases: Iterable[Case]) -> list[str]:
    """Find the groups with cases on more than one side.

    Returns:
        The groups, sorted.
    """
    side_of = {name: side for side in SIDES for name in getattr(split, side)}
    seen: dict[str, set[str]] = {}
    for case in cases:
        if case.case_id in side_of:
            seen.setdefault(case.group, set()).add(side_of[case.case_id])
    return sorted(group for group, sides in seen.items() if len(sides) > 1)


def _make_split(cases: Sequence[Case], val: Sequence[str], test: Sequence[str], origin: str) -> Split:
    """Make a split with the rest for training, and check it."""
    held_out = {*val, *test}
    train = sorted(case.case_id for case in cases if case.case_id not in held_out)
    split = Split(tuple(train), tuple(sorted(val)), tuple(sorted(test)), origin)
    leaking = find_leaking_groups(split, cases)
    twice = set(val) & set(test)
    if leaking or twice:
        raise DataError(
            f"The split ({origin}) puts one patient on two sides: {', '.join((leaking or sorted(twice))[:5])}. "
            "Scores would look better than they are. Move all cases of a patient to one side."
        )
    if not split.train or not split.val:
        raise DataError(
            f"The split ({origin}) leaves {count_noun(len(split.train), 'case')} for training and {len(split.val)} for "
            "validation; both need at least one."
        )
    return split


def _count_amounts(
    cases: Sequence[Case], groups: Sequence[str], label_voxels: LabelVoxels | None
) -> Float64[np.ndarray, "g a"]:
    """Count the cases of each group, and voxels and cases per label."""
    columns = np.ones((len(cases), 1))
    if label_voxels is not None and all(case.case_id in label_voxels for case in cases):
        voxels = np.array([label_voxels[case.case_id] for case in cases], dtype=np.float64)
        columns = np.hstack([columns, voxels, voxels > 0])
    row = {group: number for number, group in enumerate(groups)}
    amounts = np.zeros((len(groups), columns.shape[1]))
    np.add.at(amounts, [row[case.group] for case in cases], columns)
    return amounts


def _describe_balance(amounts: Float64[np.ndarray, "g a"]) -> str:
    return "by patient, stratified by label" if amounts.shape[1] > 1 else "by patient"
