"""Parts of a text that a program writes."""

from __future__ import annotations

import pytest

from medseg_pl.core.errors import SettingError
from medseg_pl.reporting.readme_markers import fill_markers, find_missing_markers

BLOCKS = {"model": "a table", "train": "two\nlines"}
TEXT = (
    "# Mine\n<!-- medseg:train -->\n<!-- /medseg:train -->\nwords\t \n\n<!-- medseg:model -->old<!-- /medseg:model -->"
)


def test_blocks_are_filled_and_all_else_stays() -> None:
    filled = fill_markers(TEXT, BLOCKS, "README.md")
    assert filled == (
        "# Mine\n<!-- medseg:train -->\ntwo\nlines\n<!-- /medseg:train -->\nwords\t \n\n"
        "<!-- medseg:model -->\na table\n<!-- /medseg:model -->"
    )
    assert fill_markers(filled, BLOCKS, "README.md") == filled


def test_line_ends_of_another_system_stay() -> None:
    filled = fill_markers(TEXT.replace("\n", "\r\n"), BLOCKS, "README.md")
    assert filled.count("\r\n") == filled.count("\n") and "two\r\nlines" in filled


def test_a_block_that_holds_a_mark_is_filled_the_same_again() -> None:
    blocks = {**BLOCKS, "model": "<!-- /medseg:model --> evil <!-- medseg:train -->"}
    filled = fill_markers(TEXT, blocks, "README.md")
    assert fill_markers(filled, blocks, "README.md") == filled


def test_blocks_without_marks_are_named() -> None:
    assert find_missing_markers("<!-- medseg:train --><!-- /medseg:train -->", BLOCKS) == ["model"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no marks", "has no place for what the run says. Put lines such as <!-- medseg:evaluate -->"),
        ("<!-- medseg:train -->", "once each, in this order; found 1 of the first and 0 of the second"),
        ("<!-- /medseg:train --><!-- medseg:train -->", "in this order"),
        ("<!-- medseg:train --><!-- /medseg:train -->" * 2, "found 2 of the first and 2 of the second"),
        ("<!-- medseg:trian --><!-- /medseg:trian -->", "Did you mean train?"),
        ("<!-- medseg:train --><!-- medseg:model --><!-- /medseg:model --><!-- /medseg:train -->", "inside each other"),
    ],
)
def test_damaged_marks_are_refused(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        fill_markers(text, BLOCKS, "README.md")
