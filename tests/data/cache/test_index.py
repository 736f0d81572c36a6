"""The index of cached cases: the same as their folders give, saved for the processes that only set up."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.cache import case_cache, index
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.cache.index import CacheIndex, read_rows
from medseg_pl.data.sources import FolderSource
from tests.sample_files import blocks, noise, save_raster, save_volume

LABELS = LabelMap(["liver", "spleen"], "multiclass")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images and a volume with masks; a color image and a volume without."""
    root = tmp_path / "data"
    for name in ("a", "b"):
        save_raster(root / "images" / f"{name}.png", noise((9, 12), ord(name)))
        save_raster(root / "masks" / f"{name}.png", blocks((9, 12), 1, 2))
    save_volume(root / "images/v.nii.gz", noise((7, 6, 5), dtype=np.int16), (0.5, 0.5, 3.0))
    save_volume(root / "masks/v.nii.gz", blocks((7, 6, 5), 2), (0.5, 0.5, 3.0))
    save_raster(root / "unlabeled/rgb.png", noise((8, 8, 3)))
    save_volume(root / "unlabeled/w.nii.gz", noise((4, 5, 6), dtype=np.float32))
    return root


def make_cache(data: Path) -> tuple[CaseCache, list[Case]]:
    cache = CaseCache(data.parent / "store", FolderSource(str(data)), LABELS)
    return cache, cache.source.cases()


def folders(of: CacheIndex | None) -> list[Path]:
    return [] if of is None else [of.locate_case(number) for number in range(len(of))]


@pytest.fixture
def all_folders(data: Path) -> list[Path]:
    """Of two cases with a mask each, a volume with one, and two cases without."""
    cache, cases = make_cache(data)
    plain = CaseCache(cache.directory, FolderSource(str(data), images="unlabeled", masks=None), LABELS)
    return [*folders(cache.build(cases, 1)), *folders(plain.build(plain.source.cases(), 1))]


@pytest.fixture
def cached(all_folders: list[Path]) -> CacheIndex:
    return CacheIndex.from_rows(all_folders[0].parent.parent, read_rows(all_folders), "abcde")


def saved(cache: CaseCache) -> Iterator[Path]:
    return (cache.directory / "listings").glob("*.npy")


