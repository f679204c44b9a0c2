"""The report in a browser: it loads, asks nobody, shows texts as text, and can be used by everyone."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser import HOSTILE, LABEL, Watched
from rpsg.report.page import write_reports
from rpsg.text import reveal

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGES = ["private/report.html", "release/report.html"]


def load(
    browser: "Browser", path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light"
) -> Watched:
    seen = Watched(browser, viewport={"width": width, "height": height}, color_scheme=scheme)
    seen.page.goto(path.absolute().as_uri())
    seen.page.wait_for_selector("html[data-drawn]")
    assert seen.page.get_attribute("html", "data-drawn") == "yes"
    return seen


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_report_loads_asks_nobody_and_anybody_can_use_it(
    browser: "Browser", finished: Path, name: str, width: int, scheme: str
) -> None:
    seen = load(browser, finished / name, width=width, scheme=scheme)
    assert seen.said == []
    assert {url.split(":")[0] for url in seen.asked} == {"file"} and len(seen.asked) == 1
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.page.locator(".plot .main-svg").count() >= 3
    assert seen.page.locator(".plot:not([aria-label])").count() == 0
    assert seen.serious() == []
    # By keyboard alone: links to how it is measured, then the tables, then search.
    reached = set()
    for _ in range(40):
        seen.page.keyboard.press("Tab")
        reached.add(seen.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"A", "SUMMARY", "search"} <= reached


@pytest.mark.parametrize("name", PAGES)
def test_hostile_texts_stay_text(browser: "Browser", hostile: Path, name: str) -> None:
    write_reports(hostile)
    seen = load(browser, hostile / name)
    title = seen.page.title()
    for text in HOSTILE:
        seen.page.fill("#search", reveal(text)[:30])
        shown = [item.text_content() for item in seen.page.locator("#texts .text").all()]
        assert reveal(text) in shown
    # The label is in the chart as text, too: plotly would make a link of it.
    assert LABEL[:20] in (seen.page.text_content("[data-chart='label-0']") or "")
    assert seen.page.locator("#texts a, #texts b, #texts img, .plot a, img, iframe").count() == 0
    assert seen.page.title() == title and "stolen" not in title
    assert seen.said == [] and len(seen.asked) == 1


def test_a_point_of_the_map_shows_its_text(browser: "Browser", finished: Path) -> None:
    seen = load(browser, finished / "release/report.html")
    point = seen.page.locator("[data-chart='map'] .points path").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    seen.page.wait_for_selector("#reader .text")
    texts = [
        json.loads(line)["text"] for line in (finished / "release/synthetic.jsonl").read_text().splitlines()
    ]
    assert seen.page.text_content("#reader .text") in texts


def test_five_thousand_texts_are_still_usable(browser: "Browser", run_folder: Path) -> None:
    path = run_folder / "release/synthetic.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    words = [line for i in range(5000) for line in [f"Text {i} of topic {i % 7}. " + f"word{i % 97} " * 60]]
    path.write_text(
        "".join(json.dumps({**row, "id": f"t{i}", "text": text}) + "\n" for i, text in enumerate(words))
    )
    write_reports(run_folder)
    for name in PAGES:
        assert (run_folder / name).stat().st_size < 15e6
    began = time.monotonic()
    seen = load(browser, run_folder / "private/report.html")
    assert seen.page.locator("[data-chart='map'] .points path").count() == 5000
    seen.page.fill("#search", "Text 4999 of")
    assert "1 to 1 of 1" in (seen.page.text_content("#where") or "")
    assert time.monotonic() - began < 30


def test_in_print_everything_shows(browser: "Browser", finished: Path, tmp_path: Path) -> None:
    seen = load(browser, finished / "release/report.html", scheme="dark")
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert seen.page.locator("details:not([open])").count() == 0
    seen.page.emulate_media(media="print", color_scheme="dark")
    assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(seen.page.pdf()) > 10_000
