"""Every page is found from the first one, every link inside the repository leads somewhere, and the pages build."""

from __future__ import annotations

import doctest
import html
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import snowballstemmer

from medseg_pl import CLASSES
from medseg_pl.__main__ import MODULES, REPEATING, TRAINER_COMMANDS
from medseg_pl.checks import CODES
from medseg_pl.cli.wrong_use import SETTINGS
from medseg_pl.core import image_findings
from tests.docs.commands import blocks

DOCS = Path("docs")
README = Path("README.md")
SECTIONS = [
    "## 1. Problem Statement",
    "## 2. Related Works",
    "## 3. The Proposed Method",
    "## 4. Implementation",
    "### 4.1 Dataset",
    "### 4.2 Model",
    "### 4.3 Configurations",
    "### 4.4 Train",
    "### 4.5 Evaluate",
]
WRITTEN = [Path("README.md"), Path("CONTRIBUTING.md"), *sorted(DOCS.glob("*.md"))]


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_page_lists_every_other_one() -> None:
    listed = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    pages = [line for part in listed for line in part.splitlines() if line and not line.startswith(":")]
    captions = re.findall(r"^:caption: (.*)$", "".join(listed), re.MULTILINE)
    assert captions == ["Tutorials", "How-to", "Reference", "Explanation"]
    assert sorted(pages) == sorted(page.stem for page in DOCS.glob("*.md") if page.stem != "index")
    table = (DOCS / "index.md").read_text()
    assert [page for page in pages if f"]({page}.md)" not in table] == []


def test_every_public_class_has_its_place_on_a_page(conf: ModuleType) -> None:
    rooms = [
        room for page in DOCS.glob("*.md") for marked in conf.API.findall(page.read_text()) for room in marked.split()
    ]
    assert sorted(rooms) == sorted(set(CLASSES.values()))
    shown = re.findall(r"autoclass:: medseg_pl\.(\w+)", conf.api_as_markdown(" ".join(rooms)))
    assert sorted(shown) == sorted(CLASSES)


def test_the_pages_of_commands_and_settings_have_them_all(conf: ModuleType) -> None:
    assert conf.SETTINGS in (DOCS / "settings.md").read_text()
    assert conf.COMMANDS in (DOCS / "commands.md").read_text()
    settings = conf.settings_as_markdown()
    wholes = {"trainer", "model", "data", "model.labels", "config", "print_config", "data_root", "plugins", "help"}
    assert [name for name in SETTINGS if name not in wholes and f"| `{name}` |" not in settings] == []
    commands = conf.commands_as_markdown()
    assert [name for name in (*TRAINER_COMMANDS, *REPEATING, *MODULES) if f"## medseg {name}\n" not in commands] == []


