"""JSON and YAML of any origin, and shipped configurations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medseg_pl.__main__ import main
from medseg_pl.io.config_files import (
    find_config,
    find_configs,
    find_shipped_configs,
    list_config_names,
    read_json,
    read_yaml,
)
from tests.sample_wheel import unpack_wheel


@pytest.mark.parametrize("depth", [61, 900, 100_000])
def test_deep_nesting_is_one_error(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * depth + "]" * depth)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(path)
    path.write_text('{"a":' * depth + "1" + "}" * depth)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(path)
    if depth < 10_000:  # the scanner of YAML takes long over more
        with pytest.raises(ValueError, match="nested too deep"):
            read_yaml(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: !!python/object/apply:os.system [x]",
        "a: 2024-13-45",
        "a: !!int x",
        "a: !!timestamp x",
        "? {a: b}\n: 1",
    ],
)
def test_no_yaml_is_one_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"."):
        read_yaml(path)


def test_anchors_that_repeat_anchors_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="nested too deep"):
        read_yaml(tmp_path / "a.yaml")


def test_what_people_write_is_read(tmp_path: Path) -> None:
    content = {"labels": {"background": 0, "spleen": 1}, "training": [{"image": "a", "label": "b"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "a.json") == read_yaml(tmp_path / "a.json") == content


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel, unpacked."""
    return unpack_wheel(tmp_path_factory.mktemp("wheel"))


def run_elsewhere(package: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the unpacked wheel's command in a folder that is no clone."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-m", "medseg_pl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def test_a_wheel_holds_every_shipped_file(package: Path, tmp_path: Path) -> None:
    done = run_elsewhere(package, tmp_path, "--configs")
    assert Path(done.stdout.strip()) == package / "medseg_pl" / "configs"
    written = {path.relative_to("configs") for path in Path("configs").rglob("*") if path.is_file()}
    assert Path("slurm/train.sbatch") in written
    for path in written:
        assert (package / "medseg_pl" / "configs" / path).read_bytes() == Path("configs", path).read_bytes()


@pytest.mark.slow
def test_a_wheel_reads_its_configurations(package: Path, tmp_path: Path) -> None:
    config = "configs/experiment/demo.yaml"
    done = run_elsewhere(package, tmp_path, "fit", "--config", config, "--print_config")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["experiment"] == "demo"
    assert list(tmp_path.iterdir()) == []


def test_a_shipped_file_stands_in_for_one_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = find_shipped_configs()
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/model/tiny.yaml") == shipped / "model" / "tiny.yaml"
    assert find_config("configs/model/tinny.yaml") == Path("configs/model/tinny.yaml")
    assert find_config("configs/../pyproject.toml") == Path("configs/../pyproject.toml")
    own = tmp_path / "configs" / "model" / "tiny.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_config("configs/model/tiny.yaml") == Path("configs/model/tiny.yaml")  # one's own wins
    words = ["-c", "configs/data/folder.yaml", "--data.split_file=configs/experiment/chase_db1_splits.json"]
    assert find_configs(words) == [
        "-c",
        str(shipped / "data" / "folder.yaml"),
        f"--data.split_file={shipped / 'experiment' / 'chase_db1_splits.json'}",
    ]


def test_commands_read_them_outside_a_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config=configs/experiment/demo.yaml", "-c", "configs/trainer/cpu.yaml", "--print_config"])
    assert left.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["experiment"] == "demo"
    # `check` goes as far as to look into the data that the file names.
    (tmp_path / "data" / "chase_db1").mkdir(parents=True)
    assert main(["check", "--config", "configs/experiment/chase_db1.yaml"]) == 1
    assert "The split names 28 cases" in capsys.readouterr().out  # of a file that ships as well


def test_a_misspelled_one_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "configs/experiment/dmeo.yaml"]) == 2
    assert "There is no configuration configs/experiment/dmeo.yaml. Did you mean configs/experiment/demo.yaml?" in (
        capsys.readouterr().err
    )
    assert "configs/model/tiny.yaml" in list_config_names()
