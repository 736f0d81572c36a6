"""Each case decoded once; entries whole or absent, shared by processes, mapped and not loaded."""

from __future__ import annotations

import importlib
import json
import mmap
import multiprocessing
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medseg_pl.core.errors import MaskValueError, SettingError, UnreadableFileError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.cache import case as case_module
from medseg_pl.data.cache import case_cache as cache_module
from medseg_pl.data.cache.case import CachedCase
from medseg_pl.data.cache.case_cache import CaseCache, find_default_directory
from medseg_pl.data.cache.index import CacheIndex, read_rows
from medseg_pl.data.sources import FolderSource, UWMadisonSource
from tests.sample_files import blocks, noise, save_raster, save_volume, tree

LABELS = LabelMap(["liver", "spleen"], "multiclass")


class Counting(FolderSource):
    """Remembers what was decoded."""

    def __init__(self, root: Path, **settings: Any) -> None:
        super().__init__(str(root), **settings)
        self.read_cases: list[str] = []

    def read(self, case: Case, labels: LabelMap) -> Volume:
        self.read_cases.append(case.case_id)
        return super().read(case, labels)


class Fixed(FolderSource):
    """Gives a volume that no file holds."""

    def __init__(self, root: Path, volume: Volume) -> None:
        super().__init__(str(root))
        self.volume = volume

    def read(self, case: Case, labels: LabelMap) -> Volume:
        return self.volume


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        save_raster(tmp_path / "data/images" / f"{name}.png", noise((9, 12), seed))
        save_raster(tmp_path / "data/masks" / f"{name}.png", blocks((9, 12), 1, 2))
    return tmp_path / "data"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


def build(directory: Path, source: FolderSource, labels: LabelMap = LABELS, threads: int = 2) -> list[Path]:
    return folders(CaseCache(directory, source, labels).build(source.cases(), threads))


def folders(index: CacheIndex) -> list[Path]:
    return [index.locate_case(number) for number in range(len(index))]


def open_case(folder: Path) -> CachedCase:
    return CacheIndex.from_rows(folder.parent.parent, read_rows([folder]), ["case"])[0]


def cached_folders(directory: Path) -> set[Path]:
    """List what a reader takes for a case."""
    return {path.parent for path in directory.rglob("case.json") if not path.parent.name.startswith(".")}


def in_a_process(work: Callable[[], None]) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_an_entry_holds_what_the_source_reads(data: Path, directory: Path) -> None:
    source = Counting(data)
    for case, entry in zip(source.cases(), build(directory, source), strict=True):
        volume, stored = source.read(case, LABELS), open_case(entry)
        np.testing.assert_array_equal(stored.image, volume.image)
        np.testing.assert_array_equal(stored.mask, volume.mask)
        assert stored.image.dtype == np.uint8
        assert stored.geometry == volume.geometry
        np.testing.assert_array_equal(stored.statistics, compute_channel_statistics(volume.image))


def test_a_grid_in_space_comes_back_to_the_last_digit(tmp_path: Path, directory: Path) -> None:
    save_volume(tmp_path / "images/a.nii.gz", noise((6, 7, 5), dtype=np.int16), spacing_mm=(0.1, 0.7, 7.3))
    save_volume(tmp_path / "masks/a.nii.gz", blocks((6, 7, 5), 1, 2), spacing_mm=(0.1, 0.7, 7.3))
    source = FolderSource(str(tmp_path))
    (entry,) = build(directory, source)
    assert open_case(entry).geometry == source.read(source.cases()[0], LABELS).geometry
    assert open_case(entry).image.dtype == np.int16


def test_the_foreground_names_voxels_of_each_label(data: Path, directory: Path) -> None:
    stored = open_case(build(directory, Counting(data))[0])
    assert stored.mask is not None
    for label, voxels in enumerate(stored.foreground, start=1):
        assert sorted(map(tuple, voxels)) == [(0, h, w) for h in (2 * label - 1, 2 * label) for w in range(12)]


def test_a_label_that_is_absent_has_no_voxels(tmp_path: Path, data: Path, directory: Path) -> None:
    save_raster(data / "masks/a.png", blocks((9, 12), 0, 2))
    (none, some), *_ = (open_case(entry).foreground for entry in build(directory, Counting(data)))
    assert (len(none), len(some)) == (0, 24)


