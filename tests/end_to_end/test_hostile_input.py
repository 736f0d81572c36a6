"""Files and settings of a stranger who wants code to run: each ends with one paragraph, and no canary appears."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import socket
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from medseg_pl.__main__ import main
from medseg_pl.core.errors import MedsegError, SettingError
from medseg_pl.core.import_policy import restrict_imports
from medseg_pl.inference.predictor import Predictor
from medseg_pl.training.checkpoints import read_checkpoint
from tests.end_to_end.conftest import SMALL
from tests.sample_files import blocks, noise, save_raster

pytestmark = pytest.mark.trainings

DEMO = ["fit", "--config", "configs/experiment/demo.yaml", *SMALL]


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that hostile input would make; beside it a module whose import makes it."""
    path = tmp_path / "canary"
    (tmp_path / "hostile_module.py").write_text(f"open({str(path)!r}, 'w')\n\nclass Thing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CANARY", str(path))
    return path


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Forbid every connection, and every look-up of a name; what was tried fails the test at its end."""
    tried: list[Any] = []

    def refuse(*arguments: Any, **options: Any) -> Any:
        tried.append(arguments[-1])
        raise OSError("no address may be opened here")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    yield tried
    assert tried == []


def files_in(folder: Path) -> dict[str, bytes]:
    """What a folder holds, to see whether anything in it has changed."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that has to fail with one paragraph and without the canary, and give the paragraph."""

    def run(*arguments: str) -> str:
        assert main([*arguments, *([f"--runs={tmp_path / 'runs'}"] if arguments[0] == "fit" else [])]) in (1, 2)
        error = capsys.readouterr().err
        (paragraph,) = [line for line in error.splitlines() if line.startswith("medseg: ")]
        assert "Traceback" not in error
        assert not canary.exists()
        assert not (tmp_path / "runs").exists()
        assert "hostile_module" not in sys.modules
        return paragraph

    return run


