"""A checkpoint is read without torch, and runs no code."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg_pl.core.errors import MissingDataError, UnreadableFileError
from medseg_pl.io.torch_archive import TensorShape, read_archive

CONTENT: dict[str, Any] = {
    "epoch": 3,
    "rate": 0.5,
    "names": ["liver", "spleen"],
    "size": torch.Size([2, 3]),
    "state_dict": OrderedDict(
        weight=torch.zeros(4, 3, 2), half=torch.zeros(5, dtype=torch.bfloat16), one=torch.tensor(1)
    ),
    "parameter": torch.nn.Parameter(torch.zeros(2, 2)),
    "nested": {"deep": (1, None, True)},
}


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {os.environ['CANARY']}",)


def save(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


def test_values_are_those_of_torch(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "a.ckpt")
    content = read_archive(tmp_path / "a.ckpt")
    expected = torch.load(tmp_path / "a.ckpt", weights_only=True)
    for name in ("epoch", "rate", "names", "nested"):
        assert content[name] == expected[name]
    assert content["size"] == (2, 3)
    shapes = {name: each.shape for name, each in content["state_dict"].items()}
    assert shapes == {name: tuple(each.shape) for name, each in expected["state_dict"].items()}
    assert content["state_dict"]["half"] == TensorShape((5,), "BFloat16Storage")
    assert content["parameter"].shape == tuple(expected["parameter"].shape)


def test_torch_is_not_imported(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "a.ckpt")
    code = (
        "import sys; from pathlib import Path; from medseg_pl.io.torch_archive import read_archive; "
        f"read_archive(Path({str(tmp_path / 'a.ckpt')!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "content",
    [
        Hostile(),
        {"a": Hostile()},
        eval,
        {"a": pickle.Unpickler},
        {"a": Path("x")},
        [1, 2],
        {"a": subprocess.Popen},
    ],
    ids=["object", "nested object", "function", "class", "path", "list", "process"],
)
def test_everything_but_plain_data_is_refused(content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    with pytest.raises(UnreadableFileError, match="is not a checkpoint"):
        read_archive(save(tmp_path / "a.ckpt", pickle.dumps(content)))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["torch.load", "torch.hub.load1", "torch.serialization.x1", "os.system", "torch.a.b8"])
def test_names_of_torch_that_are_no_types_are_refused(name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    data = f"c{module}\n{attribute}\n(S'x'\ntR.".encode()
    with pytest.raises(UnreadableFileError):
        read_archive(save(tmp_path / "a.ckpt", data))


def test_damage_is_noticed(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "a.ckpt")
    whole = (tmp_path / "a.ckpt").read_bytes()
    for place in range(0, len(whole), len(whole) // 40):
        (tmp_path / "cut.ckpt").write_bytes(whole[:place])
        with pytest.raises(UnreadableFileError):
            read_archive(tmp_path / "cut.ckpt")
    for content in (b"", b"PK\x03\x04", pickle.dumps(CONTENT["names"])):
        (tmp_path / "other.ckpt").write_bytes(content)
        with pytest.raises(UnreadableFileError):
            read_archive(tmp_path / "other.ckpt")
    with pytest.raises(MissingDataError):
        read_archive(tmp_path / "none.ckpt")


def test_a_content_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x00" * (1 << 27))
    with pytest.raises(UnreadableFileError):
        read_archive(tmp_path / "a.ckpt")
