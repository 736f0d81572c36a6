"""The page in a real browser: what can be clicked and typed works, and nothing leaves the page."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.reporting.run_folders import HOSTILE, HOSTILE_LABEL

# A browser is a process of its own, which starts for seconds.
pytestmark = [pytest.mark.browser, pytest.mark.processes]

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    installed = [found for name in NAMES if (found := shutil.which(name))]
    if not installed:
        pytest.skip(f"none of {', '.join(NAMES)} is installed: apt-get install chromium")
    with sync_playwright() as playwright:
        # No sandbox of its own: root, as in a container, may not have one.
        browser = playwright.chromium.launch(executable_path=installed[0], args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, and what it said and asked for."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page = page
        self.file = file
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(file.as_uri())

    def is_quiet(self) -> bool:
        return not self.said and self.asked == [self.file.as_uri()]


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    watched = Watched(context.new_page(), page)
    yield watched
    assert watched.is_quiet(), (watched.said, watched.asked)
    context.close()


def cells(page: Page, column: int) -> list[str]:
    return page.locator(f"#case-table tbody tr:visible td:nth-child({column})").all_inner_texts()


def heading(page: Page, name: str) -> None:
    page.locator("#case-table thead").get_by_role("button", name=name, exact=True).click()


def test_a_click_on_a_heading_sorts_and_another_turns_round(opened: Watched) -> None:
    heading(opened.page, "Dice")
    rising = [float(text) for text in cells(opened.page, 3)]
    assert len(rising) == 24 and rising == sorted(rising)
    heading(opened.page, "Dice")
    assert [float(text) for text in cells(opened.page, 3)] == rising[::-1]
    heading(opened.page, "case")
    assert cells(opened.page, 1) == [f"case{i:03d}" for i in range(24)]
    assert opened.page.locator("th[aria-sort]").all_inner_texts() == ["case"]


def test_what_has_no_score_comes_last_either_way(opened: Watched) -> None:
    for _ in range(2):
        heading(opened.page, "stomach")
        assert [text == "–" for text in cells(opened.page, 6)] == [False] * 21 + [True] * 3


def test_filters_work_together(opened: Watched) -> None:
    page = opened.page
    page.get_by_label("Find").fill("patient02")
    assert sorted(cells(page, 1)) == ["case004", "case005"]
    page.get_by_label("Show").select_option("missed")
    assert cells(page, 1) == ["case004"]
    expect(page.locator("#count")).to_have_text("1 of 24 cases")
    page.get_by_label("Find").fill("")
    page.get_by_label("Show").select_option("")
    page.get_by_label("Dice at most").fill("0.7")
    low = [float(text) for text in cells(page, 3)]
    assert 0 < len(low) < 24 and max(low) <= 0.7


def test_a_case_opens_by_its_row_and_its_point_and_closes_by_the_keyboard(opened: Watched) -> None:
    page, dialog = opened.page, opened.page.locator("#viewer")
    expect(dialog).to_be_hidden()
    page.locator("#case-table tbody tr").nth(3).locator("td").nth(2).click()
    expect(dialog).to_be_visible()
    expect(page.locator("#viewer-title")).to_have_text(cells(page, 1)[3])
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.locator("#scores svg a").first.click()
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="close").click()
    expect(dialog).to_be_hidden()


def test_the_arrows_step_through_the_cases_as_the_table_has_them(opened: Watched) -> None:
    page = opened.page
    page.get_by_label("Find").fill("patient0")
    heading(page, "case")
    page.locator("#case-table tbody tr:visible a").first.click()
    expect(page.locator("#viewer-place")).to_have_text("patient patient00, 1 of 20")
    page.keyboard.press("ArrowUp")  # there is none before
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#viewer-title")).to_have_text("case002")
    expect(page.locator("#viewer-scores tbody tr")).to_have_count(3)


def test_a_link_to_a_case_opens_it_at_once(browser: Browser, page: Path) -> None:
    opened = browser.new_page()
    opened.goto(f"{page.as_uri()}#case-0")
    expect(opened.locator("#viewer-title")).to_have_text("case004")
    assert "entirely missed" in opened.locator("#viewer-scores").inner_text()
    opened.close()


def test_the_theme_follows_the_system_until_the_button_is_pressed(browser: Browser, page: Path) -> None:
    opened = browser.new_page(color_scheme="dark")
    opened.goto(page.as_uri())
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.evaluate(background) == "rgb(21, 24, 28)"
    opened.locator("#theme").click()
    assert opened.evaluate(background) == "rgb(255, 255, 255)"
    opened.locator("#theme").click()
    expect(opened.locator("#theme")).to_have_text("Theme: dark")
    assert opened.evaluate(background) == "rgb(21, 24, 28)"
    opened.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(browser: Browser, page_of_two: Path, width: int) -> None:
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto(page_of_two.as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


@pytest.mark.parametrize("width", [420, 800, 1280])
def test_navigation_is_whole_and_cut_tables_have_a_shade(browser: Browser, page: Path, width: int) -> None:
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto(page.as_uri())
    assert opened.evaluate("(nav => nav.scrollWidth <= nav.clientWidth)(document.querySelector('nav'))")
    table = opened.locator("#scores .wide")
    assert table.evaluate("each => each.scrollWidth > each.clientWidth") is (width < 1280)
    assert table.evaluate("each => getComputedStyle(each).backgroundAttachment") == "local, local, scroll, scroll"
    opened.close()


@pytest.mark.parametrize(("width", "rows"), [(1280, [4, 4, 2]), (800, [2] * 5), (420, [1] * 10)])
def test_no_card_is_alone_at_the_end_of_a_grid(
    browser: Browser, page_with_pictures: Path, width: int, rows: list[int]
) -> None:
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto(page_with_pictures.as_uri())
    opened.evaluate("""() => {
      const gallery = document.querySelector(".gallery");
      while (gallery.children.length < 10) gallery.append(gallery.children[0].cloneNode(true));
    }""")
    tops = opened.locator(".gallery").first.locator(".card").evaluate_all("all => all.map((one) => one.offsetTop)")
    assert list(Counter(tops).values()) == rows
    opened.close()


def test_two_runs_can_be_sorted_by_their_difference(browser: Browser, page_of_two: Path) -> None:
    context = browser.new_context()
    watched = Watched(context.new_page(), page_of_two)
    heading(watched.page, "B − A")
    found = [float(text) for text in cells(watched.page, 5)]
    assert found == sorted(found) and len(found) == 24
    assert re.fullmatch("[0-9a-f]{16}", cells(watched.page, 1)[0])
    assert watched.is_quiet()
    context.close()


def test_a_hostile_name_runs_nothing(browser: Browser, hostile_page: Path) -> None:
    context = browser.new_context()
    shown = context.new_page()
    shown.on("dialog", lambda dialog: pytest.fail(f"the page ran code: {dialog.message}"))
    watched = Watched(shown, hostile_page)
    shown.locator("#case-table tbody a").first.click()
    expect(shown.locator("#viewer-title")).to_have_text(f"{HOSTILE}0")
    expect(shown.locator("#viewer-scores tbody th")).to_have_text(HOSTILE_LABEL)
    assert shown.locator("img").count() == 0
    assert watched.is_quiet(), (watched.said, watched.asked)
    context.close()


def test_in_print_everything_is_unfolded_and_controls_are_gone(opened: Watched) -> None:
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    expect(page.locator("#filters")).to_be_hidden()
    expect(page.locator("#settings tbody").first).to_be_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.tall')).maxHeight") == "none"


@pytest.fixture
def viewed(browser: Browser, page_with_pictures: Path) -> Iterator[Watched]:
    """A page with pictures, with the worst case open."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = Watched(context.new_page(), page_with_pictures)
    watched.page.locator("#case-table tbody a").first.click()
    expect(watched.page.locator("#viewer canvas")).to_be_visible()
    yield watched
    assert watched.is_quiet(), (watched.said, watched.asked)
    context.close()