class Gadget:
    """A pickle that runs a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def gadgets(canary: Path) -> list[Gadget]:
    return [
        Gadget(os.system, f"touch {canary}"),
        Gadget(eval, f"open({str(canary)!r}, 'w')"),
        Gadget(exec, "import hostile_module"),
        Gadget(open, str(canary), "w"),
    ]


# What a class_path can be given for, and how deep it may lie.
SETTINGS = [
    "--model.loss=hostile_module.Thing",
    "--model.network=hostile_module.Thing",
    "--model.normalization=hostile_module.Thing",
    "--model.optimizer=hostile_module.Thing",
    "--model.lr_scheduler=hostile_module.Thing",
    "--model.metrics+=hostile_module.Thing",
    "--data.source=hostile_module.Thing",
    "--data.augmentation=hostile_module.Thing",
    "--trainer.callbacks+=hostile_module.Thing",
    "--trainer.logger=hostile_module.Thing",
    "--trainer.plugins=hostile_module.Thing",
    "--trainer.strategy=hostile_module.Thing",
    "--trainer.profiler=hostile_module.Thing",
    '--model.loss={"class_path": "medseg_pl.WeightedSum", "init_args": {"losses": [{"class_path": '
    '"hostile_module.Thing"}]}}',
    "--model.network=torch.os.system",
    "--model.network=torch.serialization.os.system",
    "--model.network=medseg_pl.io.atomic_files.os.system",
    "--model.loss=torch.hub.load",
    "--model.optimizer=torch.load",
    "--model.network=torch.utils.cpp_extension.load",
    '--model.network={"class_path": "torch.utils.collect_env.run", "init_args": {"command": "touch $CANARY"}}',
    '--model.optimizer={"class_path": "torch.utils.collect_env.run", "init_args": {"command": "touch $CANARY"}}',
    '--model.lr_scheduler={"class_path": "torch.utils.collect_env.run", "init_args": {"command": "touch $CANARY"}}',
    '--trainer.callbacks+={"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"setup": '
    '{"class_path": "torch.utils.collect_env.run", "init_args": {"command": "touch $CANARY"}}}}',
    "--model.network=torch.jit._serialization.load",
    "--model.network=medseg_pl.io.atomic_files.write_text",
    "--model.network=medseg_pl.__main__.main",
    "--model.network=segmentation_models_pytorch.from_pretrained",
    "--model.network=builtins.exec",
    "--model.network=subprocess.Popen",
    "--plugins=os",
    "--plugins=subprocess",
]


@pytest.mark.parametrize("option", SETTINGS, ids=range(len(SETTINGS)))
def test_no_setting_imports_a_stranger(option: str, refused: Callable[..., str]) -> None:
    assert refused(*DEMO, option)


def test_the_refusal_says_how_to_allow(refused: Callable[..., str]) -> None:
    error = refused(*DEMO, "--model.loss=hostile_module.Thing")
    assert "The setting model.loss on the command line names hostile_module.Thing, which would run code of" in error
    assert "nothing of it was imported" in error
    assert "add --plugins hostile_module" in error
    assert "none of the classes that settings may name" in refused(*DEMO, "--model.network=torch.os.system")


def test_a_file_cannot_allow_itself(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("plugins: hostile_module\n")
    assert "plugins" in refused(*DEMO, "--config", str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "experiment: !!python/object/apply:os.system ['touch $CANARY']\n",
        "experiment: !!python/name:hostile_module.Thing\n",
        "experiment: !!python/module:hostile_module\n",
        "model: {loss: {class_path: hostile_module.Thing}}\n",
        "a: &a [x, x]\nb: &b [*a, *a]\n",
    ],
    ids=["apply", "name", "module", "class_path", "anchors"],
)
def test_a_configuration_runs_nothing(text: str, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "hostile.yaml").write_text(text)
    error = refused(*DEMO, "--config", str(tmp_path / "hostile.yaml"))
    assert "class_path" not in text or f"in {tmp_path / 'hostile.yaml'} names hostile_module.Thing" in error


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_checkpoint_runs_nothing(number: int, form: str, refused: Callable[..., str], canary: Path) -> None:
    hostile = canary.with_name("hostile.ckpt")
    content = {"state_dict": {}, "hyper_parameters": gadgets(canary)[number]}
    if form == "bare":
        hostile.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, hostile, _use_new_zipfile_serialization=form == "zip")
    assert "is not a checkpoint that medseg fit wrote" in refused("test", "--ckpt_path", str(hostile))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.ckpt", "file:///tmp/a.ckpt", "s3://bucket/a.ckpt"])
def test_no_url_is_opened(url: str, refused: Callable[..., str]) -> None:
    assert "is a URL" in refused("test", "--ckpt_path", url)
    assert "is a URL" in refused(*DEMO, "--ckpt_path", url)
    assert refused(*DEMO, "--config", url)


def test_a_checkpoint_names_no_stranger(refused: Callable[..., str], checkpoint: str, tmp_path: Path) -> None:
    for part, key in (("hyper_parameters", "loss"), ("datamodule_hyper_parameters", "source")):
        content = torch.load(checkpoint, weights_only=True)
        content[part][key] = {"class_path": "hostile_module.Thing", "init_args": {}}
        torch.save(content, tmp_path / "named.ckpt")
        error = refused("test", "--ckpt_path", str(tmp_path / "named.ckpt"))
        assert f"in {tmp_path / 'named.ckpt'} names hostile_module.Thing" in error
    for key in ("network", "normalization"):
        content = torch.load(checkpoint, weights_only=True)
        content["hyper_parameters"][key] = {"class_path": "hostile_module.Thing"}
        torch.save(content, tmp_path / "named.ckpt")
        with pytest.raises(SettingError, match=r"hostile_module\.Thing"):
            Predictor.from_checkpoint(tmp_path / "named.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["loss"] = {"class_path": "hostile_module.Thing"}
    content["hyper_parameters"]["_instantiator"] = "hostile_module.Thing"
    torch.save(content, tmp_path / "named.ckpt")
    Predictor.from_checkpoint(tmp_path / "named.ckpt")  # which makes no loss, and asks no instantiator
    assert "hostile_module" not in sys.modules


URL = "http://127.0.0.1:9/l.yaml"
OUTSIDE = "OUTSIDE"
"""In place of a folder outside the output."""


def nest(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": [value]}
    return value


# Where in a checkpoint, what stands there, and a word of the refusal.
STORED: dict[str, tuple[str, Any, str]] = {
    "absolute label": ("labels.names", [OUTSIDE], "label"),
    "climbing label": ("labels.names", ["../../x"], "label"),
    "label that commands": ("labels.names", ["a\x1b[2J"], "label"),
    "loss": ("loss", URL, "is the address"),
    "nested loss": (
        "loss",
        {"class_path": "medseg_pl.WeightedSum", "init_args": {"losses": [URL]}},
        "address",
    ),
    "normalization": ("normalization", f"simplecache::{URL}", "is the address"),
    "labels": ("labels", URL, "is the address"),
    "network": ("network", URL, "is the address"),
    "optimizer": ("optimizer", "s3://bucket/o.yaml", "is the address"),
    "source": ("data.source", URL, "is the address"),
    "root": ("data.source.init_args", {"root": "s3://bucket/data"}, "is the address"),
    "augmentation": ("data.augmentation", URL, "is the address"),
    "hub": ("network.init_args.encoder_name", "tu-hf-hub:timm/resnet18.a1_in1k", "looked up elsewhere"),
    "folder of a network": ("network.init_args.encoder_name", "tu-local-dir:/tmp/x", "looked up elsewhere"),
    "file as a loss": ("loss", f"{OUTSIDE}/loss.yaml", "is the file"),
    "file as a source": ("data.source", f"{OUTSIDE}/loss.yaml", "is not a checkpoint"),
    "deep settings": ("loss", nest(150), "is not a checkpoint"),
    "deep split": ("SegmentationDataModule", nest(150), "is not a checkpoint"),
    "circle": ("optimizer", [], "is not a checkpoint"),
    "perceptual loss": (
        "loss",
        {"class_path": "torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity"},
        "torchmetrics",
    ),
    "downloading encoder": (
        "network",
        {"class_path": "segmentation_models_pytorch.encoders.get_encoder", "init_args": {"name": "resnet18"}},
        "segmentation_models_pytorch",
    ),
}


def put_outside(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value.replace(OUTSIDE, str(folder))
    return [str(folder)] if value == [OUTSIDE] else value


def change(content: dict[str, Any], place: str, value: Any) -> None:
    """Put a value into a checkpoint's settings, or beside them."""
    if place == "SegmentationDataModule":
        content[place] = value
        return
    part = "datamodule_hyper_parameters" if place.startswith("data.") else "hyper_parameters"
    *names, last = place.removeprefix("data.").split(".")
    settings = content[part]
    for name in names:
        settings = settings[name]
    settings[last] = value
    if last == "names":
        settings["task"] = "multilabel"
    if value == []:
        value.append(value)