def list_prose(page: Path) -> list[str]:
    """The lines of a page that are neither code nor tables nor pictures."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [line for line in text.splitlines() if not line.startswith(("|", "![", "<", "#", "  <"))]


def test_the_readme_is_short_and_has_the_sections_of_the_template() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    assert len(text.split()) <= 1800
    assert [line for line in list_prose(README) if len(line) > 100] == []
    assert [line for line in text.splitlines() if line.startswith("#") and line in SECTIONS] == SECTIONS
    parts = re.split(r"^#+ .*$", text[text.index("### 4.1") :], flags=re.MULTILINE)[1:6]
    assert [len(part.splitlines()) for part in parts if len(part.strip().splitlines()) > 25] == []


def test_the_pictures_of_the_readme_are_made_by_a_script() -> None:
    pictures = set(re.findall(r"docs/figures/([\w.]+)", README.read_text()))
    script = (DOCS / "figures" / "draw.py").read_text()
    drawn = {name for name in pictures if name in script or re.sub("(light|dark)", "{theme}", name) in script}
    assert len(drawn) >= 4
    assert pictures - drawn == {"accuracy.png"}  # the chart of `benchmarks/accuracy.py`


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can name, as GitHub and MyST call them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=str)
def test_its_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r"\{download\}`([^`]+)`", text)]
    inside = [link for link in links if "://" not in link]
    for link in inside:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page} links to {link}, which does not exist"
        assert not anchor or anchor in anchors(target), f"{page} links to {link}; {target} has no such heading"
    assert inside or page.name not in ("README.md", "index.md")


def test_the_page_of_check_has_every_code_with_its_remedy(conf: ModuleType) -> None:
    assert conf.CODES in (DOCS / "checks.md").read_text()
    page = conf.codes_as_markdown()
    for code, kind in CODES.items():
        assert page.count(f"| `{code}` | {kind.meaning} | {kind.remedy} |") == 1
    assert page.count("\n| `") == len(CODES)
    assert page.index("## Errors") < page.index("`no-cases`") < page.index("## Warnings") < page.index("## Notes")


def test_the_notebook_stands_on_its_page_with_its_outputs(conf: ModuleType) -> None:
    assert conf.NOTEBOOK in (DOCS / "notebook.md").read_text()
    page = conf.notebook_as_markdown()
    assert page.count('src="data:image/png;base64,iVBOR') == 1
    assert "```text\nA  runs/notebook_25d/version_0/scores_test.csv" in page


def test_formulas_and_help_are_translated(conf: ModuleType) -> None:
    done = doctest.testmod(conf)
    assert (done.failed, done.attempted) == (0, 2)


def test_the_page_of_foreign_images_has_every_code_with_its_remedy(conf: ModuleType) -> None:
    assert conf.FOREIGN_CODES in (DOCS / "foreign.md").read_text()
    page = conf.foreign_codes_as_markdown()
    for code, kind in image_findings.CODES.items():
        assert page.count(f"| `{code}` | {kind.meaning} | {kind.remedy} |") == 1
    assert page.count("\n| `") == len(image_findings.CODES)


def test_its_python_examples_hold() -> None:
    """Those of the page of metrics, which need nothing; the others are run where there is a checkpoint."""
    ((_, example),) = blocks(DOCS / "metrics.md", "python")
    exec(compile(example, "docs/metrics.md", "exec"), {})


def build_pages(folder: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "-c", str(DOCS)]
    return subprocess.run([*command, str(folder), str(output)], capture_output=True, text=True, check=False)


def changed_options(text: str) -> list[str]:
    """Options whose two hyphens became a dash, which no command takes."""
    return re.findall(r"[–—][a-z][\w-]*", re.sub(r"<[^>]+>", "", text))


@pytest.mark.documents
def test_options_and_quotes_can_be_copied_from_a_page(tmp_path: Path, conf: ModuleType) -> None:
    words = 'Set --layout or "--data.source" beside `--x "y"`.'
    (tmp_path / "index.md").write_text(f"# Codes\n\n{words}\n\n{conf.CODES}\n")
    done = build_pages(tmp_path, tmp_path / "html")
    assert done.returncode == 0, done.stderr
    page = html.unescape((tmp_path / "html" / "index.html").read_text())
    assert 'Set --layout or "--data.source" beside' in page
    assert any("--layout" in kind.remedy for kind in CODES.values())
    assert changed_options(page) == []


@pytest.mark.parametrize("page", [*WRITTEN, Path("CHANGELOG.md")], ids=str)
def test_no_option_is_written_with_a_dash(page: Path) -> None:
    assert changed_options("–layout") == ["–layout"]
    assert changed_options(page.read_text(encoding="utf-8")) == []


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    done = build_pages(DOCS, tmp_path)
    assert done.returncode == 0, done.stderr
    for page in DOCS.glob("*.md"):
        assert changed_options((tmp_path / f"{page.stem}.html").read_text()) == []
    checks = (tmp_path / "checks.html").read_text()
    assert all(code in checks for code in CODES)
    classes = "".join((tmp_path / f"api_{page}.html").read_text() for page in ("data", "models", "metrics"))
    assert ">args<" not in classes  # what a constructor takes is named
    assert "<math" in classes
    assert "$$" not in classes
    for words, page in SEARCHED.items():
        assert page in search(tmp_path / "searchindex.js", words), words


SEARCHED = {
    "early stopping": "faq",
    "pretrained": "pretrained",
    "fine-tune": "training",
    "sweep": "sweeps",
    "docker": "docker",
    "SegmentationModule": "api_models",
}
"""What a reader looks for, and a page that has to be among the answers."""


def search(index: Path, words: str) -> set[str]:
    """Find the pages with all words, as the search of the pages does: by stems, in text and titles."""
    text = index.read_text()
    content = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    answers = []
    for word in re.findall(r"\w+", words.lower()):
        stem = snowballstemmer.stemmer("porter").stemWord(word)
        numbers = [content[part].get(stem, []) for part in ("terms", "titleterms")]
        pages = {number for found in numbers for number in ([found] if isinstance(found, int) else found)}
        answers.append({content["docnames"][number] for number in pages})
    return set.intersection(*answers)
