"""Every page is found from the first one, every link inside the repository leads somewhere, and the pages build."""

from __future__ import annotations

import html
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from medseg_pl.checks import CODES
from tests.docs.commands import blocks

DOCS = Path("docs")
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
    (listed,) = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    pages = [line for line in listed.splitlines() if line and not line.startswith(":")]
    assert sorted(pages) == sorted(page.stem for page in DOCS.glob("*.md") if page.stem != "index")
    table = (DOCS / "index.md").read_text()
    assert [page for page in pages if f"]({page}.md)" not in table] == []


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
