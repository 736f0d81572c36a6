"""`medseg export`: the folder works without medseg, proves itself, and notices every change.

Its cards name nobody, and say of what is not known that it is not known.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from medseg_pl.__main__ import main
from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.export import image_files, runner
from medseg_pl.export.exporter import write_cards
from medseg_pl.export.onnx_model import DeployedNetwork, export_onnx, make_specification
from medseg_pl.inference.predictor import Predictor
from medseg_pl.models.checkpoint import read_checkpoint
from medseg_pl.models.segmentation_model import load_model
from tests.export.checkpoints import OURS, PHOTOGRAPH, ZSCORE, write_checkpoint
from tests.printed_json import run_json
from tests.reporting.run_folders import CONFIG, ENVIRONMENT, score, write_run
from tests.sample_files import blocks, noise, save_raster, save_volume

Run = Callable[..., tuple[int, str]]

PLUGINS = ("--plugins", OURS.rsplit(".", 1)[0])

CLEANING = {"fill_holes": True, "minimum_size": 9.0, "largest_only": True}

STACKS: dict[str, Any] = {
    "context_slices": 1,
    "spacing_mm": [1.5, 0.75],
    "tta": "flips",
    "window_overlap": 0.25,
    "whole_image_max_pixels": 3000,
    "postprocess": {"a": CLEANING},
    "labels": {"values": [4, 9], "colors": {"a": [255, 0, 0], "b": [0, 9, 0], "background": [1, 1, 1]}},
}
"""Volumes of one channel, labels that exclude each other."""

PHOTOGRAPHS: dict[str, Any] = {
    "names": ("vessel",),
    "task": "binary",
    "resize": "fit",
    "input_size": [40, 32],
    "channels": 3,
    "normalization": PHOTOGRAPH,
}

SURVEY = {
    "cases": 24,
    "groups": 12,
    "slices": 480,
    "channels": 1,
    "types": ["uint16"],
    "sizes": [[90, 100], [96, 112], [120, 130]],
    "depth": 20,
    "spacing_mm": [3.0, 1.5, 1.5],
    "spacing_varies": 1.0,
    "label_shares": {"a": 0.0215, "b": 0.001},
    "label_cases": {"a": 24, "b": 7},
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "stacks": write_checkpoint(folder / "stacks.ckpt", **STACKS),
        "photographs": write_checkpoint(folder / "photographs.ckpt", **PHOTOGRAPHS),
    }


@pytest.fixture(scope="module")
def exports(
    checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The folder of each checkpoint, and what is said of it."""
    done = {}
    for name, checkpoint in checkpoints.items():
        folder = tmp_path_factory.mktemp("exported") / name
        code, result = run_json("export", "--ckpt_path", checkpoint, "-o", folder, *PLUGINS)
        assert code == 0
        done[name] = folder, result
    return done


@pytest.fixture(scope="module")
def exported(exports: dict[str, tuple[Path, dict[str, Any]]]) -> dict[str, Path]:
    return {name: folder for name, (folder, _) in exports.items()}