def test_a_case_without_foreground_is_stored(data: Path, directory: Path) -> None:
    save_raster(data / "masks/a.png", np.zeros((9, 12), np.uint8))
    stored = open_case(build(directory, Counting(data))[0])
    assert sum(len(voxels) for voxels in stored.foreground) == 0
    assert stored.mask is not None


def test_a_large_label_is_sampled_evenly(data: Path, directory: Path) -> None:
    mask = np.zeros((1, 8, 100, 100), np.uint8)
    mask[0, :, :, 20:80] = 1
    volume = Volume(np.zeros((1, 8, 100, 100), np.uint8), mask, Geometry((8, 100, 100)))
    voxels = open_case(build(directory, Fixed(data, volume))[0]).foreground[0]
    assert len(voxels) == 4096 == len({tuple(voxel) for voxel in voxels.tolist()})
    assert voxels[:, 2].min() >= 20
    assert voxels[:, 2].max() < 80
    # 4096 draws over 8 slices: 512 each, with a standard deviation of 21.
    assert all(abs(count - 512) < 5 * 21 for count in np.bincount(voxels[:, 0], minlength=8))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("uint8", "uint8"),
        ("uint16", "uint16"),
        (">i2", "int16"),
        ("float32", "float32"),
        ("float64", "float32"),
        ("int32", "float32"),
        ("bool", "float32"),
    ],
)
def test_types_that_scanners_write_are_kept(data: Path, directory: Path, given: str, kept: str) -> None:
    image = np.array([0, 1, 1, 0], dtype=given).reshape(1, 1, 2, 2)
    volume = Volume(image, np.zeros((1, 1, 2, 2), np.uint8), Geometry((1, 2, 2)))
    stored = open_case(build(directory, Fixed(data, volume))[0]).image
    assert stored.dtype == np.dtype(kept)
    np.testing.assert_array_equal(stored, image)


def test_pixels_are_mapped_and_not_loaded(data: Path, directory: Path) -> None:
    stored = open_case(build(directory, Counting(data))[0])
    for array in (stored.image, stored.mask):
        assert isinstance(array.base, mmap.mmap)
        assert not array.flags.writeable


def test_a_second_build_decodes_nothing(data: Path, directory: Path) -> None:
    first, second = Counting(data), Counting(data)
    made = build(directory, first)
    build(directory, second)  # notes what it has verified
    before = tree(directory)
    assert sorted(first.read_cases) == ["a", "b", "c"]
    assert build(directory, second) == made
    assert second.read_cases == []
    assert tree(directory) == before


def test_each_case_advances_the_progress(data: Path, directory: Path) -> None:
    source, steps = Counting(data), []
    CaseCache(directory, source, LABELS).build(source.cases(), 2, advance=lambda: steps.append(1))
    assert len(steps) == 3


@pytest.mark.parametrize(("first", "order"), [(0, "abc"), (1, "bca"), (2, "cab")])
def test_decoding_may_begin_with_any_case(data: Path, directory: Path, first: int, order: str) -> None:
    source = Counting(data)
    made = folders(CaseCache(directory, source, LABELS).build(source.cases(), threads=1, first=first))
    assert source.read_cases == list(order)
    assert made == build(directory, Counting(data))


def test_changed_content_is_read_again(data: Path, directory: Path) -> None:
    before = build(directory, Counting(data))
    save_raster(data / "images/b.png", noise((9, 12), seed=99))
    source = Counting(data)
    after = build(directory, source)
    assert source.read_cases == ["b"]
    assert [new == old for new, old in zip(after, before, strict=True)] == [True, False, True]
    np.testing.assert_array_equal(open_case(after[1]).image[0, 0], noise((9, 12), seed=99))


def test_a_changed_mask_is_read_again(data: Path, directory: Path) -> None:
    before = build(directory, Counting(data))
    save_raster(data / "masks/b.png", blocks((9, 12), 2, 1))
    after = build(directory, Counting(data))
    assert [new == old for new, old in zip(after, before, strict=True)] == [True, False, True]


def test_a_touched_file_is_hashed_and_not_decoded(data: Path, directory: Path) -> None:
    made = build(directory, Counting(data))
    os.utime(data / "images/b.png", ns=(1, 1))
    source = Counting(data)
    assert build(directory, source) == made
    assert source.read_cases == []


