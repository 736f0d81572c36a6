"""Every error that a user can cause is one family, and its exit code says whether the command or the data was wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medseg_pl.core import errors


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.SettingError, 2),
        (errors.DataError, 1),
        (errors.MissingDataError, 1),
        (errors.UnreadableFileError, 1),
        (errors.MaskValueError, 1),
        (errors.GeometryError, 1),
        (errors.ForeignImageError, 1),
        (errors.OutputExistsError, 1),
        (errors.DivergedError, 1),
    ],
)
def test_exit_codes(error: type[errors.MedsegError], exit_code: int) -> None:
    assert issubclass(error, errors.MedsegError)
    assert error.exit_code == exit_code


def test_broken_data_can_be_caught_as_one() -> None:
    family = {
        errors.MissingDataError,
        errors.UnreadableFileError,
        errors.MaskValueError,
        errors.GeometryError,
        errors.ForeignImageError,
    }
    assert set(errors.DataError.__subclasses__()) == family
    assert not issubclass(errors.SettingError, errors.DataError)


def test_amounts_have_their_nouns_from_one_helper() -> None:
    """No text of the package says `1 case(s)`, and none adds the plural's letter by itself."""
    texts = {path: path.read_text(encoding="utf-8") for path in Path(errors.__file__).parents[1].rglob("*.py")}
    by_hand = re.compile(r"(\}|%d) [a-z ]+\(s\)|'' if \w+ == 1 else 's'")
    assert len(texts) > 100
    assert [path.name for path, text in texts.items() if by_hand.search(text)] == []