@pytest.mark.parametrize("block", [1, 2, 100])
def test_a_case_is_what_its_folder_holds(all_folders: list[Path], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_BLOCK", block)
    cached = CacheIndex.from_rows(all_folders[0].parent.parent, read_rows(all_folders), "abcde")
    monkeypatch.setattr(index, "OPEN_CASES", {})
    for number, folder in enumerate(all_folders):
        described, case = json.loads((folder / "case.json").read_text()), cached[number]
        shape, spacing_mm = tuple(described["geometry"]["shape"]), described["geometry"]["spacing_mm"]
        assert (case.geometry.shape, case.geometry.spacing_mm) == (shape, spacing_mm and tuple(spacing_mm))
        affine = described["geometry"]["affine"]
        assert case.geometry.affine == (affine and tuple(tuple(row) for row in affine))
        assert case.label_voxels == (described["label_voxels"] and tuple(described["label_voxels"]))
        np.testing.assert_array_equal(case.image, np.load(folder / "image.npy"), strict=True)
        np.testing.assert_array_equal(case.statistics, np.float32(described["statistics"]), strict=True)
        assert (case.mask is not None) == (folder / "mask.npy").exists()
        if case.mask is not None:
            np.testing.assert_array_equal(case.mask, np.load(folder / "mask.npy"), strict=True)
            voxels = np.load(folder / "foreground.npy")
            assert [len(part) for part in case.foreground] == list(np.diff([0, *described["foreground_ends"]]))
            np.testing.assert_array_equal(np.concatenate(case.foreground), voxels, strict=True)
        else:
            assert case.foreground == []


def test_columns_speak_of_all_cases_at_once(cached: CacheIndex, all_folders: list[Path]) -> None:
    assert folders(cached) == all_folders
    assert cached.shapes.tolist() == [[1, 1, 9, 12]] * 2 + [[1, 5, 6, 7], [3, 1, 8, 8], [1, 6, 5, 4]]
    assert cached.dtypes == {"uint8", "int16", "float32"}
    assert np.isnan(cached.spacings_mm).all(axis=1).tolist() == [True, True, False, True, False]
    assert cached.get_label_voxels(0) == (24, 24)
    assert cached.get_label_voxels(3) is None


def test_selected_cases_share_the_rows(cached: CacheIndex, all_folders: list[Path]) -> None:
    some = cached.select("da")
    assert folders(some) == [all_folders[3], all_folders[0]]
    assert folders(some.select("a")) == [all_folders[0]]
    assert some.rows is cached.rows
    assert [some.get_case_id(number) for number in range(2)] == ["d", "a"]
    assert some[1].geometry == some.open_case("a").geometry == cached.get_geometry(0)


def test_no_case_makes_an_empty_index(data: Path) -> None:
    assert len(make_cache(data)[0].build([], 1)) == 0


def test_an_index_goes_to_another_process_whole(cached: CacheIndex) -> None:
    sent: CacheIndex = pickle.loads(pickle.dumps(cached))
    assert folders(sent) == folders(cached)
    assert sent[2].geometry == cached[2].geometry


def test_a_case_that_has_gone_is_named(cached: CacheIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "OPEN_CASES", {})
    (cached.locate_case(1) / "mask.npy").unlink()
    with pytest.raises(
        UnreadableFileError, match=rf"Case b: .*{cached.locate_case(1)}, is gone.*go on with --ckpt_path"
    ):
        cached[1]


class TestSaved:
    def test_another_process_maps_what_one_has_built(self, data: Path) -> None:
        cache, cases = make_cache(data)
        assert cache.load_index(cases) is None
        made = cache.build(cases, 1)
        loaded = make_cache(data)[0].load_index(cases)
        assert loaded is not None
        assert folders(loaded) == folders(made)
        assert isinstance(loaded.rows.base, np.memmap)
        assert not isinstance(loaded.rows, np.memmap)

    def test_nothing_is_written_again_while_the_data_stays(self, data: Path) -> None:
        cache, cases = make_cache(data)
        before = folders(cache.build(cases, 1))
        (file,) = saved(cache)
        inode = file.stat().st_ino
        assert folders(cache.build(cases, 1)) == before
        assert file.stat().st_ino == inode

    def test_a_file_that_was_edited_is_indexed_anew(self, data: Path) -> None:
        cache, cases = make_cache(data)
        before = folders(cache.build(cases, 1))
        save_raster(data / "images/b.png", noise((10, 12), 7))
        save_raster(data / "masks/b.png", blocks((10, 12), 1, 2))
        after = folders(cache.build(cases, 1))
        assert after[1] != before[1]
        loaded = cache.load_index(cases)
        assert loaded is not None
        assert folders(loaded) == after
        assert loaded.get_geometry(1).shape == (1, 10, 12)

    def test_an_old_one_goes_where_a_new_one_cannot_be_written(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or other processes would train on what one of them knows to have changed."""
        cache, cases = make_cache(data)
        before = folders(cache.build(cases, 1))
        save_raster(data / "images/b.png", noise((9, 12), 7))

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(index, "write_atomically", full)
        assert folders(cache.build(cases, 1)) != before
        assert cache.load_index(cases) is None

    def test_other_cases_and_other_labels_have_their_own(self, data: Path) -> None:
        cache, cases = make_cache(data)
        cache.build(cases, 1)
        assert cache.load_index(cases[:2]) is None
        cache.labels = LabelMap(["spleen", "liver"], "multiclass")
        assert cache.load_index(cases) is None

    @pytest.mark.parametrize("damage", ["cut", -1, -30, -300])
    def test_a_damaged_one_is_made_again(self, data: Path, damage: str | int) -> None:
        cache, cases = make_cache(data)
        rows = cache.build(cases, 1).rows.tobytes()
        (file,) = saved(cache)
        content = bytearray(file.read_bytes())
        if isinstance(damage, str):
            content = content[:300]
        else:
            content[damage % len(content)] ^= 1
        file.write_bytes(content)
        assert cache.load_index(cases) is None
        cache.build(cases, 1)
        loaded = cache.load_index(cases)
        assert loaded is not None
        assert loaded.rows.tobytes() == rows

    def test_the_same_relative_names_in_another_folder_have_their_own(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = set()
        for folder in ("one", "two"):
            for kind in ("images", "masks"):
                save_raster(data.parent / folder / "data" / kind / "a.png", blocks((9, 12), 1))
            monkeypatch.chdir(data.parent / folder)
            cache = case_cache.CaseCache(data.parent / "store", FolderSource("data"), LABELS)
            listed.add(cache.locate_index(cache.source.cases()))
        assert len(listed) == 2
