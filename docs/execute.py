"""The outputs of the example notebook: run it in an empty folder and keep what it prints and draws.

    python docs/execute.py

Needs minutes on a CPU. What names this machine (folders, host, user) ends the script before anything is written.
"""

from __future__ import annotations

import base64
import getpass
import json
import re
import socket
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parent / "example.ipynb"
CONFIGS = Path(__file__).parents[1] / "configs"
COLORS = re.compile(r"\x1b\[[0-9;]*m")


def main() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with TemporaryDirectory() as folder:
        (Path(folder) / "configs").symlink_to(CONFIGS)
        client = NotebookClient(
            notebook, timeout=3600, record_timing=False, resources={"metadata": {"path": folder}}, kernel_name="python3"
        )
        client.execute()
        outputs = [clean_outputs(cell) for cell in notebook.cells if cell.cell_type == "code"]
        refuse_names_of_this_machine(outputs, folder)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, NOTEBOOK)


def clean_outputs(cell: Any) -> list[Any]:
    """Join what a cell printed, without colors, and reduce its figures; what went to stderr is left out."""
    kept: list[Any] = []
    for output in cell.outputs:
        data = output.get("data", {})
        if output.get("name") == "stderr":
            continue  # progress, which differs with every machine
        if "image/png" in data:
            data["image/png"] = reduce_colors(data["image/png"])
        elif output.output_type in ("stream", "display_data"):  # rich displays its tables
            text = COLORS.sub("", output.get("text") or data["text/plain"])
            text = "\n".join(line.rstrip() for line in text.split("\n"))
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += text
                continue
            kept.append(nbformat.v4.new_output("stream", text=text))
            continue
        kept.append(output)
    cell.outputs = kept
    return kept


def reduce_colors(figure: str) -> str:
    """Write a PNG again with a palette, since a clone carries it for ever."""
    reduced = BytesIO()
    with Image.open(BytesIO(base64.b64decode(figure))) as image:
        image.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(reduced, "PNG", optimize=True)
    return base64.b64encode(reduced.getvalue()).decode()


def refuse_names_of_this_machine(outputs: list[Any], folder: str) -> None:
    """Raise `SystemExit` where printed outputs name a folder, the host or the user of this machine."""
    # Pictures left aside: their letters spell any short name by chance.
    printed = re.sub(r'"image/png": "[^"]*"', "", json.dumps(outputs))
    names = [folder, str(Path.home()), str(CONFIGS.parent), socket.gethostname(), f"{getpass.getuser()}@"]
    found = [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", printed)]
    if found:
        raise SystemExit(f"The outputs name this machine ({', '.join(found)}): {printed}")


if __name__ == "__main__":
    main()
