"""Which settings are addresses, and how deep settings may be nested."""

from __future__ import annotations

from typing import Any

import pytest

from medseg_pl.core.addresses import find_address, is_address, is_hub_name, iterate_texts


@pytest.mark.parametrize(
    "text",
    ["http://h/a", "https://h", "HTTP://h", " ftp://h/a", "s3://b/a", "gs://b", "file:///etc/passwd", "hf://a/b"],
)
def test_addresses_are_recognized(text: str) -> None:
    assert is_address(text)
    assert is_address(f"simplecache::{text.strip()}")


@pytest.mark.parametrize(
    "text", ["a/b.yaml", r"C:\data", "C:/data", "00:12:00:00", "torch.nn.ReLU", "a: b", "", "tu-x"]
)
def test_paths_and_names_are_no_addresses(text: str) -> None:
    assert not is_address(text)
    assert not is_hub_name(text)


@pytest.mark.parametrize("text", ["hf-hub:a/b", "tu-hf-hub:a/b", "tu-HF_HUB:a/b", "timm-hf-hub:a", "tu-local-dir:/a"])
def test_hub_names_are_recognized(text: str) -> None:
    assert is_hub_name(text)


def test_an_address_is_found_at_any_depth_but_in_prose() -> None:
    settings = {"model": {"loss": {"init_args": {"losses": [{"path": "http://h/a"}]}}}}
    assert find_address(settings) == ("model.loss.init_args.losses.path", "http://h/a")
    assert find_address({"trainer": {"logger": {"notes": "https://our.wiki/page"}}}) is None


def nest(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_what_is_nested_too_deep_or_repeats_itself_is_refused() -> None:
    assert list(iterate_texts(nest(50))) == [("", "x")]
    circle: list[Any] = []
    circle.append(circle)
    laughs: Any = ["x"] * 10
    for _ in range(9):
        laughs = [laughs] * 10
    for value in (nest(5000), circle, laughs):
        with pytest.raises(ValueError, match="nested too deep, or too many"):
            list(iterate_texts(value))
