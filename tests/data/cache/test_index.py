"""One array for what is small of many entries: the same cases as the entries give, kept for those that only set up."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.cache import index as catalog_module
from medseg_pl.data.cache.case import open_entry
from medseg_pl.data.cache.index import Catalog, NamedEntries, catalog_of, known_catalog, prepared_catalog
from medseg_pl.data.cache.store import Store
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


def build(data: Path) -> tuple[Store, list[Case], list[Path]]:
    store = Store(data.parent / "store", FolderSource(str(data)), LABELS)
    cases = store.source.cases()
    return store, cases, store.build(cases, threads=1)


@pytest.fixture
def entries(data: Path) -> list[Path]:
    plain = Store(data.parent / "store", FolderSource(str(data), images="unlabeled", masks=None), LABELS)
    return [*build(data)[2], *plain.build(plain.source.cases(), threads=1)]


def listings(store: Store) -> Iterator[Path]:
    return (store.directory / "listings").glob("*.npy")


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_a_case_is_what_its_entry_holds(entries: list[Path], at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "_AT_ONCE", at_once)
    catalog = catalog_of(entries)
    monkeypatch.setattr(catalog_module, "describe", None)  # everything is known by now
    for place, entry in enumerate(entries):
        expected = open_entry(entry)
        monkeypatch.setattr("medseg_pl.data.cache.case._OPEN", {})
        got = catalog.open(place)
        assert (got.geometry, got.label_voxels) == (expected.geometry, expected.label_voxels)
        np.testing.assert_array_equal(got.image, expected.image, strict=True)
        np.testing.assert_array_equal(got.statistics, expected.statistics, strict=True)
        assert (got.mask is None) == (expected.mask is None)
        if got.mask is not None and expected.mask is not None:
            np.testing.assert_array_equal(got.mask, expected.mask, strict=True)
        assert len(got.foreground) == len(expected.foreground)
        for ours, theirs in zip(got.foreground, expected.foreground, strict=True):
            np.testing.assert_array_equal(ours, theirs, strict=True)


def test_columns_speak_of_all_cases_at_once(entries: list[Path]) -> None:
    catalog = catalog_of(entries)
    assert list(catalog) == entries
    assert catalog.shapes.tolist() == [[1, 1, 9, 12]] * 2 + [[1, 5, 6, 7], [3, 1, 8, 8], [1, 6, 5, 4]]
    assert catalog.types == {"uint8", "int16", "float32"}
    assert catalog.without_spacing() == [0, 1, 3]
    assert catalog.label_voxels(0) == (24, 24)
    assert catalog.label_voxels(3) is None


def test_some_of_the_cases_share_the_rows(entries: list[Path]) -> None:
    catalog = catalog_of(entries)
    some = catalog.of([3, 0])
    assert list(some) == [entries[3], entries[0]]
    assert list(some.of([1])) == list(catalog[0:1]) == [entries[0]]
    assert some.rows is catalog.rows
    assert some.open(1).geometry == open_entry(entries[0]).geometry


def test_entries_by_name_are_a_mapping(entries: list[Path]) -> None:
    named = NamedEntries("abcde", catalog_of(entries))
    assert dict(named) == dict(zip("abcde", entries, strict=True))
    assert list(named.of("ca")) == [entries[2], entries[0]]


def test_a_catalog_of_nothing_is_empty() -> None:
    assert list(catalog_of([])) == []


def test_a_catalog_goes_to_another_process_whole(entries: list[Path]) -> None:
    sent: Catalog = pickle.loads(pickle.dumps(catalog_of(entries)))
    assert list(sent) == entries
    assert sent.open(2).geometry == open_entry(entries[2]).geometry


class TestKept:
    def test_what_one_process_prepares_another_maps(self, data: Path) -> None:
        store, cases, entries = build(data)
        assert known_catalog(store, cases) is None
        made = prepared_catalog(store, cases, entries)
        known = known_catalog(Store(store.directory, FolderSource(str(data)), LABELS), cases)
        assert known is not None
        assert list(known) == list(made) == entries
        assert isinstance(known.rows.base, np.memmap)
        assert not isinstance(known.rows, np.memmap)

    def test_nothing_is_written_again_while_the_data_stays(self, data: Path) -> None:
        store, cases, entries = build(data)
        prepared_catalog(store, cases, entries)
        (file,) = listings(store)
        before = file.stat()
        assert list(prepared_catalog(store, cases, entries)) == entries
        assert file.stat().st_ino == before.st_ino

    def test_a_file_that_was_edited_is_prepared_anew(self, data: Path) -> None:
        store, cases, entries = build(data)
        prepared_catalog(store, cases, entries)
        save_raster(data / "images/b.png", noise((10, 12), 7))
        save_raster(data / "masks/b.png", blocks((10, 12), 1, 2))
        edited = store.build(cases, threads=1)
        assert edited[1] != entries[1]
        prepared_catalog(store, cases, edited)
        known = known_catalog(store, cases)
        assert known is not None
        assert list(known) == edited
        assert known.geometry(1).shape == (1, 10, 12)

    def test_an_old_one_goes_where_a_new_one_cannot_be_written(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or other processes would train on what one of them knows to have changed."""
        store, cases, entries = build(data)
        prepared_catalog(store, cases, entries)
        save_raster(data / "images/b.png", noise((9, 12), 7))
        edited = store.build(cases, threads=1)

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(catalog_module, "whole_file", full)
        assert list(prepared_catalog(store, cases, edited)) == edited
        assert known_catalog(store, cases) is None

    def test_other_cases_and_other_labels_have_their_own(self, data: Path) -> None:
        store, cases, entries = build(data)
        prepared_catalog(store, cases, entries)
        assert known_catalog(store, cases[:2]) is None
        store.labels = LabelMap(["spleen", "liver"], "multiclass")
        assert known_catalog(store, cases) is None

    def test_one_that_was_cut_off_is_made_again(self, data: Path) -> None:
        store, cases, entries = build(data)
        prepared_catalog(store, cases, entries)
        (file,) = listings(store)
        file.write_bytes(file.read_bytes()[:300])
        assert known_catalog(store, cases) is None
        assert list(prepared_catalog(store, cases, entries)) == entries
        known = known_catalog(store, cases)
        assert known is not None
        assert list(known) == entries

    @pytest.mark.parametrize("place", [-1, -30, -300])
    def test_one_with_a_flipped_bit_is_made_again(self, data: Path, place: int) -> None:
        store, cases, entries = build(data)
        rows = prepared_catalog(store, cases, entries).rows.copy()
        (file,) = listings(store)
        content = bytearray(file.read_bytes())
        content[place % len(content)] ^= 1
        file.write_bytes(content)
        assert known_catalog(store, cases) is None
        prepared_catalog(store, cases, entries)
        known = known_catalog(store, cases)
        assert known is not None
        assert known.rows.tobytes() == rows.tobytes()

    def test_the_same_relative_names_in_another_folder_have_their_own(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = set()
        for folder in ("one", "two"):
            for kind in ("images", "masks"):
                save_raster(data.parent / folder / "data" / kind / "a.png", blocks((9, 12), 1))
            monkeypatch.chdir(data.parent / folder)
            store = Store(data.parent / "store", FolderSource("data"), LABELS)
            listed.add(store.listing(store.source.cases()))
        assert len(listed) == 2
