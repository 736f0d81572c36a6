"""What the tests notice in every call: types, and shapes of arrays."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float

from medseg_pl.core.validation import find_path_fault
from tests.type_checks import choose_checker


class TestWithoutArrays:
    def test_arguments(self) -> None:
        with pytest.raises(jaxtyping.TypeCheckError):
            find_path_fault(3)  # type: ignore[arg-type]

    def test_results(self) -> None:
        @choose_checker(typechecker=None)
        def name_sides(count: int) -> list[str]:
            return [count] * count  # type: ignore[list-item]

        with pytest.raises(jaxtyping.TypeCheckError):
            name_sides(2)
        assert name_sides(0) == []
        assert name_sides.__annotations__ == {"count": "int", "return": "list[str]"}


class TestWithArrays:
    def test_two_of_one_name_have_one_length(self) -> None:
        @choose_checker(typechecker=beartype)
        def add(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
            return np.resize(a, b.shape) + b

        assert add(np.ones(2), np.ones(2)).tolist() == [2, 2]
        with pytest.raises(jaxtyping.TypeCheckError):
            add(np.ones(2), np.ones(3))