@pytest.fixture(params=["stacks", "photographs"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def copied(exported: dict[str, Path], kind: str, tmp_path: Path) -> Path:
    """A folder that may be spoilt."""
    return Path(shutil.copytree(exported[kind], tmp_path / "copy"))


def start(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`python run.py`, in a process that has no medseg."""
    command = [sys.executable, "-I", str(folder / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The same command in this process: its exit code, and what it prints to stderr."""

    def run(folder: Path, *arguments: str | Path) -> tuple[int, str]:
        try:
            code = runner.main([*map(str, arguments)], folder)
        except SystemExit as left:  # wrong use
            code = int(str(left.code))
        return code, capsys.readouterr().err

    return run


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON document are that hold no others."""
    inner = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if not inner:
        yield path
    for key, part in inner:
        yield from leaves(part, (*path, key))


def changed(spec: dict[str, Any], path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> str:
    """The text of a specification in which one value is another."""
    other = json.loads(json.dumps(spec))
    place = other
    for key in path[:-1]:
        place = place[key]
    change(place, path[-1])
    return json.dumps(other)


def another(place: Any, key: Any) -> None:
    """Put another value of the same kind."""
    value = place[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        place[key] = {str: f"{value}x", bool: not value}.get(type(value), "something")
    else:
        place[key] = value + 1


def without(place: Any, key: Any) -> None:
    del place[key]


@pytest.mark.trainings
@pytest.mark.parametrize("kind", ["stacks"])
def test_every_field_is_guarded(copied: Path) -> None:
    runner.run_self_test(copied)
    spec = runner.read_specification(copied)
    places = list(leaves(spec))
    assert len(places) > 50
    for path in places:
        for change in (another, without):
            (copied / "spec.json").write_text(changed(spec, path, change))
            with pytest.raises(runner.RefusedError):
                runner.run_self_test(copied)


@pytest.mark.parametrize("kind", ["stacks"])
@pytest.mark.parametrize(
    "name", ["model.onnx", "weights.safetensors", "golden/small.npz", "requirements.txt", "medseg_runtime/__init__.py"]
)
def test_every_file_is_guarded(copied: Path, run: Run, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    said = f"run.py: {name} is not the file that was exported. Take the folder as it was made.\n"
    assert run(copied, "--self-test") == (1, said)
    (copied / name).unlink()
    assert f"{name} is missing" in run(copied, "--self-test")[1]


def test_the_result_lists_the_files(exports: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    for folder, result in exports.values():
        assert (result["precision"], result["measured"]) == ("fp32", None)
        assert {"model.onnx", "run.py", "spec.json"} <= set(result["files"])
        assert all((folder / name).is_file() for name in result["files"])


def test_the_folder_proves_itself(exported: dict[str, Path]) -> None:
    done = start(exported["stacks"], "--self-test")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("The self-test passed.\n")
    assert done.stdout.count("100.0000 % of pixels are medseg's") == done.stdout.count("\n") - 1


def test_a_damaged_module_is_named(exported: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported["stacks"], tmp_path / "copy"))
    module = copy / "medseg_runtime" / "geometry.py"
    module.write_text(f"{module.read_text()}# changed")
    assert "medseg_runtime/geometry.py is not the file that was exported" in start(copy, "--self-test").stderr
    module.unlink()
    done = start(copy, "--self-test")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No module named 'medseg_runtime.geometry'. Run pip install" in done.stderr


@pytest.mark.parametrize("kind", ["stacks"])
def test_a_changed_specification_is_named_before_any_image_is_read(copied: Path, run: Run, tmp_path: Path) -> None:
    spec = runner.read_specification(copied)
    (copied / "spec.json").write_text(changed(spec, ("window_overlap",), another))
    code, said = run(copied, save_raster(tmp_path / "a.png", noise((9, 9))), "-o", tmp_path / "masks")
    assert code == 1
    assert f"window_overlap is {spec['window_overlap'] + 1} and was {spec['window_overlap']}" in said
    assert not (tmp_path / "masks").exists()


SHOWN: dict[str, list[tuple[tuple[Any, ...], Any]]] = {
    "stacks": [
        (("context_slices",), 0),
        (("statistics", "percentiles", 0), 5.0),
        (("statistics", "percentiles", 1), 90.0),
        (("padding",), "high"),
        (("resize",), "fit"),
        (("spacing_mm", 0), 1.0),
        (("spacing_mm", 1), 1.0),
        (("window", 1), 40),
        (("window_overlap",), 0.6),
        (("window_sigma",), 0.5),
        (("whole_image_max_pixels",), 400),
        (("tta",), "none"),
        (("activation",), "sigmoid"),
        (("decision",), {"rule": "above", "threshold": 0.5}),
        (("labels", "task"), "multilabel"),
        (("labels", "names", 0), "c"),
        (("labels", "colors", "b", 1), 8),
        (("labels", "colors", "background", 1), 0),
        (("postprocess", "a", "fill_holes"), False),
        (("postprocess", "a", "minimum_size"), 9000.0),
        (("postprocess", "a", "largest_only"), False),
    ],
    "photographs": [
        (("resize",), "none"),
        (("input_size", 0), 32),
        (("input_size", 1), 40),
        (("size_divisor",), 64),
        (("activation",), "softmax"),
        (("decision", "threshold"), 0.6),
        (("labels", "values"), [7]),
        (("channels",), 1),
    ],
}
"""Fields that the golden cases show, beside the comparison with what model.onnx holds."""


def shown(model: runner.Model, folder: Path) -> bool:
    """Whether a golden case fails."""
    try:
        for case in model.spec["golden"]:
            runner.check_case(model, folder / case["file"], case["whole_image_max_pixels"])
    except (runner.RefusedError, IndexError, KeyError, ValueError, InvalidArgument):
        return True
    return False


def test_golden_cases_show_what_a_field_does(exported: dict[str, Path], kind: str) -> None:
    """The comparison alone could guard a field that the runner never looks at."""
    model = runner.Model(exported[kind])
    spec = model.spec
    assert not shown(model, exported[kind])
    for path, value in SHOWN[kind]:

        def put(place: Any, key: Any, value: Any = value) -> None:
            place[key] = value

        model.spec = json.loads(changed(spec, path, put))
        assert shown(model, exported[kind]), path


def test_the_folder_imports_only_what_it_requires(exported: dict[str, Path]) -> None:
    folder = exported["stacks"]
    required = {re.split("[>=]", line)[0] for line in (folder / "requirements.txt").read_text().splitlines()[1:]}
    modules = {"opencv-python-headless": "cv2", "pillow": "PIL"}
    allowed = {"medseg_runtime", *sys.stdlib_module_names, *(modules.get(name, name) for name in required)}
    for path in [folder / "run.py", *(folder / "medseg_runtime").iterdir()]:
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            names |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
        assert {name.partition(".")[0] for name in names} <= allowed, path.name


def test_nothing_tells_of_where_it_was_made(exported: dict[str, Path], kind: str) -> None:
    for name in ("model.onnx", "spec.json", "run.py"):
        content = (exported[kind] / name).read_bytes()
        assert str(Path.cwd()).encode() not in content
        assert b"site-packages" not in content
    model = onnx.load(exported[kind] / "model.onnx")
    assert [prop.key for prop in model.metadata_props] == ["medseg"]
    assert [dim.dim_param != "" for dim in model.graph.input[0].type.tensor_type.shape.dim] == [True, False, True, True]


class TestRunning:
    def test_volumes(self, checkpoints: dict[str, str], exported: dict[str, Path], tmp_path: Path) -> None:
        """Odd sizes, a grid that turns, two files; the masks are those of `Predictor`."""
        paths = [
            save_volume(tmp_path / "one.nii.gz", noise((57, 83, 3), dtype=np.int16), (0.7, 1.9, 4.0)),
            save_volume(tmp_path / "two.nii", noise((41, 19, 1), 1), (0.7, 0.9, 4.0)),
        ]
        done = start(exported["stacks"], *paths, "-o", tmp_path / "masks", "--probabilities", "--on_foreign", "ignore")
        assert (done.returncode, done.stderr) == (0, "")
        predictor = Predictor.from_checkpoint(checkpoints["stacks"], device="cpu", plugins=[OURS])
        for path in paths:
            expected = predictor.predict(path)
            found, _ = image_files.read_image(tmp_path / "masks" / path.name, "file")
            assert (found == np.array([0, 4, 9])[expected.mask]).mean() >= 0.9999
            assert set(np.unique(found)) == {0, 4, 9}
            probabilities = np.load(tmp_path / "masks" / f"{path.name}.npz")["probabilities"]
            np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-4)

    def test_photographs(
        self, checkpoints: dict[str, str], exported: dict[str, Path], run: Run, tmp_path: Path
    ) -> None:
        predictor = Predictor.from_checkpoint(checkpoints["photographs"], device="cpu", plugins=[OURS])
        paths = [save_raster(tmp_path / f"{side}.png", noise((side, 201, 3), side)) for side in (33, 87, 11)]
        code, said = run(exported["photographs"], *paths, "-o", tmp_path / "masks")
        assert (code, said.count("\n")) == (0, 1)
        assert "does not record what it was trained on" in said
        for path in paths:
            found = image_files.read_picture(tmp_path / "masks" / path.name)
            assert (found == predictor.predict(path).mask[:, 0]).mean() >= 0.9999
            assert found.max() == 1

    def test_slices_of_a_volume_and_channels_of_an_image(
        self, checkpoints: dict[str, str], exported: dict[str, Path], run: Run, tmp_path: Path
    ) -> None:
        planes = noise((3, 45, 51))
        paths = [save_raster(tmp_path / f"{i}.png", plane) for i, plane in enumerate(planes)]
        spacing = ("--spacing", "3", "1", "1")
        ignored = ("--on_foreign", "ignore")
        options = ("--together", "slices", *spacing, *ignored)
        assert run(exported["stacks"], *paths, "-o", tmp_path / "s", *options) == (0, "")
        predictor = Predictor.from_checkpoint(checkpoints["stacks"], device="cpu", plugins=[OURS])
        expected = predictor.predict(planes, (3.0, 1.0, 1.0)).mask[0]
        for mask, path in zip(expected, paths, strict=True):
            found = image_files.read_picture(tmp_path / "s" / path.name)
            assert ((found == np.array([[1, 1, 1], [255, 0, 0], [0, 9, 0]])[mask].transpose(2, 0, 1)).mean()) >= 0.9999
        assert run(exported["photographs"], *paths, "-o", tmp_path / "c", "--together", "channels", *ignored) == (0, "")
        predictor = Predictor.from_checkpoint(checkpoints["photographs"], device="cpu", plugins=[OURS])
        found = image_files.read_picture(tmp_path / "c" / "0.png")
        assert (found == predictor.predict(planes[:, None]).mask[:, 0]).mean() >= 0.9999

    def test_one_bad_file_stops_no_other(self, exported: dict[str, Path], run: Run, tmp_path: Path) -> None:
        good = save_raster(tmp_path / "good.png", noise((20, 21, 3)))
        gray = save_raster(tmp_path / "gray.png", noise((20, 21)))
        (tmp_path / "text.png").write_text("no image")
        code, said = run(exported["photographs"], tmp_path / "text.png", gray, good, "-o", tmp_path / "masks")
        assert code == 1
        assert f"{gray} was left out: it has 1 channel, but the model takes 3" in said
        assert "text.png was left out" in said
        assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["good.png", "predictions.csv"]
        assert "good.png is there already" in run(exported["photographs"], good, "-o", tmp_path / "masks")[1]

    def test_a_folder_stands_for_its_images(self, exported: dict[str, Path], run: Run, tmp_path: Path) -> None:
        folder = tmp_path / "new"
        for name in ("b.PNG", "a.png", "deeper/c.png", ".hidden.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            save_raster(tmp_path / "made.png", noise((20, 21, 3))).rename(folder / name)
        (folder / "notes.txt").write_text("no image")
        single = save_raster(tmp_path / "single.png", noise((20, 21, 3)))
        code, said = run(exported["photographs"], folder, single, "-o", tmp_path / "masks", "--on_foreign", "ignore")
        assert (code, said) == (0, f"run.py: {folder}: 2 other files or folders were not read.\n")
        rows = (tmp_path / "masks" / "predictions.csv").read_text().splitlines()
        assert rows[1:] == [f"{path},written," for path in (folder / "a.png", folder / "b.PNG", single)]
        assert {path.name for path in (tmp_path / "masks").glob("*.png")} == {"a.png", "b.png", "single.png"}

    def test_a_folder_without_images_or_order_is_refused(
        self, exported: dict[str, Path], run: Run, tmp_path: Path
    ) -> None:
        output = ("-o", tmp_path / "masks")
        code, said = run(exported["photographs"], tmp_path, *output)
        assert (code, said.startswith(f"run.py: {tmp_path} holds no image. Name a folder with files of .png,")) == (
            1,
            True,
        )
        save_raster(tmp_path / "a.png", noise((20, 21, 3)))
        code, said = run(exported["photographs"], tmp_path, *output, "--together", "slices")
        assert said == f"run.py: {tmp_path} is a folder. Give the slices of a case as files, in their order.\n"
        assert (code, (tmp_path / "masks").exists()) == (1, False)

    def test_runs_into_one_folder_share_its_table(self, exported: dict[str, Path], run: Run, tmp_path: Path) -> None:
        for side in (20, 23):
            image = save_raster(tmp_path / f"{side}.png", noise((side, 21, 3)))
            assert run(exported["photographs"], image, "-o", tmp_path / "masks")[0] == 0
        rows = (tmp_path / "masks" / "predictions.csv").read_text().splitlines()
        assert rows == ["input,status,reason", f"{tmp_path / '20.png'},written,", f"{tmp_path / '23.png'},written,"]
        (tmp_path / "masks" / "predictions.csv").write_text("a,b\n")
        image = save_raster(tmp_path / "c.png", noise((9, 21, 3)))
        code, said = run(exported["photographs"], image, "-o", tmp_path / "masks")
        assert (code, "is not a table of this program" in said) == (1, True)

    def test_a_truncated_volume_stops_no_other(self, exported: dict[str, Path], run: Run, tmp_path: Path) -> None:
        good = save_volume(tmp_path / "good.nii.gz", noise((21, 19, 2), dtype=np.int16), (1.0, 1.0, 4.0))
        half = tmp_path / "half.nii.gz"
        half.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
        code, said = run(exported["stacks"], half, good, "-o", tmp_path / "masks")
        assert (code, f"{half} was left out: " in said) == (1, True)
        assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["good.nii.gz", "predictions.csv"]

    def test_a_damaged_network_is_named(self, exported: dict[str, Path], tmp_path: Path) -> None:
        copy = shutil.copytree(exported["stacks"], tmp_path / "copy")
        (copy / "model.onnx").write_bytes(b"no network")
        done = start(copy, save_volume(tmp_path / "a.nii", noise((21, 19, 2)), (1, 1, 1)), "-o", tmp_path / "masks")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "model.onnx is not the file that was exported" in done.stderr

    def test_wrong_use(self, exported: dict[str, Path], run: Run, tmp_path: Path) -> None:
        code, said = run(exported["stacks"])
        assert code == 2
        assert "give images and -o DIR, or --self-test" in said
        flat = save_raster(tmp_path / "flat.png", noise((20, 21)))
        assert "give it with --spacing Z Y X" in run(exported["stacks"], flat, "-o", tmp_path / "m")[1]


@pytest.fixture(scope="module")
def measurable(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint beside the data that it claims to come from."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(5):
        save_raster(folder / "images" / f"{i}.png", noise((37, 41), i))
        save_raster(folder / "masks" / f"{i}.png", blocks((37, 41), 1, 2))
    source = {"class_path": "medseg_pl.FolderSource", "init_args": {"root": "gone"}}
    write_checkpoint(folder / "a.ckpt", source=source, validation=("0",))
    return str(folder / "a.ckpt")


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def test_lower_precisions_say_what_they_cost(
    measurable: str, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--data_root={Path(measurable).parent}"
    output = tmp_path / "out"
    command = ["export", "--ckpt_path", measurable, "-o", str(output), "--precision", precision, root, *PLUGINS]
    assert main(command) == 0
    spec = runner.read_specification(output)
    measured = spec["measured"]
    assert measured["cases"] == 1
    for dice in (measured["dice"], *measured["labels"].values()):
        assert dice["cost"] == dice["checkpoint"] - dice["exported"]
        assert 0 < dice["exported"] < 1
    printed = capsys.readouterr().out
    assert f"Mean Dice of 1 validation cases: {measured['dice']['checkpoint']:.4f} by the checkpoint" in printed
    types = {tensor.data_type for tensor in onnx.load(output / "model.onnx").graph.initializer}
    assert {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.UINT8}[precision] in types
    assert runner.run_self_test(output)


@pytest.mark.trainings
def test_channels_that_are_normalized_apart(tmp_path: Path) -> None:
    window = {
        "class_path": "medseg_pl.IntensityWindow",
        "init_args": {"low": -100.0, "high": 200.0},
    }
    apart = {"class_path": "medseg_pl.PerChannel", "init_args": {"channels": [window, ZSCORE]}}
    checkpoint = write_checkpoint(tmp_path / "petct.ckpt", channels=2, context_slices=1, normalization=apart)
    assert main(["export", "--ckpt_path", checkpoint, "-o", str(tmp_path / "out"), *PLUGINS]) == 0
    with np.load(tmp_path / "out" / "golden" / "whole.npz") as case:
        ct, pet = case["image"]
    assert np.nanmin(ct) < -100
    assert np.nanmin(pet) >= 0  # each golden channel lies where its own normalization looks
    assert all("100.0000 % of pixels" in line for line in runner.run_self_test(tmp_path / "out"))


def test_padding_by_the_size_is_written_as_numbers(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", network=f"{OURS}.SamePadding")
    model = load_model(checkpoint, [OURS])
    graph, any_size = export_onnx(model, "fp32")
    assert any_size
    # From an unknown size it would be computed in the graph, an expression in an expression at each layer.
    assert "Ceil" not in {node.op_type for node in graph.graph.node}
    image = torch.rand((1, 1, 48, 72))
    statistics = torch.tensor([[[50.0, 30.0, 0.0, 100.0]]])
    expected = DeployedNetwork(model)(image, statistics).detach().numpy()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": image.numpy(), "statistics": statistics.numpy()})
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "32", "bf16-mixed", "16", "bf16", "bf16-true", "16-true"])
def test_an_export_says_that_prediction_computes_otherwise(
    precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", precision=precision)
    assert main(["export", "--ckpt_path", checkpoint, "-o", str(tmp_path / "out"), *PLUGINS]) == 0
    sentence = (
        f"run.py computes in 32 bits and medseg predict in the checkpoint's {precision}, so masks may differ by a "
        "few voxels; compare with medseg predict --trainer.precision 32-true.\n"
    )
    assert (sentence in capsys.readouterr().out) == ("32" not in precision)


def test_a_network_of_one_size_runs_in_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", network=f"{OURS}.OneSize", whole_image_max_pixels=1024)
    assert main(["export", "--ckpt_path", checkpoint, "-o", str(tmp_path / "out"), *PLUGINS]) == 0
    assert "can be exported for one size only, 32 x 32" in capsys.readouterr().out
    model = runner.Model(tmp_path / "out")
    assert (model.spec["any_size"], model.spec["whole_image_max_pixels"]) == (False, 1024)
    image = noise((1, 1, 77, 45))
    expected = Predictor.from_checkpoint(checkpoint, device="cpu", plugins=[OURS]).predict(image).mask
    assert (model.predict(image)[0] == expected).mean() >= 0.9999


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"network": f"{OURS}.Undecided"}, "torch cannot write this network as ONNX"),
        (
            {"normalization": {"class_path": f"{OURS}.ByItsOwnMean"}},
            "does not compute what the checkpoint does, so nothing was written: run.py: ",
        ),
    ],
    ids=["undecided", "by its own mean"],
)
def test_what_cannot_be_exported_leaves_nothing(
    tmp_path: Path, settings: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", **settings)
    assert main(["export", "--ckpt_path", checkpoint, "-o", str(tmp_path / "out"), *PLUGINS]) == 1
    assert reason in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_code_of_others_has_to_be_allowed(
    checkpoints: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--ckpt_path", checkpoints["stacks"], "-o", str(tmp_path / "out")]) == 2
    assert "add --plugins tests" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert main(["export", "--ckpt_path", "any.ckpt", "-o", str(tmp_path / "out")]) == 2
    assert (
        "needs onnxscript, which is not installed. Install what belongs to it with pip install 'medseg[export]'."
        in (capsys.readouterr().err)
    )


def write_both_cards(checkpoint: str, output: Path, precision: str = "fp32") -> tuple[str, str]:
    """Write the model card and the data card that an export would have, and read them."""
    info = read_checkpoint(checkpoint)
    model = load_model(info, [PLUGINS[1]])
    settings = info.settings["model"]
    spec = make_specification(model, settings, slicing="file", any_size=True, precision=precision)
    output.mkdir()
    write_cards(output, info, {**spec, "golden": [], "measured": None})
    model_card, data_card = ((output / name).read_text() for name in ("MODEL_CARD.md", "DATA_CARD.md"))
    return model_card, data_card


def trained(folder: Path, name: str = "best.ckpt") -> str:
    """A checkpoint in a run folder with scores of 12 patients."""
    table = [score(f"secret{i}", f"Jane{i}", label, 0.8 + i / 100) for i in range(12) for label in ("a", "b")]
    run = write_run(folder / "runs" / "demo" / "version_0", table, ["a", "b"], config=CONFIG)
    record = {**ENVIRONMENT, "data": {**ENVIRONMENT["data"], "survey": SURVEY}}
    (run / "environment.json").write_text(json.dumps(record))
    (run / "checkpoints").mkdir()
    return write_checkpoint(run / "checkpoints" / name)


def test_what_the_run_knows_stands_in_the_cards(tmp_path: Path) -> None:
    model, data = write_both_cards(trained(tmp_path), tmp_path / "out")
    assert model.startswith("---\nlibrary_name: onnx\n") and "# Model card: demo, version_0" in model
    assert "| a | 0.855 | 0." in model and "| b | 0.855 | 0." in model
    assert "no medical device" in model and "| cost in Dice | not known |" in model
    assert "does not resample: others were not tried" in model
    assert "| patients | 12 |" in data and "| 3 × 1.5 × 1.5 mm |" in data
    assert "| b | 7 of 24 | 0.10% |" in data
    assert f"`{'4f9c' * 16}`" in data


def test_nobody_and_no_folder_is_named(tmp_path: Path) -> None:
    cards = "".join(write_both_cards(trained(tmp_path), tmp_path / "out"))
    assert not [word for word in ("secret", "Jane", "someone", str(tmp_path)) if word in cards]


def test_a_checkpoint_that_lies_alone_says_what_it_knows(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "moved.ckpt", names=("&lt;b", "b"))
    model, data = write_both_cards(checkpoint, tmp_path / "out")
    assert "Its scores are not known" in model and "- No score of this model is known." in model
    assert "&amp;lt;b" in model and "&lt;b" not in model
    assert "| `model.channels` | 1 |" in model
    assert "What the data is like was not recorded." in data and "it does not say who was trained on" in data


def test_scores_may_be_those_of_another_checkpoint(tmp_path: Path) -> None:
    model, _ = write_both_cards(trained(tmp_path, "last.ckpt"), tmp_path / "out", "fp16")
    assert "this export is of last.ckpt, which may not be what was scored" in model
    assert "What fp16 costs in Dice was not measured." in model


@pytest.mark.parametrize("kind", ["stacks"])
def test_an_author_may_write_on_the_cards(copied: Path) -> None:
    assert (copied / "MODEL_CARD.md").read_text().count("# Model card: stacks") == 1
    (copied / "MODEL_CARD.md").write_text("of my own")
    assert len(runner.run_self_test(copied)) == len(runner.read_specification(copied)["golden"])


def test_a_damaged_run_folder_is_named(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path)
    (tmp_path / "runs/demo/version_0/summary_test.json").write_text("{")
    with pytest.raises(UnreadableFileError, match=r"summary_test\.json is not valid JSON"):
        write_both_cards(checkpoint, tmp_path / "out")


@pytest.mark.parametrize("spacing", [("0", "1", "1"), ("nan", "1", "1"), ("1", "-1", "1"), ("1", "1", "inf")])
def test_a_spacing_is_a_length(exported: dict[str, Path], run: Run, tmp_path: Path, spacing: tuple[str, ...]) -> None:
    image = save_raster(tmp_path / "a.png", noise((33, 35, 3)))
    code, said = run(exported["photographs"], image, "-o", tmp_path / "masks", "--spacing", *spacing)
    assert code == 2
    assert "--spacing takes three lengths above 0" in said


def test_an_output_that_is_not_a_number_is_no_background(
    exported: dict[str, Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = runner.Model._predict_windows

    def overflow(*arguments: Any) -> Any:
        return predict(*arguments) * np.nan

    monkeypatch.setattr(runner.Model, "_predict_windows", overflow)
    image = save_volume(tmp_path / "a.nii.gz", noise((33, 35, 3)))
    code, said = run(exported["stacks"], image, "-o", tmp_path / "masks")
    assert code == 1
    assert "the network's output is not a number" in said
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["predictions.csv"]
