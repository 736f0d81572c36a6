"""What a file may claim, counted in pixels and in bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io import size_limits

PATH = Path("scan.tif")


@pytest.mark.parametrize(("count", "item_bytes"), [(100, 1), (100, 8), (50, 16), (1, 800)])
def test_a_claim_up_to_the_limit_is_believed(count: int, item_bytes: int) -> None:
    size_limits.check_claim(PATH, count, 100, "pixels", item_bytes)


@pytest.mark.parametrize(
    ("count", "item_bytes", "said"),
    [(101, 1, "100 pixels"), (100, 9, "800 bytes"), (50, 17, "800 bytes"), (10**30, 10**9, "100 pixels")],
)
def test_a_claim_beyond_it_is_not(count: int, item_bytes: int, said: str) -> None:
    with pytest.raises(UnreadableFileError) as caught:
        size_limits.check_claim(PATH, count, 100, "pixels", item_bytes)
    assert str(caught.value) == (
        f"scan.tif claims more than {said} and is not decoded. Divide it, or remove it from the data set."
    )


def test_damage_says_what_the_library_says(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    error = size_limits.make_decoding_error(tmp_path / "a.png", ValueError("no header"), "be decoded as an image")
    assert str(error) == (
        f"{tmp_path / 'a.png'} (5 bytes) cannot be decoded as an image: no header. Replace it with an intact copy."
    )
    assert "(0 bytes)" in str(size_limits.make_decoding_error(tmp_path / "gone", ValueError("x"), "be read"))
