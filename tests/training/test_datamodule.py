"""From a folder to batches: splits, loaders, ranks, and what is decoded when."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.core.errors import DataError, MaskValueError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Batch, Case, EvaluationBatch, Volume
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.data.sources import DecathlonSource, FolderSource
from medseg_pl.data.synthetic import ORGANS
from medseg_pl.data.transforms.augmentation import StandardAugmentation
from medseg_pl.training.datamodule import SegmentationDataModule
from tests.sample_files import blocks, noise, save_raster
from tests.timeouts import HANG_S

LABELS = LabelMap(list(ORGANS), "multiclass")
SLICES, WIDTH, HEIGHT, CASES = 5, 40, 32, 5

Make = Callable[..., SegmentationDataModule]


class Counting(DecathlonSource):
    """Remembers what was decoded."""

    def __init__(self, root: str, group: str | None = None) -> None:
        super().__init__(root, group)
        self.read_cases: list[str] = []

    def read(self, case: Case, labels: LabelMap) -> Volume:
        self.read_cases.append(case.case_id)
        return super().read(case, labels)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("phantom") / "data"
    write_phantom(directory, "decathlon", cases=CASES, seed=0, slices=SLICES, size=(WIDTH, HEIGHT))
    return directory


@pytest.fixture
def make(phantom: Path, tmp_path: Path) -> Make:
    """A data module over five phantoms of five slices, the settings of your choice."""

    def build(**settings: Any) -> SegmentationDataModule:
        defaults: dict[str, Any] = {
            "source": Counting(str(phantom)),
            "labels": LABELS,
            "context_slices": 1,
            "input_size": (24, 28),
            "batch_size": 4,
            "eval_batch_size": 3,
            "num_workers": 0,
            "cache_dir": str(tmp_path / "store"),
        }
        return SegmentationDataModule(**{**defaults, **settings})

    return build


def ready(data: SegmentationDataModule) -> SegmentationDataModule:
    data.prepare_data()
    data.setup("fit")
    return data


def folders(data: SegmentationDataModule) -> list[Path]:
    index = data.prepared.index
    return [index.locate_case(number) for number in range(len(index))]


@pytest.mark.processes
def test_a_script_ends_though_it_still_loads(phantom: Path, tmp_path: Path) -> None:
    lines = [
        "from medseg_pl.core.labels import LabelMap",
        "from medseg_pl.data.sources import DecathlonSource",
        "from medseg_pl.training.datamodule import SegmentationDataModule",
        f"labels, source = LabelMap({list(ORGANS)}, 'multiclass'), DecathlonSource({str(phantom)!r})",
        f"settings = dict(input_size=(24, 28), batch_size=2, cache_dir={str(tmp_path / 'store')!r})",
        "data = SegmentationDataModule(source, labels, **settings)",
        "data.prepare_data()",
        "data.setup('fit')",
        "batches = iter(data.train_dataloader())",
        "print(len(next(batches).image))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True, timeout=HANG_S
    )
    assert done.stdout.strip() == "2"


def trainer(fn: str = "fit", done: int = 0, last: bool = False, **settings: int) -> Any:
    """As much of a trainer as the data module asks; resumed, where batches are done of its epoch."""
    alone: dict[str, Any] = {"global_rank": 0, "world_size": 1, "node_rank": 0, "num_nodes": 1, "current_epoch": 0}
    alone |= {"overfit_batches": 0, "limit_val_batches": 1.0, "lightning_module": None, "checkpoint_callbacks": []}
    progress = SimpleNamespace(current=SimpleNamespace(ready=done), is_last_batch=last)
    loop = SimpleNamespace(restarting=done > 0, epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(**{**alone, **settings}, state=SimpleNamespace(fn=fn), fit_loop=loop)


def cases(count: int, **declared: Any) -> list[Case]:
    return [Case(f"c{i}", f"p{i}", (Path(f"c{i}.png"),), (Path(f"m{i}.png"),), **declared) for i in range(count)]


class TestLoaders:
    def test_training_sees_every_slice_once(self, make: Make) -> None:
        data = ready(make(foreground_fraction=0.0, batch_size=5))
        batches = list(data.train_dataloader())
        assert len(batches) == 4 == len(data.prepared.split.train)  # four cases of five slices in batches of five
        for batch in batches:
            assert isinstance(batch, Batch)
            assert (batch.image.shape, batch.mask.shape) == ((5, 3, 24, 28), (5, 1, 24, 28))
            assert (batch.image.dtype, batch.mask.dtype) == (torch.float32, torch.uint8)
            assert batch.statistics.shape == (5, 3, 4)

    def test_a_last_batch_that_is_too_small_is_dropped_unless_it_is_the_only_one(self, make: Make) -> None:
        assert [len(b.image) for b in ready(make(batch_size=6)).train_dataloader()] == [6, 6, 6]
        assert [len(b.image) for b in ready(make(batch_size=64)).train_dataloader()] == [20]

    def test_an_epoch_may_be_longer_or_shorter(self, make: Make) -> None:
        for samples, batches in ((8, 2), (48, 12)):
            assert len(list(ready(make(samples_per_epoch=samples)).train_dataloader())) == batches

    def test_validation_sees_whole_slices_in_order_with_native_masks(self, make: Make, phantom: Path) -> None:
        data = ready(make())
        (name,) = data.prepared.split.val
        batches = list(data.val_dataloader())
        assert [len(batch.slices) for batch in batches] == [3, 2]
        slices = [reference for batch in batches for reference in batch.slices]
        assert [(reference.case_id, reference.index) for reference in slices] == [(name, i) for i in range(SLICES)]
        source = DecathlonSource(str(phantom))
        volume = source.read(data.prepared.cases[name], LABELS)
        image = torch.cat([batch.image for batch in batches])
        np.testing.assert_array_equal(image[:, 1], volume.image[0])
        np.testing.assert_array_equal(image[1:, 0], volume.image[0, :-1])
        assert volume.mask is not None
        np.testing.assert_array_equal(np.stack([m for b in batches for m in b.masks], axis=1), volume.mask)
        assert {reference.geometry for reference in slices} == {volume.geometry}

    def test_resizing_leaves_the_masks_on_their_own_grid(self, make: Make) -> None:
        batch = next(iter(ready(make(resize="fit", input_size=(16, 16))).val_dataloader()))
        assert batch.image.shape == (3, 3, 16, 16)
        assert all(
            mask.shape == (1, *reference.geometry.shape[1:])
            for mask, reference in zip(batch.masks, batch.slices, strict=True)
        )

    def test_without_test_cases_the_validation_cases_are_tested_and_that_is_said(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = ready(make())
        tested = {reference.case_id for batch in data.test_dataloader() for reference in batch.slices}
        assert tested == set(data.prepared.split.val)
        (message,) = caplog.messages
        assert message.startswith("The split has no test cases (fold 0 of 5 by patient, stratified by label, seed 0)")
        assert "validation cases are scored again" in message
        assert "data.split_fractions" in message
        assert "crossval" not in message, "its folds choose their weights by the cases that they score, too"

    def test_test_cases_are_tested_where_there_are_some(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        data = ready(make(split_fractions=(0.6, 0.2, 0.2)))
        tested = {reference.case_id for batch in data.test_dataloader() for reference in batch.slices}
        assert tested == set(data.prepared.split.test)
        assert not tested & {*data.prepared.split.val, *data.prepared.split.train}
        assert caplog.messages == []

    def test_workers_change_nothing(self, make: Make) -> None:
        alone, helped = (
            ready(make(num_workers=workers, augmentation=StandardAugmentation(noise=0.1))) for workers in (0, 2)
        )
        for name in ("train_dataloader", "val_dataloader"):
            ours, theirs = (list(getattr(data, name)()) for data in (alone, helped))
            assert len(ours) == len(theirs) > 1
            for here, there in zip(ours, theirs, strict=True):
                assert torch.equal(here.image, there.image)
                assert torch.equal(here.statistics, there.statistics)
            if name == "train_dataloader":
                assert all(torch.equal(here.mask, there.mask) for here, there in zip(ours, theirs, strict=True))
            else:
                assert [batch.slices for batch in ours] == [batch.slices for batch in theirs]

    def test_epochs_and_seeds_differ_and_repeat(self, make: Make) -> None:
        def epoch(number: int, seed: int = 0) -> torch.Tensor:
            loader: Any = ready(make(seed=seed)).train_dataloader()
            loader.sampler.set_epoch(number)
            return torch.cat([batch.image for batch in loader])

        assert torch.equal(epoch(1), epoch(1))
        assert not torch.equal(epoch(0), epoch(1))
        assert not torch.equal(epoch(0), epoch(0, seed=1))

    @pytest.mark.parametrize("ranks", [2, 3])
    def test_ranks_share_the_slices_and_keep_cases_whole(self, make: Make, ranks: int) -> None:
        def of_rank(rank: int) -> tuple[torch.Tensor, list[str]]:
            data = ready(
                make(split_fractions=(0.4, 0.6, 0.0), foreground_fraction=0.0, input_size=(HEIGHT, WIDTH), batch_size=1)
            )
            data.trainer = trainer(global_rank=rank, world_size=ranks)
            train = torch.cat([batch.image.flatten(1) for batch in data.train_dataloader()])
            return train, [reference.case_id for batch in data.val_dataloader() for reference in batch.slices]

        shares = [of_rank(rank) for rank in range(ranks)]
        trained = torch.cat([train for train, _ in shares])
        assert len(trained) == 10 - 10 % ranks == len(trained.unique(dim=0))
        evaluated = [set(names) for _, names in shares]
        assert sum(map(len, evaluated)) == len(set().union(*evaluated)) == 3
        assert sum(len(names) for _, names in shares) == 3 * SLICES

    def test_a_rank_without_a_case_takes_part_with_nothing(self, make: Make) -> None:
        data = ready(make())
        data.trainer = trainer(global_rank=1, world_size=2)
        (batch,) = data.val_dataloader()  # one case, and two ranks
        assert isinstance(batch, EvaluationBatch)
        assert (len(batch.image), batch.slices, batch.masks) == (0, [], [])

    def test_a_resumed_run_draws_the_epoch_that_it_resumes(self, make: Make) -> None:
        data = ready(make())
        data.trainer = trainer(current_epoch=3)
        resumed: Any = data.train_dataloader()
        data.trainer = trainer()
        begun: Any = data.train_dataloader()
        assert {epoch for epoch, _ in resumed.sampler} == {3}
        begun.sampler.set_epoch(3)
        assert list(begun.sampler) == list(resumed.sampler)

    def test_a_run_resumed_within_an_epoch_draws_the_rest_of_it(self, make: Make) -> None:
        data = ready(make(batch_size=2))
        data.trainer = trainer(current_epoch=3)
        whole: Any = data.train_dataloader()
        data.trainer = trainer(current_epoch=3, done=2)
        rest: Any = data.train_dataloader()
        assert len(rest) == len(whole)  # of an epoch, also of one that was begun before
        assert list(rest.batch_sampler) == list(whole.batch_sampler)[2:]
        rest.sampler.set_epoch(4)
        whole.sampler.set_epoch(4)
        assert list(rest.batch_sampler) == list(whole.batch_sampler)

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_an_epoch_of_which_only_the_end_is_left_has_no_batch(self, make: Make, batch_size: int) -> None:
        data = ready(make(batch_size=batch_size))
        data.trainer = trainer(done=4, last=True)
        loader: Any = data.train_dataloader()
        assert list(loader.batch_sampler) == []
        loader.load_state_dict({"batch_size": 2, "devices": 1, "seed": 0})  # of batches that were of another size

    def test_an_epoch_that_was_begun_goes_on_with_the_same_batches_or_not_at_all(self, make: Make) -> None:
        data = ready(make(batch_size=2, seed=5))
        data.trainer = trainer(done=2, world_size=2)
        loader: Any = data.train_dataloader()
        loader.load_state_dict(loader.state_dict())
        message = (
            "is 2 batches into an epoch that was begun with batch_size 4, devices 1; now it is batch_size 2, devices 2."
        )
        with pytest.raises(SettingError, match=re.escape(message)):
            loader.load_state_dict({"batch_size": 4, "devices": 1, "seed": 5})
        with pytest.raises(SettingError, match="begun with seed 6; now it is seed 5"):
            loader.load_state_dict({"batch_size": 2, "devices": 2, "seed": 6})

    def test_at_an_epochs_end_batches_may_change(self, make: Make) -> None:
        data = ready(make(batch_size=2))
        data.trainer = trainer(current_epoch=3)
        loader: Any = data.train_dataloader()
        loader.load_state_dict({"batch_size": 4, "devices": 8, "seed": 6})
        assert len(list(loader.batch_sampler)) == len(loader)


class TestSplit:
    @pytest.fixture
    def file(self, tmp_path: Path) -> str:
        content = {"train": ["c0", "c1", "c2"], "val": ["c3"], "test": ["c4"], "origin": "by hand"}
        (tmp_path / "splits.json").write_text(json.dumps(content))
        return str(tmp_path / "splits.json")

    def test_a_file_comes_before_what_the_data_declares(self, make: Make, file: str) -> None:
        split = make(split_file=file).split_settings.choose(cases(5, fold=0))
        assert (split.val, split.origin) == (("c3",), "read from splits.json, fold 0")

    def test_a_file_and_fractions_are_two_answers(self, make: Make, file: str) -> None:
        with pytest.raises(
            SettingError, match=r"is read from splits\.json, fold 0, and data\.split_fractions asks for another"
        ):
            make(split_file=file, split_fractions=(0.8, 0.2, 0.0)).split_settings.choose(cases(5))

    def test_what_the_data_declares_and_fractions_are_two_answers(self, make: Make) -> None:
        declared = [*cases(3, split="train"), *[Case("v", "v", (Path("v.png"),), split="val")]]
        with pytest.raises(
            SettingError, match=r"is declared by the data set \(fold 0\), and data\.split_fractions asks"
        ):
            make(split_fractions=(0.5, 0.5, 0.0)).split_settings.choose(declared)
        assert make().split_settings.choose(declared).val == ("v",)

    def test_fractions_come_before_folds(self, make: Make) -> None:
        split = make(split_fractions=(0.4, 0.4, 0.2), fold=1).split_settings.choose(cases(5))
        assert [len(side) for side in (split.train, split.val, split.test)] == [2, 2, 1]

    def test_folds_are_the_rule(self, make: Make) -> None:
        held_out = [name for fold in range(5) for name in make(fold=fold).split_settings.choose(cases(5)).val]
        assert sorted(held_out) == ["c0", "c1", "c2", "c3", "c4"]

    def test_the_split_has_a_seed_of_its_own(self, make: Make) -> None:
        folds = [
            make(seed=seed, split_seed=split).split_settings.choose(cases(20)).val
            for split in (0, 1)
            for seed in (0, 1)
        ]
        assert folds[0] == folds[1] != folds[2] == folds[3]

    def test_cases_that_the_file_leaves_out_are_not_decoded(self, make: Make, phantom: Path, tmp_path: Path) -> None:
        (tmp_path / "s.json").write_text(json.dumps({"train": ["phantom_001"], "val": ["phantom_003"]}))
        source = Counting(str(phantom))
        data = ready(make(source=source, split_file=str(tmp_path / "s.json")))
        assert sorted(source.read_cases) == sorted(data.prepared.cases) == ["phantom_001", "phantom_003"]


class TestResuming:
    def test_the_state_says_who_was_trained_on(self, make: Make, phantom: Path) -> None:
        data = ready(make(source=Counting(str(phantom), group=r"phantom_(\d+)"), split_fractions=(0.4, 0.4, 0.2)))
        state = json.loads(json.dumps(data.state_dict()))  # plain values, which any reader of checkpoints allows
        assert state == data.state_dict()
        assert state["split"] == data.prepared.split.as_dict()
        assert state["groups"] == sorted(name.removeprefix("phantom_") for name in data.prepared.split.train)
        assert state["settings"]["fractions"] == [0.4, 0.4, 0.2]

    def test_before_the_setup_there_is_nothing_to_remember(self, make: Make) -> None:
        data = make()
        assert data.state_dict() == {}
        with pytest.raises(RuntimeError, match=r"Call prepare_data\(\) and setup\(stage\)"):
            data.val_dataloader()

    def test_a_validation_after_training_forgets_nothing(self, make: Make, tmp_path: Path) -> None:
        for number in range(4):
            save_raster(tmp_path / "images" / f"{number}.png", noise((28, 32)))
            save_raster(tmp_path / "masks" / f"{number}.png", 255 * blocks((28, 32), 1))
        labels = LabelMap(["organ"], "binary")
        data = make(source=FolderSource(str(tmp_path)), labels=labels, folds=4, allow_duplicates=True)
        data.trainer = trainer("fit")
        state = ready(data).state_dict()
        assert state["split"]["accepted_duplicates"]
        assert state["mask_values"] == [255]
        data.trainer = trainer("validate")
        data.prepare_data()
        data.setup("validate")
        assert data.state_dict() == state

    def test_training_goes_on_with_the_same_patients(self, make: Make) -> None:
        state = ready(make()).state_dict()
        again = ready(make(batch_size=2, seed=9))
        again.trainer = trainer()
        again.load_state_dict(state)
        assert again.state_dict() == state

    @pytest.mark.parametrize("changed", [{"fold": 1}, {"folds": 2}, {"split_fractions": (0.4, 0.6, 0.0)}])
    def test_training_does_not_go_on_with_others(self, make: Make, changed: dict[str, Any]) -> None:
        state = ready(make()).state_dict()
        again = ready(make(**changed))
        again.trainer = trainer()
        with pytest.raises(DataError) as error:
            again.load_state_dict(state)
        assert str(error.value) == (
            f"The checkpoint was trained on 4 cases, but the split now has {len(again.prepared.split.train)} or others "
            "for training. Set the split's settings and the data as they were, or start a new run."
        )

    @pytest.mark.parametrize("stage", ["validate", "test", "predict"])
    def test_only_training_has_to_go_on(self, make: Make, stage: str) -> None:
        state = ready(make()).state_dict()
        again = ready(make(fold=1))
        before = again.prepared.split
        for attached in (trainer(stage), None):
            again.trainer = attached
            again.load_state_dict(state)
            assert again.prepared.split == before


class TestScoring:
    """A checkpoint is scored on cases that it has not seen."""

    @pytest.fixture
    def trained(self, make: Make) -> dict[str, Any]:
        return json.loads(json.dumps(ready(make(split_fractions=(0.4, 0.4, 0.2))).state_dict()))

    def test_the_split_of_the_checkpoint_is_kept(self, make: Make, trained: dict[str, Any]) -> None:
        data = make(split_fractions=(0.4, 0.4, 0.2))
        # The data has grown: a new split by the same fractions would move patients.
        grown = [*cases(30), *[Case(name, name, (Path("x"),), (Path("m"),)) for name in _names(trained["split"])]]
        kept = data.split_settings.find_explicit_split(grown, trained)
        assert kept is not None
        assert kept.as_dict() == trained["split"]

    def test_another_split_is_made_where_it_is_asked_for(self, make: Make, trained: dict[str, Any]) -> None:
        for changed in (
            {"fold": 2},
            {"split_seed": 3},
            {"split_fractions": (0.2, 0.6, 0.2)},
            {"split_fractions": None},
        ):
            scoring = make(**{"split_fractions": (0.4, 0.4, 0.2), **changed})
            assert scoring.split_settings.find_explicit_split(cases(9), trained) is None

    def test_what_was_held_out_is_scored(self, make: Make, trained: dict[str, Any]) -> None:
        data = make(split_fractions=(0.4, 0.4, 0.2))
        data.use_checkpoint_split(trained)
        ready(data)
        for side, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
            assert {ref.case_id for batch in loader for ref in batch.slices} == set(trained["split"][side])

    def test_patients_that_were_trained_on_are_not_scored(self, make: Make, trained: dict[str, Any]) -> None:
        seen, unseen = trained["split"]["train"][0], trained["split"]["val"][0]
        data = make(split_file=_split_file(make, train=trained["split"]["test"], val=[unseen, seen]))
        data.use_checkpoint_split(trained)
        ready(data)
        with pytest.raises(DataError) as error:
            data.val_dataloader()
        assert str(error.value) == (
            f"The checkpoint was trained on the patients of 1 of 2 scored cases, such as {seen}. "
            "Leave the split's settings as they were in training, or give other data."
        )

    def test_it_is_the_patient_and_not_the_case_that_counts(self, make: Make, trained: dict[str, Any]) -> None:
        unseen = trained["split"]["val"][0]
        data = make(split_file=_split_file(make, train=trained["split"]["test"], val=[unseen]))
        data.use_checkpoint_split({**trained, "groups": [unseen]})
        with pytest.raises(DataError, match=rf"patients of 1 of 1 scored case, such as {unseen}"):
            ready(data).val_dataloader()

    def test_without_a_checkpoint_nothing_is_refused(self, make: Make) -> None:
        assert len(list(ready(make()).val_dataloader())) == 2

    @pytest.mark.parametrize(
        ("settings", "stage", "side"),
        [({}, "val", "val"), ({}, "test", "val"), ({"split_fractions": (0.4, 0.4, 0.2)}, "test", "test")],
    )
    def test_scores_say_of_which_side_they_are(
        self, make: Make, settings: dict[str, Any], stage: str, side: str
    ) -> None:
        origin = (
            "fractions 0.4, 0.4, 0.2 by patient, stratified by label, seed 0"
            if settings
            else "fold 0 of 5 by patient, stratified by label, seed 0"
        )
        assert ready(make(**settings)).prepared.describe_scored(stage) == {"side": side, "split": origin}


def _names(split: dict[str, Any]) -> list[str]:
    return [name for side in ("train", "val", "test") for name in split[side]]


def _split_file(make: Make, **sides: list[str]) -> str:
    path = make().cache_dir.parent / "asked.json"
    path.write_text(json.dumps(sides))
    return str(path)


class TestDecoding:
    def test_each_case_is_decoded_once_over_both_hooks_and_runs(self, make: Make, phantom: Path) -> None:
        source, later = Counting(str(phantom)), Counting(str(phantom))
        ready(make(source=source))
        ready(make(source=later, fold=3, seed=7, batch_size=1))
        assert sorted(source.read_cases) == [f"phantom_00{i}" for i in range(1, 6)]
        assert later.read_cases == []

    def test_setup_works_on_a_machine_whose_store_is_empty(self, make: Make) -> None:
        data = make()
        data.setup("validate")
        assert len(list(data.val_dataloader())) == 2

    def test_a_process_that_others_have_prepared_for_asks_for_no_file_again(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second, alone = ready(make()), make(), make()

        def ask(*arguments: Any, **settings: Any) -> None:
            raise AssertionError("a case was looked at again")

        monkeypatch.setattr(CaseCache, "build", ask)
        monkeypatch.setattr("medseg_pl.data.cache.case_cache.read_rows", ask)
        second.trainer = trainer("fit", global_rank=1, world_size=2)
        second.setup("fit")
        assert folders(second) == folders(first)
        assert second.prepared.split == first.prepared.split
        with pytest.raises(AssertionError, match="looked at again"):  # nobody has prepared for it now
            alone.setup("fit")

    def test_machines_begin_to_decode_at_places_of_their_own(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        begun, build = [], CaseCache.build

        def note(cache: CaseCache, cases: Any, threads: int, advance: Any, first: int) -> CacheIndex:
            begun.append(first)
            return build(cache, cases, threads, advance, first)

        monkeypatch.setattr(CaseCache, "build", note)
        for node in range(3):
            data = make()
            data.trainer = trainer("validate", node_rank=node, num_nodes=3)
            data.prepare_data()
        make().prepare_data()
        assert begun == [0, 1, 3, 0]  # of five cases

    def test_a_store_that_may_only_be_read_serves(self, make: Make, tmp_path: Path) -> None:
        before = ready(make())
        for kept in ("listings", "copies"):
            shutil.rmtree(tmp_path / "store" / kept, ignore_errors=True)
            (tmp_path / "store" / kept).write_text("no folder can be made here")
        data = make()
        data.trainer = trainer("fit")
        data.prepare_data()
        data.setup("fit")
        assert folders(data) == folders(before)

    def test_the_store_is_where_the_environment_says(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
        ready(make(cache_dir=None))
        assert len(list((tmp_path / "cache").rglob("case.json"))) == CASES

    def test_a_fault_in_a_file_is_found_before_the_run(self, make: Make, tmp_path: Path) -> None:
        for name in "abc":
            save_raster(tmp_path / "images" / f"{name}.png", noise((9, 12)))
            save_raster(tmp_path / "masks" / f"{name}.png", blocks((9, 12), 9 if name == "b" else 1))
        data = make(source=FolderSource(str(tmp_path)), folds=3)
        with pytest.raises(MaskValueError, match=r"b\.png holds the value 9"):
            data.prepare_data()


class TestFaults:
    def test_other_channels_than_the_models(self, make: Make, phantom: Path) -> None:
        with pytest.raises(SettingError) as error:
            make(channels=3).prepare_data()
        assert str(error.value) == (
            f"Case phantom_001 ({phantom / 'imagesTr/phantom_001.nii.gz'}) has 1 channel, but model.channels is 3. "
            "Set model.channels to 1, or convert the images that differ."
        )

    def test_a_label_that_nobody_can_learn_stops_a_training_and_nothing_else(self, make: Make, tmp_path: Path) -> None:
        for name in "abc":
            save_raster(tmp_path / "images" / f"{name}.png", noise((28, 32)))
            save_raster(tmp_path / "masks" / f"{name}.png", blocks((28, 32), 2 if name == "c" else 1))
        (tmp_path / "split.json").write_text('{"train": ["a", "b"], "val": ["c"]}')
        labels = LabelMap(["organ", "lesion"], "multiclass")
        data = make(source=FolderSource(str(tmp_path)), labels=labels, split_file=str(tmp_path / "split.json"))
        data.trainer = trainer("fit")
        with pytest.raises(DataError) as error:
            data.prepare_data()
        assert str(error.value) == (
            "The data cannot be trained on as it is (read from split.json, fold 0). label-missing-from-training: The "
            "label 'lesion' is in none of 2 cases. Move a patient who has it to the training side. medseg check looks "
            "at every pixel and may find more."
        )
        data.trainer = trainer("validate")
        data.prepare_data()

    def test_a_validation_side_without_any_label_stops_a_training(self, make: Make, tmp_path: Path) -> None:
        for name in "abc":
            save_raster(tmp_path / "images" / f"{name}.png", noise((28, 32), ord(name)))
            save_raster(tmp_path / "masks" / f"{name}.png", blocks((28, 32), *([] if name == "c" else [1])))
        (tmp_path / "split.json").write_text('{"train": ["a", "b"], "val": ["c"]}')
        labels = LabelMap(["organ"], "binary")
        data = make(source=FolderSource(str(tmp_path)), labels=labels, split_file=str(tmp_path / "split.json"))
        data.trainer = trainer("fit")
        data.trainer.limit_val_batches = 1.0
        with pytest.raises(DataError, match=r"None of 1 validation case .*holds a label.*Move a patient"):
            data.prepare_data()
        data.trainer.limit_val_batches = 0  # without validations nobody misses it
        data.prepare_data()

    def test_what_is_doubtful_is_told_once(self, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        data = make(input_size=(64, 50), folds=2)
        data.trainer = trainer("fit")
        data.prepare_data()
        (said,) = [record.getMessage() for record in caplog.records if "smaller-than-patch" in record.getMessage()]
        assert said == (
            "smaller-than-patch: Case phantom_001: A slice of 32 x 40 pixels fills 40% of a patch of 64 x 50. The same "
            "of 3 more. Choose a smaller patch, or expect padding."
        )

    @pytest.mark.parametrize("source", ["unknown", "grouped", "split file"])
    def test_unknown_patients_are_told_once(
        self, source: str, make: Make, phantom: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        names = [f"phantom_{number:03}" for number in range(1, CASES + 1)]
        (tmp_path / "split.json").write_text(json.dumps({"train": names[1:], "val": names[:1]}))
        settings = {"split_file": str(tmp_path / "split.json")} if source == "split file" else {"folds": 2}
        group = r"phantom_(\d+)" if source == "grouped" else None
        data = make(source=DecathlonSource(str(phantom), group), **settings)
        data.trainer = trainer("fit")
        data.prepare_data()
        data.trainer = trainer("validate")
        data.prepare_data()
        told = [message for message in caplog.messages if "--data.source.group" in message]
        assert len(told) == (source == "unknown")

    def test_cases_without_a_mask(self, make: Make, tmp_path: Path) -> None:
        for name in "ab":
            save_raster(tmp_path / "images" / f"{name}.png", noise((9, 12)))
        with pytest.raises(DataError) as error:
            make(source=FolderSource(str(tmp_path), masks=None)).prepare_data()
        assert str(error.value) == (
            "2 of 2 cases have no mask, a among them. Add the masks or leave the cases out; "
            "images without masks are for predict."
        )

    @pytest.mark.parametrize(
        ("name", "value", "least"),
        [
            ("batch_size", 0, 1),
            ("eval_batch_size", 0, 1),
            ("num_workers", -1, 0),
            ("samples_per_epoch", 0, 1),
        ],
    )
    def test_counts_that_mean_nothing(self, make: Make, name: str, value: int, least: int) -> None:
        with pytest.raises(SettingError, match=rf"{name} must be at least {least}; got {value}\."):
            make(**{name: value})

    @pytest.mark.parametrize("fraction", [-0.1, 1.1])
    def test_a_fraction_is_from_0_to_1(self, make: Make, fraction: float) -> None:
        with pytest.raises(SettingError, match=rf"data\.foreground_fraction must be from 0 to 1; got {fraction}"):
            make(foreground_fraction=fraction)

    @pytest.mark.parametrize("size", [(0, 16), (16, -1)])
    def test_a_size_has_pixels(self, make: Make, size: tuple[int, int]) -> None:
        with pytest.raises(SettingError, match=r"size must be \(height, width\), both at least 1 pixel"):
            make(input_size=size)


def test_another_rater_is_the_same_source_with_other_masks(tmp_path: Path) -> None:
    for number in range(5):
        save_raster(tmp_path / "images" / f"{number}.png", noise((32, 32), number))
        for rater, rows in (("first", 8), ("second", 16)):
            mask = np.zeros((32, 32), np.uint8)
            mask[:rows] = 255
            save_raster(tmp_path / rater / f"{number}.png", mask)

    def make_data(**settings: Any) -> SegmentationDataModule:
        source = FolderSource(str(tmp_path), masks="first")
        labels, store = LabelMap(["a"], "binary"), str(tmp_path / "store")
        return SegmentationDataModule(source, labels, input_size=(32, 32), num_workers=0, cache_dir=store, **settings)

    data = ready(make_data(raters=[{"masks": "second"}], rater="mean"))
    batch = next(iter(data.train_dataloader()))
    assert set(batch.mask[:, 0, :, 0].unique().tolist()) == {0.0, 0.5, 1.0}
    validated = next(iter(data.val_dataloader()))
    assert all(mask.sum() == 8 * 32 for mask in validated.masks)
    with pytest.raises(SettingError, match=r"data\.rater mean goes with data\.raters"):
        make_data(rater="mean")
    with pytest.raises(SettingError, match=r"FolderSource cannot be made with mask_folder"):
        make_data(raters=[{"mask_folder": "second"}], rater="random")
    (tmp_path / "second" / "0.png").unlink()
    (tmp_path / "images" / "0.png").rename(tmp_path / "images" / "9.png")
    (tmp_path / "first" / "0.png").rename(tmp_path / "first" / "9.png")
    with pytest.raises(DataError):
        ready(make_data(raters=[{"masks": "second"}], rater="random"))
