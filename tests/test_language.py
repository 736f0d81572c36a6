"""The package's language keeps to its rules: verbs first, no participles, no `of`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.language import PACKAGE, find_functions, measure


def test_names_begin_with_verbs() -> None:
    figures, verbless = measure([PACKAGE])
    names = ", ".join(sorted(f"{each.path.name}:{each.name}" for each in verbless))
    assert figures["no verb first, %"] <= 10, names
    assert figures["bare participles, %"] <= 0.5
    assert figures["names with of, %"] <= 0.5


def test_modules_are_few_and_comments_many() -> None:
    figures, _ = measure([PACKAGE])
    assert figures["modules"] <= 220
    assert figures["comments in 100 lines"] >= 1.95  # 2, rounded


@pytest.mark.parametrize(
    ("source", "verb", "participle", "of"),
    [
        ("def load_case(): ...", True, False, False),
        ("def _find(): ...", True, False, False),
        ("def joined(): ...", False, True, False),
        ("def told(): ...", False, True, False),
        ("def mean_of(): ...", False, False, True),
        ("def place(): ...", True, False, False),
    ],
)
def test_a_name_is_judged_by_its_words(source: str, verb: bool, participle: bool, of: bool, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(source)
    (function,) = find_functions(tmp_path / "module.py")
    assert (function.begins_with_verb, function.is_participle, function.has_of) == (verb, participle, of)


def test_quantities_properties_and_hooks_need_no_verb(tmp_path: Path) -> None:
    members = [
        "    @property",
        "    def size_mm(self): ...",
        "    def on_fit_end(self): ...",
        "    def __len__(self): ...",
    ]
    text = "\n".join(["def dice(): ...", "class A:", *members])
    (tmp_path / "module.py").write_text(text)
    figures, verbless = measure([tmp_path])
    assert (figures["functions"], figures["functions counted"], verbless) == (4, 0, [])


def test_comments_are_counted_by_lines(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("a = 1  # because\nb = '# no comment'\n# why\nc = 3  # type: ignore\n")
    assert measure([tmp_path])[0]["comments in 100 lines"] == 50