@pytest.mark.parametrize("kind", list(STORED))
def test_a_checkpoint_opens_and_writes_nothing(
    kind: str, refused: Callable[..., str], checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    place, value, word = STORED[kind]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "loss.yaml").write_text("class_path: medseg_pl.DiceCELoss\n")
    content = torch.load(checkpoint, weights_only=True)
    change(content, place, put_outside(value, outside))
    hostile = outside / "hostile.ckpt"
    torch.save(content, hostile)
    save_raster(tmp_path / "images" / "a.png", noise((40, 36)))
    before = files_in(tmp_path)
    error = refused(
        "predict", "--ckpt_path", str(hostile), f"--input={tmp_path / 'images'}", f"--output={tmp_path / 'predicted'}"
    )
    assert word in error
    assert len(error) < 1000
    after = files_in(tmp_path)
    assert {path: after[path] for path in after if not path.startswith(str(tmp_path / "predicted"))} == before
    if kind == "perceptual loss":  # a prediction makes no loss
        assert Predictor.from_checkpoint(hostile).labels.names
        return
    with pytest.raises((MedsegError, ValueError)):
        Predictor.from_checkpoint(hostile)


def test_a_checkpoint_says_neither_where_to_keep_cases_nor_what_to_download(checkpoint: str, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["datamodule_hyper_parameters"]["cache_dir"] = str(tmp_path / "elsewhere")
    network = content["hyper_parameters"]["network"]
    network["init_args"].pop("encoder_weights", None)  # smp's default are weights from a hub
    content["hyper_parameters"]["pretrained"] = URL
    torch.save(content, tmp_path / "a.ckpt")
    info = read_checkpoint(str(tmp_path / "a.ckpt"))
    settings = info.settings
    assert settings["data"]["cache_dir"] is None
    assert settings["model"]["network"]["init_args"]["encoder_weights"] is None
    assert settings["model"]["pretrained"] is None
    assert info.pretrained == URL  # named, and never loaded
    wrapped = {"class_path": "mine.Net", "init_args": {"inner": [network], "encoder_weights": "imagenet"}}
    content["hyper_parameters"]["network"] = wrapped
    torch.save(content, tmp_path / "a.ckpt")
    (inner,) = read_checkpoint(str(tmp_path / "a.ckpt")).settings["model"]["network"]["init_args"]["inner"]
    assert inner["init_args"]["encoder_weights"] is None


def test_an_encoder_of_a_hub_is_taken_from_the_cache_where_the_user_says_so(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["network"]["init_args"]["encoder_name"] = "tu-hf-hub:a/b"
    torch.save(content, tmp_path / "a.ckpt")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert read_checkpoint(str(tmp_path / "a.ckpt")).path
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(SettingError, match=r"a\.ckpt is not loaded: .*HF_HUB_OFFLINE=1"):
        read_checkpoint(str(tmp_path / "a.ckpt"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (f"model: {{loss: '{URL}'}}", "the setting model.loss is the address"),
        (f"data: '{URL}'", "the setting data is the address"),
        (f"trainer: {{logger: {{save_dir: '{URL}'}}}}", "the setting trainer.logger.save_dir is the address"),
        (f"trainer: {{logger: {{settings: {{base_url: '{URL}'}}}}}}", "base_url is the address"),
        (f"config: '{URL}'", "the setting config is the address"),
        ("a: " + "[" * 900 + "]" * 900, "nested too deep"),
        ("experiment: ../../x", "The experiment '../../x' holds '..'"),
        ("experiment: /abs", "The experiment '/abs'"),
        ("model: {labels: {names: [../x], task: binary}}", "The label '../x' holds '/'"),
    ],
    ids=["loss", "data", "logger", "key", "config", "deep", "climbing", "absolute", "label"],
)
def test_a_configuration_opens_and_writes_nothing(
    text: str, word: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "hostile.yaml").write_text(f"{text}\n")
    before = files_in(tmp_path)
    assert word in refused(*DEMO, "--config", str(tmp_path / "hostile.yaml"))
    assert files_in(tmp_path) == before


def test_the_key_of_wandb_stays(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    key = "0123456789" * 4
    monkeypatch.setenv("WANDB_API_KEY", key)
    logger = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "p"}}
    logger["init_args"] |= {"save_dir": str(tmp_path), "settings": {"base_url": "127.0.0.1:8931"}}  # type: ignore[operator]
    (tmp_path / "key.yaml").write_text(yaml.safe_dump({"trainer": {"logger": logger}}))
    error = refused(*DEMO, "--config", str(tmp_path / "key.yaml"))
    assert "WandbLogger's setting base_url is not taken" in error
    assert "WANDB_BASE_URL" in error
    assert key not in error + "".join(str(content) for content in files_in(tmp_path).values())


@pytest.mark.parametrize("name", ["dataset.json", "split.json"])
def test_deep_json_is_one_sentence(name: str, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / name).write_text("[" * 50_000)
    command = folder_of(tmp_path / "data")
    if name == "split.json":
        command.append(f"--data.split_file={tmp_path / name}")
    else:
        command = ["plan", str(tmp_path), "-o", str(tmp_path / "plan.yaml"), "--no_probe"]
    assert name in (error := refused(*command))
    assert "nested too deep" in error


def test_a_table_with_a_field_without_end_is_one_sentence(refused: Callable[..., str], tmp_path: Path) -> None:
    csv.field_size_limit(131_072)  # Python's own; the table of run lengths raises it for the whole process
    command = folder_of(tmp_path / "data")
    (tmp_path / "data" / "m.csv").write_text(f"case_id,group,image,mask\n{'a' * 200_000},x,images/a.png,masks/a.png\n")
    source = ["--data.source=ManifestSource", f"--data.source.manifest={tmp_path / 'data' / 'm.csv'}"]
    error = refused(*[option for option in command if not option.startswith("--data.source")], *source)
    assert "m.csv is no CSV" in error


def test_pretrained_run_nothing(refused: Callable[..., str], canary: Path, phantoms: dict[str, Path]) -> None:
    data = f"--data.source.root={phantoms['uw_madison']}"
    weights = canary.with_name("weights.pt")
    torch.save({"a": gadgets(canary)[1]}, weights)
    assert "no file of tensors alone" in refused(*DEMO, data, f"--model.pretrained={weights}")
    assert "is a URL" in refused(*DEMO, data, "--model.pretrained=http://127.0.0.1:9/weights.pt")
    (weights.parent / "weights.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + pickle.dumps(gadgets(canary)[1]))
    assert refused(*DEMO, data, f"--model.pretrained={weights.parent / 'weights.safetensors'}")


def folder_of(root: Path) -> list[str]:
    """Three images with masks, and the command that trains on them."""
    for name in "abc":
        save_raster(root / "images" / f"{name}.png", noise((40, 36), seed=ord(name)))
        save_raster(root / "masks" / f"{name}.png", blocks((40, 36), 1))
    source = [
        "--data.source=FolderSource",
        f"--data.source.root={root}",
        "--data.split_fractions=null",
        "--data.folds=3",
    ]
    return [*DEMO, *source, "--model.labels.names=[bar]", "--model.labels.task=binary", "--model.context_slices=0"]


def png_bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that claims and holds `side * side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (1 + side // 8)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def pickled_array(canary: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([gadgets(canary)[1]], dtype=object), allow_pickle=True)
    return file.getvalue()


def climbing_zip(canary: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../canary", "")
    return file.getvalue()


def climbing_tar(canary: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../canary"))
    return file.getvalue()


# What may lie where an image is expected: a name, and how its bytes are made.
IMAGES: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "pickled array": ("b.png", pickled_array),
    "zip that climbs": ("b.png", climbing_zip),
    "tar that climbs": ("b.nii.gz", climbing_tar),
    "bomb of pixels": ("b.png", lambda canary: png_bomb(1 << 15)),
    "bomb of voxels": ("b.nii.gz", lambda canary: gzip.compress(bytes(1 << 24))),
    "header that lies": ("b.nii", lambda canary: struct.pack("<i", 348) + b"\xff" * 344),
}


@pytest.mark.parametrize("kind", list(IMAGES))
def test_an_image_runs_nothing(kind: str, refused: Callable[..., str], canary: Path, tmp_path: Path) -> None:
    command = folder_of(tmp_path / "data")
    (tmp_path / "data" / "images" / "b.png").unlink()
    name, make = IMAGES[kind]
    (tmp_path / "data" / "images" / name).write_bytes(make(canary))
    assert name in refused(*command)


@pytest.mark.parametrize("place", ["../../outside.png", "{root}/../outside.png", "images/link.png"])
def test_a_manifest_does_not_leave_its_folder(place: str, refused: Callable[..., str], tmp_path: Path) -> None:
    command = folder_of(tmp_path / "data")
    save_raster(tmp_path / "outside.png", noise((40, 36)))
    (tmp_path / "data" / "images" / "link.png").symlink_to(tmp_path / "outside.png")
    row = f"x,x,{place.format(root=tmp_path / 'data')},masks/a.png"
    (tmp_path / "data" / "manifest.csv").write_text(f"case_id,group,image,mask\n{row}\n")
    source = ["--data.source=ManifestSource", f"--data.source.root={tmp_path / 'data'}"]
    source += [f"--data.source.manifest={tmp_path / 'data' / 'manifest.csv'}"]
    command = [option for option in command if not option.startswith("--data.source")]
    assert "lies outside" in refused(*command, *source)


def test_a_dataset_json_does_not_leave_its_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    pairs = [{"image": "../../etc/passwd", "label": "../../etc/passwd"}]
    (root / "dataset.json").write_text(json.dumps({"training": pairs, "labels": {"0": "background", "1": "x"}}))
    command = ["fit", "--config", "configs/experiment/hippocampus.yaml", *SMALL, f"--data.source.root={root}"]
    assert "lies outside" in refused(*command, "--model.labels.names=[x]")


def test_settings_of_jsonargparse_come_back() -> None:
    with pytest.raises(SettingError, match="expected the name of a package"), restrict_imports(["no name"]):
        pass
    with restrict_imports(["pytest"]):
        pass
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--kind", type=type)
    assert parser.parse_args(["--kind=collections.Counter"]).kind  # the user's own parsers are not ours


def test_exported_weights_are_tensors_and_a_description(
    checkpoint: str, phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    output = tmp_path / "out"
    assert main(["export", "--ckpt_path", checkpoint, "-o", str(output)]) == 0
    weights = load_file(output / "weights.safetensors")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert {f"model.network.{name}" for name in weights} == {name for name in state if name.startswith("model.")}
    assert all(torch.equal(value, state[f"model.network.{name}"]) for name, value in weights.items())
    text = (output / "spec.json").read_text()
    spec = json.loads(text)
    assert spec["classes"] == ["large_bowel", "small_bowel", "stomach"]
    assert (spec["in_channels"], spec["activation"]) == (3, "sigmoid")
    assert str(phantoms["uw_madison"]) not in text
    assert main(["export", "--ckpt_path", checkpoint, "-o", str(output)]) == 1
    assert "is not empty; nothing was written" in capsys.readouterr().err

    start = [*DEMO, f"--data.source.root={phantoms['uw_madison']}", f"--runs={tmp_path / 'runs'}"]
    again = f"--model.pretrained={output / 'weights.safetensors'}"
    assert main([*start, again, "--model.optimizer.lr=0.0", "--trainer.limit_train_batches=1"]) == 0
    trained = torch.load(next((tmp_path / "runs").rglob("last.ckpt")), weights_only=True)["state_dict"]
    convolutions = [name for name in state if name.startswith("model.network.") and state[name].ndim == 4]
    assert convolutions
    assert all(torch.equal(trained[name], state[name]) for name in convolutions)


def test_hyper_parameters_are_plain(checkpoint: str) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for part in ("hyper_parameters", "datamodule_hyper_parameters"):
        assert yaml.safe_load(yaml.safe_dump(content[part])) == content[part]
