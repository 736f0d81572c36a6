"""Files that are nested too deep, or are no JSON or YAML, end in one kind of error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg_pl.io.structured import read_json, read_yaml


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