def drawn(page: Page) -> str:
    return str(page.evaluate("document.querySelector('#viewer canvas').toDataURL()"))


def color_at(page: Page, x: float, y: float) -> list[int]:
    """The color of the canvas at a pixel of the picture, which has 40 by 30 of them."""
    code = """([x, y]) => {
      const canvas = document.querySelector("#viewer canvas");
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      return [...copy.getImageData(x * canvas.width / 40, y * canvas.height / 30, 1, 1).data].slice(0, 3);
    }"""
    return [int(part) for part in page.evaluate(code, [x, y])]


def test_the_left_and_right_arrows_turn_the_slices(viewed: Watched) -> None:
    page, name = viewed.page, viewed.page.locator("#viewer-slice-name")
    expect(name).to_have_text("slice 4 of 6")  # the one that differs most
    first = drawn(page)
    page.keyboard.press("ArrowRight")
    expect(name).to_have_text("slice 5 of 6")
    assert drawn(page) != first
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    expect(name).to_have_text("slice 1 of 6")
    page.get_by_label("slice", exact=True).fill("3")
    expect(name).to_have_text("slice 4 of 6")
    assert drawn(page) == first


@pytest.mark.parametrize(
    ("key", "name"),
    [("r", "reference"), ("p", "prediction"), ("d", "difference"), ("1", "large_bowel"), ("3", "stomach")],
)
def test_each_switch_draws_by_mouse_and_by_key(viewed: Watched, key: str, name: str) -> None:
    page, box = viewed.page, viewed.page.locator("#viewer-controls").get_by_label(name)
    page.keyboard.press("ArrowLeft")
    before, checked = drawn(page), box.is_checked()
    page.keyboard.press(key)
    assert box.is_checked() is not checked and drawn(page) != before
    box.click()
    assert box.is_checked() is checked and drawn(page) == before


