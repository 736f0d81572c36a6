"""The pictures of README and documentation, from a run of the demo and a data set with planted faults.

    python docs/figures/draw.py RUN

RUN is a run folder of the demo that was tested (`make demo`). All images are synthetic. The browser is the installed
chromium; each picture is written beside this script.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FIGURES = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TERMINAL = """<body style="margin:0;background:#15181c"><pre style="margin:0;padding:18px 22px;color:#d6dae0;
font:14px/1.35 'DejaVu Sans Mono',monospace;display:inline-block">{}</pre></body>"""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder of the demo, after medseg test")
    run = parser.parse_args().run.resolve()
    overlays = sorted((run / "overlays" / "test").glob("*.png"))
    shutil.copy(overlays[0], FIGURES / "phantom_overlay.png")
    with TemporaryDirectory() as folder, open_browser() as browser:
        desk = Path(folder)
        call(desk, "report", str(run), "-o", "report.html")
        for theme in ("light", "dark"):
            photograph(browser, desk / "report.html", FIGURES / f"report_{theme}.png", theme=theme, height=860)
        photograph(browser, desk / "report.html", FIGURES / "viewer.png", case=1, height=720)
        make_faulty_data(desk)
        said = call(desk, "check", "mydata", "--group", r"(case\d+)_", "--html", "findings.html", expected=1)
        photograph(browser, desk / "findings.html", FIGURES / "check.png", height=860)
        words = f"$ medseg check mydata --group '(case\\d+)_' --html findings.html\n{said}"
        (desk / "terminal.html").write_text(TERMINAL.format(html.escape(words)), encoding="utf-8")
        photograph(browser, desk / "terminal.html", FIGURES / "terminal.png", element="pre")
        call(desk, "phantom", "data/phantom")
        logger = ("--config", "configs/logger/tensorboard.yaml", "--trainer.log_every_n_steps", "2")
        call(desk, "fit", "--config", "configs/experiment/demo.yaml", *logger)
        with serve_tensorboard(desk / "runs") as address:
            photograph_dashboard(browser, address, FIGURES / "dashboard.png")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the installed browser, without a window."""
    installed = [found for name in BROWSERS if (found := shutil.which(name))]
    if not installed:
        raise SystemExit(f"None of {', '.join(BROWSERS)} is installed.")
    with sync_playwright() as playwright:
        # No sandbox of its own: root, as in a container, may not have one.
        browser = playwright.chromium.launch(executable_path=installed[0], args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def serve_tensorboard(logs: Path) -> Iterator[str]:
    """Start TensorBoard on this machine alone, and yield its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        assert server.stderr is not None
        try:
            addresses = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in server.stderr)
            yield next(address[0] for address in addresses if address)
        finally:
            server.terminate()


def photograph_dashboard(browser: Browser, address: str, picture: Path) -> None:
    """Take a picture of TensorBoard's charts of the losses and of the Dice of each label."""
    view = browser.new_page(viewport={"width": 1280, "height": 860})
    view.goto(f"{address}?tagFilter=%5E(train%7Cval)%2F(loss%7Cdice)&smoothing=0#timeseries")
    view.locator("card-view canvas").first.wait_for(timeout=60_000)
    view.get_by_label("Close settings").or_(view.get_by_role("button", name="Settings")).first.click()
    view.wait_for_timeout(5000)  # charts come one by one
    view.screenshot(path=picture)
    view.close()
    reduce_colors(picture)


def photograph(
    browser: Browser,
    page: Path,
    picture: Path,
    *,
    theme: str = "light",
    height: int = 800,
    case: int = 0,
    element: str | None = None,
) -> None:
    """Take a picture of a page; `case` opens that row of the report's table first."""
    view = browser.new_page(viewport={"width": 1180, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
    view.goto(page.as_uri())
    if case:
        open_case(view, case)
    (view.locator(element) if element else view).screenshot(path=picture)
    view.close()
    reduce_colors(picture)


def open_case(view: Page, row: int) -> None:
    """Open a case of the report in its viewer, with the difference drawn."""
    view.locator("#case-table tbody a").nth(row - 1).click()
    view.locator("#viewer canvas").wait_for(state="visible")
    view.keyboard.press("d")


def reduce_colors(picture: Path) -> None:
    """Write a picture again with a palette: pages have few colors, and a clone carries each picture for ever."""
    with Image.open(picture) as image:
        image.convert("RGB").quantize(192, dither=Image.Dither.NONE).save(picture, optimize=True)


def make_faulty_data(desk: Path) -> None:
    """Write synthetic abdomens as pictures, with five faults that `medseg check` finds."""
    call(desk, "phantom", "mydata", "--layout", "folder", "--cases", "16", "--slices", "8")
    images = sorted((desk / "mydata/images").iterdir())
    masks = [desk / "mydata/masks" / image.name for image in images]
    mask = cv2.imread(str(masks[3]), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(masks[3]), mask[:-8])  # another size than its image
    stray = cv2.imread(str(masks[5]), cv2.IMREAD_UNCHANGED)
    stray[:4, :4] = 9
    cv2.imwrite(str(masks[5]), stray)  # a value that no label has
    cv2.imwrite(str(masks[8]), np.zeros_like(mask))
    shutil.copy(images[0], images[11])  # the same image for two patients
    images[10].write_bytes(images[10].read_bytes()[:600])  # cut off


def call(desk: Path, *words: str, expected: int = 0) -> str:
    """Run a command in a folder, and return what it prints."""
    command = [sys.executable, "-m", "medseg_pl", *words]
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False)
    if done.returncode != expected:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
