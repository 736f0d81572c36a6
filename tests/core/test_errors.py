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


@pytest.mark.parametrize(
    ("labels", "unclaimed", "claimed", "option"),
    [
        ({"liver": None}, [2], [1], "1=liver,2=other"),
        ({"liver": None}, [1], [255], "1=other,255=liver"),
        ({"liver": None}, [3, 2], [1], "1=liver,2=label_2,3=label_3"),
        ({"nuclei": None, "other": None}, [255], [1, 2], "1=nuclei,2=other,255=label_255"),
        ({"nuclei": None, "dots": None}, [100, 200], [], "100=nuclei,200=dots"),
        ({"nuclei": None, "dots": None}, [255], [], "1=nuclei,2=dots,255=other"),
        ({"nuclei": 1}, [255], [], "1=nuclei,255=other"),
        ({}, [255], [], "255=lesion"),
        ({}, [7], [1, 2], "1=label_1,2=label_2,7=label_7"),
        ({"label_7": None}, [7, 8], [1], "1=label_7,7=label_7_2,8=label_8"),
        ({"label_2": None}, [2, 3], [1], "1=label_2,2=label_2_2,3=label_3"),
        ({"other": None, "label_7": None}, [7], [1, 2], "1=other,2=label_7,7=label_7_2"),
        ({"liver": None, "x": 5}, [7], [5], "5=x,7=liver"),
        ({"liver": None, "x": 5}, [7], [1, 5], "1=liver,5=x,7=other"),
        ({"x": 1, "liver": None, "spleen": None}, [7], [1], "1=x,2=liver,3=spleen,7=other"),
    ],
)
def test_suggested_labels_name_every_value(
    labels: dict[str, int | None], unclaimed: list[int], claimed: list[int], option: str
) -> None:
    assert errors.suggest_labels(labels, unclaimed, claimed) == option


def test_advice_names_the_values_that_an_error_knows() -> None:
    text = "Name them with labels.names and labels.values."
    known = errors.MaskValueError(text, [2], [1])
    assert errors.name_options(text, {"labels": {"liver": None}}, known) == "Name them as in --labels 1=liver,2=other."
    unknown = errors.MaskValueError(text)
    assert errors.name_options(text, {"labels": None}, unknown) == "Name them as in --labels VALUE=NAME."