def flip_switches(page: Page) -> Page:
    """Turn over what is shown of the slice before: reference, prediction and difference, opaque."""
    page.keyboard.press("ArrowLeft")
    for key in "rpd":
        page.keyboard.press(key)
    page.get_by_label("opacity").fill("1")
    return page


def test_the_difference_tells_what_was_missed_from_what_was_invented(viewed: Watched) -> None:
    page = flip_switches(viewed.page)
    assert color_at(page, 12.5, 14.5) == [255, 70, 110]
    assert color_at(page, 23.5, 14.5) == [60, 210, 255]
    hit = color_at(page, 18.5, 14.5)
    assert hit[0] == hit[1] == hit[2]  # gray: found as it should be
    page.keyboard.press("1")
    missed = color_at(page, 12.5, 14.5)
    assert missed[0] == missed[1] == missed[2]


def test_brightness_multiplies_the_image_and_leaves_the_masks(viewed: Watched) -> None:
    page = flip_switches(viewed.page)
    dark = color_at(page, 1.5, 1.5)
    page.get_by_label("brightness").fill("2")
    bright = color_at(page, 1.5, 1.5)
    assert 0 < dark[0] < 255
    assert all(abs(after - min(255, 2 * before)) < 3 for before, after in zip(dark, bright, strict=True))
    assert color_at(page, 23.5, 14.5) == [60, 210, 255]


def test_the_prediction_of_the_other_run_can_be_chosen(viewed: Watched) -> None:
    page = viewed.page
    page.keyboard.press("d")
    first = drawn(page)
    page.locator("#viewer-run").select_option("1")
    assert drawn(page) != first
    page.keyboard.press("Escape")
    page.locator("#gallery .card").nth(3).click()
    expect(page.locator("#viewer canvas")).to_be_visible()
    expect(page.locator("#viewer-run")).to_have_value("1")  # as it was left
    expect(page.locator("#viewer-controls").get_by_label("difference")).to_be_checked()


def test_keys_work_on_a_page_that_is_opened_at_a_case(browser: Browser, page_with_pictures: Path) -> None:
    opened = browser.new_page()
    opened.goto(f"{page_with_pictures.as_uri()}#case-0")
    expect(opened.locator("#viewer canvas")).to_be_visible()
    opened.keyboard.press("d")
    expect(opened.locator("#viewer-controls").get_by_label("difference")).to_be_checked()
    opened.close()


def test_the_page_says_what_a_case_lacks(viewed: Watched) -> None:
    page = viewed.page
    page.evaluate("location.hash = '#case-23'")
    expect(page.locator("#viewer-view")).to_have_text("This page holds no pictures of this case.")


@pytest.mark.trainings
def test_the_viewer_fits_a_telephone(browser: Browser, page_with_pictures: Path) -> None:
    opened = browser.new_page(viewport={"width": 360, "height": 740})
    opened.goto(f"{page_with_pictures.as_uri()}#case-0")
    box = opened.locator("#viewer canvas").bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= 360
    assert box["height"] / box["width"] == pytest.approx(30 / 40, rel=0.02)
    opened.close()
