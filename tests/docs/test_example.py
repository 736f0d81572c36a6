"""The notebook is stored with what it printed and drew, and runs from the first cell to the last."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.end_to_end.conftest import SMALL

NOTEBOOK = Path("docs/example.ipynb").resolve()


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    read = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(read)
    return read


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_its_outputs_are_kept_and_name_no_machine(notebook: nbformat.NotebookNode) -> None:
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    assert any("w/t/l" in text for text in texts)
    # Folders of a machine, addresses, and colors of a terminal.
    assert [text for text in texts if re.search(r"(?<![\w.])/\w+/|\w@\w|\x1b", text)] == []
    assert {output.get("name") for output in outputs} <= {"stdout", None}
    assert NOTEBOOK.stat().st_size < 200_000


@pytest.mark.slow
@pytest.mark.parametrize("desk", ["empty_desk"], indirect=True)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of Jupyter's client
def test_it_runs(notebook: nbformat.NotebookNode, desk: Path) -> None:
    (settings,) = [cell for cell in code(notebook) if "settings" in cell.metadata.get("tags", ())]
    settings.source = f"SETTINGS = {list(SMALL)}\nPHANTOM = ['--cases=8', '--slices=6', '--size=40x36']"
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(desk)}}).execute()
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)  # the slice with its prediction
    compared = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    assert any("w/t/l" in text for text in compared)
    assert (desk / "runs/notebook_25d/version_0/scores_test.csv").is_file()
    assert (desk / "runs/notebook_2d/version_0/scores_test.csv").is_file()