@pytest.mark.parametrize("way", ["written over", "put in its place"])
def test_an_edit_of_the_same_size_and_time_is_noticed(data: Path, directory: Path, tmp_path: Path, way: str) -> None:
    """As `cp -p`, `tar` and `rsync -a` leave it: files of one size, and the time that they had elsewhere."""
    for folder in ("images", "masks"):
        (data / folder / "a.png").unlink()
    save_raster(data / "images/a.bmp", noise((9, 12), 0))
    save_raster(data / "masks/a.bmp", blocks((9, 12), 1, 2))
    mask = data / "masks/a.bmp"
    build(directory, Counting(data))
    before = mask.stat()
    edited = mask if way == "written over" else tmp_path / "edited.bmp"
    save_raster(edited, blocks((9, 12), 2, 1))
    edited.replace(mask)
    os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (mask.stat().st_size, mask.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    source = Counting(data)
    (folder, *_) = build(directory, source)
    assert source.read_cases == ["a"]
    np.testing.assert_array_equal(open_case(folder).mask, source.read(source.cases()[0], LABELS).mask)


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("name", ["image.npy", "mask.npy", "foreground.npy", "signature.npy", "case.json"])
@pytest.mark.parametrize("damage", [flip_last_byte, cut_in_half, Path.unlink])
def test_a_damaged_entry_is_decoded_again(
    data: Path, directory: Path, damage: Callable[[Path], object], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = build(directory, Counting(data))
    held = open_case(first[1]).image
    damage(first[1] / name)
    source = Counting(data)
    assert build(directory, source) == first
    assert source.read_cases == ["b"]
    assert f"Case b: {first[1] / name} is damaged and is decoded again." in caplog.text
    np.testing.assert_array_equal(open_case(first[1]).image, source.read(source.cases()[1], LABELS).image)
    assert held.shape == (1, 1, 9, 12)  # what was mapped before stays mapped
    assert not list(directory.rglob(".damaged-*"))
    again = Counting(data)
    build(directory, again)
    assert again.read_cases == []


def test_two_processes_that_mend_the_same_entry_agree(data: Path, directory: Path) -> None:
    barrier = multiprocessing.get_context("fork").Barrier(2)
    for entry in build(directory, Counting(data)):
        flip_last_byte(entry / "image.npy")
    foreground = case_module._sample_foreground

    def wait_for_the_other(*arguments: Any) -> Any:
        barrier.wait(60)  # both have found the entry damaged and are about to write it
        return foreground(*arguments)

    def both() -> None:
        case_module._sample_foreground = wait_for_the_other
        build(directory, Counting(data), threads=1)

    processes = [in_a_process(both) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(cached_folders(directory)) == 3
    assert not [path for path in directory.rglob(".*") if path.name.startswith((".writing-", ".damaged-"))]
    source = Counting(data)
    build(directory, source)
    assert source.read_cases == []


def test_a_case_cut_off_while_a_run_uses_it_is_named(data: Path, directory: Path) -> None:
    source = Counting(data)
    index = CaseCache(directory, source, LABELS).build(source.cases(), threads=1)
    cut_in_half(index.locate_case(0) / "image.npy")
    with pytest.raises(UnreadableFileError, match=r"image\.npy in the cache is cut off\. Start again"):
        index[0]


@pytest.mark.parametrize("left", ["", "0123"])
def test_a_remembered_content_that_was_cut_off_is_worked_out_again(data: Path, directory: Path, left: str) -> None:
    made = build(directory, Counting(data))
    for remembered in (directory / "seen").iterdir():
        remembered.write_text(left)
    source = Counting(data)
    assert build(directory, source) == made
    assert source.read_cases == []


def test_a_moved_folder_has_the_same_entries(data: Path, directory: Path, tmp_path: Path) -> None:
    made = build(directory, Counting(data))
    shutil.move(data, tmp_path / "elsewhere")
    source = Counting(tmp_path / "elsewhere")
    assert build(directory, source) == made
    assert source.read_cases == []


def test_unchanged_files_are_not_even_opened(data: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build(directory, Counting(data))

    def opened(path: Path) -> str:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(cache_module, "hash_file", opened)
    assert build(directory, Counting(data)) == made


@pytest.mark.parametrize(
    "labels",
    [
        LabelMap(["spleen", "liver"], "multiclass"),
        LabelMap(["liver", "spleen"], "multiclass", values=[2, 1]),
        LabelMap(["liver", "spleen"], "multiclass", ignore_value=7),
    ],
)
def test_other_labels_are_other_entries(data: Path, directory: Path, labels: LabelMap) -> None:
    source = Counting(data)
    assert not {*build(directory, source)} & {*build(directory, source, labels)}


def test_without_masks_the_labels_do_not_matter(data: Path, directory: Path) -> None:
    source = Counting(data, masks=None)
    made = build(directory, source)
    assert build(directory, source, LabelMap(["kidney"], "binary")) == made
    assert open_case(made[0]).mask is None
    assert open_case(made[0]).foreground == []
    assert not {*made} & {*build(directory, Counting(data))}


def test_folders_that_stand_for_other_labels_are_read_again(tmp_path: Path, directory: Path) -> None:
    save_raster(tmp_path / "images/a.png", noise((9, 12)))
    for organ in ("one", "two"):
        save_raster(tmp_path / organ / "a.png", blocks((9, 12), 1))
    overlapping = LabelMap(["liver", "spleen"], "multilabel")
    build(directory, FolderSource(str(tmp_path), masks={"liver": "one", "spleen": "two"}), overlapping)
    with pytest.raises(SettingError, match=r"names the masks spleen, liver, but labels\.names is liver, spleen"):
        build(directory, FolderSource(str(tmp_path), masks={"spleen": "one", "liver": "two"}), overlapping)


def test_equal_pixels_under_equal_names_are_two_cases(tmp_path: Path, directory: Path) -> None:
    rows = ["id,class,segmentation"]
    for day, runs in (("day1", "1 3"), ("day2", "")):
        save_raster(tmp_path / f"train/case7/case7_{day}/scans/slice_0001_12_9_1.50_1.50.png", noise((9, 12)))
        rows.append(f"case7_{day}_slice_0001,stomach,{runs}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    source = UWMadisonSource(str(tmp_path))
    made = build(directory, source, LabelMap(["stomach"], "multilabel"))
    masks = [open_case(folder).mask for folder in made]
    assert [int(mask.sum()) for mask in masks if mask is not None] == [3, 0]


def test_settings_of_the_source_are_part_of_the_key(data: Path, directory: Path) -> None:
    class Rescaled(Counting):
        factor = 1

        def reading_settings(self) -> tuple[object, ...]:
            return (self.factor,)

    build(directory, Rescaled(data))
    again, changed = Rescaled(data), Rescaled(data)
    changed.factor = 2
    build(directory, again)
    build(directory, changed)
    assert (again.read_cases, sorted(changed.read_cases)) == ([], ["a", "b", "c"])


PLUG_IN = """
import numpy as np
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import Volume
from medseg_pl.data.sources import FolderSource

class Scaled(FolderSource):
    def read(self, case, labels):
        volume = super().read(case, labels)
        return Volume(volume.image // FACTOR, volume.mask, volume.geometry)
"""


def test_an_edited_plug_in_is_read_again(
    data: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))

    def built_with(factor: int, file: str = "plug_in") -> list[Path]:
        (tmp_path / f"{file}.py").write_text(PLUG_IN.replace("FACTOR", str(factor)))
        monkeypatch.delitem(sys.modules, file, raising=False)
        importlib.invalidate_caches()
        return build(directory, importlib.import_module(file).Scaled(str(data)))

    made = built_with(2)
    assert built_with(2) == made
    edited = built_with(10)
    assert not {*edited} & {*made}
    pixels = noise((9, 12), 0)
    np.testing.assert_array_equal(open_case(made[0]).image[0, 0], pixels // 2)
    np.testing.assert_array_equal(open_case(edited[0]).image[0, 0], pixels // 10)
    assert built_with(2) == made  # and what was there before is found again


def test_an_edit_of_our_own_sources_is_a_matter_of_the_format(data: Path) -> None:
    assert cache_module._read_plugin_code(FolderSource) == ""
    assert "class Counting(FolderSource):" in cache_module._read_plugin_code(Counting)


def test_the_first_fault_stops_the_work_and_names_the_file(tmp_path: Path, directory: Path) -> None:
    for number in range(40):
        save_raster(tmp_path / "images" / f"{number:02d}.png", noise((9, 12), number))
        save_raster(tmp_path / "masks" / f"{number:02d}.png", blocks((9, 12), 77 if number == 2 else 1))
    source = Counting(tmp_path)
    with pytest.raises(MaskValueError, match=r"02\.png holds the value 77, which no label claims"):
        build(directory, source, threads=1)
    assert len(source.read_cases) < 40
    assert len(cached_folders(directory)) == len(source.read_cases) - 1


def test_a_fault_leaves_the_good_cases_in_place(data: Path, directory: Path) -> None:
    save_raster(data / "masks/c.png", blocks((9, 12), 77))
    with pytest.raises(MaskValueError):
        build(directory, Counting(data))
    save_raster(data / "masks/c.png", blocks((9, 12), 1, 2))
    source = Counting(data)
    build(directory, source)
    assert source.read_cases == ["c"]


@pytest.mark.parametrize("victim", ["image.npy", "foreground.npy", "mask.npy", "case.json", "checksums"])
def test_a_killed_writer_leaves_nothing_that_looks_whole(data: Path, directory: Path, victim: str) -> None:
    def die() -> None:
        save, write = case_module.write_array, Path.write_text

        def save_or_die(path: Path, array: np.ndarray) -> None:
            save(path, array)
            if path.name == victim:
                path.write_bytes(path.read_bytes()[:-3])
                os.kill(os.getpid(), signal.SIGKILL)

        def write_or_die(path: Path, text: str, **settings: Any) -> None:
            write(path, text[:-3] if path.name == victim else text, **settings)
            if path.name == victim:
                os.kill(os.getpid(), signal.SIGKILL)

        case_module.write_array, Path.write_text = save_or_die, write_or_die  # type: ignore[method-assign]
        build(directory, Counting(data), threads=1)

    process = in_a_process(die)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert any(directory.rglob(victim)), "it died while writing"
    assert cached_folders(directory) == set()
    source = Counting(data)
    made = build(directory, source)
    assert sorted(source.read_cases) == ["a", "b", "c"]
    np.testing.assert_array_equal(open_case(made[0]).image[0, 0], noise((9, 12), 0))


def test_two_processes_that_build_the_same_entries_agree(data: Path, directory: Path) -> None:
    barrier = multiprocessing.get_context("fork").Barrier(2)
    foreground = case_module._sample_foreground

    def wait_for_the_other(*arguments: Any) -> Any:
        barrier.wait(60)  # both have found the entry missing and are about to write it
        return foreground(*arguments)

    def both() -> None:
        case_module._sample_foreground = wait_for_the_other
        build(directory, Counting(data), threads=1)

    processes = [in_a_process(both) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(cached_folders(directory)) == 3
    assert not list(directory.rglob(".writing-*"))
    source = Counting(data)
    build(directory, source)
    assert source.read_cases == []


def test_threads_leave_the_process_its_umask(data: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It belongs to the whole process: two threads that set it and put it back can leave it at 0 for good.
    def changed(mask: int) -> int:
        raise AssertionError("a thread changed the umask")

    monkeypatch.setattr(os, "umask", changed)
    assert len(build(directory, Counting(data))) == 3


def test_entries_may_be_read_by_others(data: Path, directory: Path) -> None:
    before = os.umask(0o022)
    try:
        made = build(directory, Counting(data))
    finally:
        os.umask(before)
    for path in (made[0], *made[0].iterdir(), *(directory / "seen").iterdir()):
        assert path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH) == stat.S_IRGRP | stat.S_IROTH, path
        assert not path.stat().st_mode & stat.S_IWOTH, path


def test_the_description_is_plain_json(data: Path, directory: Path) -> None:
    description = json.loads((build(directory, Counting(data))[0] / "case.json").read_text())
    assert description["geometry"] == {"shape": [1, 9, 12], "spacing_mm": None, "affine": None}
    assert description["foreground_ends"] == [24, 48]


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", "/scratch/medseg")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/me/cache")
    assert find_default_directory() == Path("/scratch/medseg")
    monkeypatch.delenv("MEDSEG_CACHE")
    assert find_default_directory() == Path("/home/me/cache/medseg")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert find_default_directory() == Path("/home/me/.cache/medseg")


def test_voxels_beside_their_header_are_part_of_a_case(tmp_path: Path, directory: Path) -> None:
    for folder, voxels in {"images": noise((2, 9, 12)), "masks": blocks((2, 9, 12), 1)}.items():
        (tmp_path / "data" / folder).mkdir(parents=True)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "data" / folder / "a.mhd"))
    source = Counting(tmp_path / "data")
    labels = LabelMap(["liver"], "binary")
    (case,) = source.cases()
    assert CaseCache(directory, source, labels).build([case], 1)[0].image.any()
    (tmp_path / "data/images/a.raw").write_bytes(bytes(2 * 9 * 12))
    assert not CaseCache(directory, source, labels).build([case], 1)[0].image.any()
    assert source.read_cases == ["a", "a"]
