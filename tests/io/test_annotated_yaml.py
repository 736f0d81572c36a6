"""YAML with reasons: what is read back is what was written."""

from __future__ import annotations

import hypothesis
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from medseg_pl.io.config_files import Commented, dump_annotated_yaml

VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))
LEAVES = st.one_of(VALUES, st.lists(VALUES, max_size=3), VALUES.map(lambda value: Commented(value, "because: # so")))
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda key: yaml.safe_load(key) == key)


def bare(value: object) -> object:
    """Without the remarks."""
    if isinstance(value, Commented):
        return value.value
    return {key: bare(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@hypothesis.settings(max_examples=8)  # of many values each, and the reader is slow
@given(
    st.dictionaries(KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, min_size=1), max_leaves=6))
)
@example({"a": "\xa0", "b": "\u2003 x"})
def test_what_is_read_is_what_was_written(settings: dict[str, object]) -> None:
    assert (yaml.safe_load(dump_annotated_yaml(settings)) or {}) == bare(settings)


def test_the_text() -> None:
    settings = {
        "model": {"network": {"class_path": Commented("a.B", "small")}, "input_size": [64, 48], "spacing_mm": None},
        "name": "yes",
    }
    assert dump_annotated_yaml(settings) == (
        "model:\n  network:\n    class_path: a.B  # small\n  input_size: [64, 48]\n  spacing_mm: null\nname: 'yes'\n"
    )
