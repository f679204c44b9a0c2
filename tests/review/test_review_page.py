"""The review page in a browser: by keyboard alone, hostile texts, and closing it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from review_thread import serving

from browser import HOSTILE, Watched
from rpsg.decisions import Trail
from rpsg.review.server import ReviewServer
from rpsg.text import reveal

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def load(browser: "Browser", server: ReviewServer, *, width: int = 1280, scheme: str = "light") -> Watched:
    seen = Watched(browser, viewport={"width": width, "height": 844}, color_scheme=scheme)
    seen.page.goto(server.url)
    seen.page.wait_for_selector("html[data-ready]")
    return seen


def test_twenty_texts_by_keyboard_alone(browser: "Browser", run_folder: Path) -> None:
    with serving(run_folder) as server:
        seen = load(browser, server)
        press = seen.page.keyboard.press
        for i in range(20):
            seen.page.get_by_text(f"{i} of 24 decided").wait_for()
            if i % 5:
                press("a")
                continue
            press("r")
            seen.page.keyboard.type("3" if i % 10 else f"my own reason {i}, with a, r and u in it")
            press("Enter")
        seen.page.get_by_text("20 of 24 decided").wait_for()
        press("u")
        seen.page.get_by_text("19 of 24 decided").wait_for()
        press("f")
        assert (seen.page.text_content("#where") or "").endswith("of 5")
        press("/")
        seen.page.keyboard.type("no text has this")
        assert (seen.page.text_content("#text") or "").startswith("No text here")
        press("Escape")
        assert seen.page.input_value("#search") == "" and (seen.page.text_content("#where") or "").endswith(
            "of 5"
        )
        assert seen.said == []
    current = Trail(run_folder / "private/review.jsonl").current()
    reasons = sorted(item.reason for item in current.values() if item.verdict == "reject")
    assert len(current) == 19 and reasons == [
        "my own reason 0, with a, r and u in it", "my own reason 10, with a, r and u in it",
        "rare detail that points to somebody", "rare detail that points to somebody",
    ]  # fmt: skip
    # In the order of the page, which is that of the release.
    rows = [json.loads(line) for line in (run_folder / "release/synthetic.jsonl").read_text().splitlines()]
    assert set(current) == {row["id"] for row in rows[:19]}


@pytest.mark.parametrize("public", [False, True])
def test_hostile_texts_stay_text(browser: "Browser", hostile: Path, public: bool) -> None:
    with serving(hostile, public=public) as server:
        seen = load(browser, server)
        for i, text in enumerate(HOSTILE):
            if i:
                seen.page.keyboard.press("j")
            assert seen.page.text_content("#text") == reveal(text)
            if not public:
                seen.page.wait_for_selector("#near li")
                # Marks change nothing of what it says.
                assert seen.page.text_content("#text") == reveal(text)
            assert seen.page.locator("#text b, #text img, #text a, #text script").count() == 0
        assert seen.page.title() == "Review of synthetic texts" and seen.said == []
        assert {url.split("/")[2] for url in seen.asked if url.startswith("http")} == {
            f"127.0.0.1:{server.server_address[1]}"
        }


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_anybody_can_use_it(browser: "Browser", run_folder: Path, width: int, scheme: str) -> None:
    with serving(run_folder) as server:
        seen = load(browser, server, width=width, scheme=scheme)
        seen.page.wait_for_selector("#near li")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.serious() == []
        seen.page.keyboard.press("r")
        seen.page.wait_for_selector("#why:not([hidden])")
        assert seen.serious() == []


def test_a_key_that_is_held_or_struck_twice_decides_no_text_unseen(
    browser: "Browser", run_folder: Path
) -> None:
    with serving(run_folder, public=True) as server:
        seen = load(browser, server)
        strike = """held => held.forEach((repeat) => document.body.dispatchEvent(
            new KeyboardEvent("keydown", { key: "a", repeat, bubbles: true })))"""
        seen.page.evaluate(strike, [False, False, True])
        seen.page.get_by_text("1 of 24 decided").wait_for()
        seen.page.evaluate(strike, [True, True])
        seen.page.wait_for_timeout(300)
        assert (seen.page.text_content("#where") or "").startswith("2 ")
        assert len(server.review.trail.current()) == 1


def test_single_keys_can_be_switched_off(browser: "Browser", run_folder: Path) -> None:
    with serving(run_folder, public=True) as server:
        seen = load(browser, server)
        seen.page.uncheck("#keys")
        seen.page.locator("body").press("a")
        seen.page.wait_for_timeout(200)
        assert server.review.trail.current() == {}
        assert seen.page.locator("#private").is_hidden()


def test_the_page_closes_with_the_command_and_nothing_is_kept(browser: "Browser", run_folder: Path) -> None:
    with serving(run_folder) as server:
        seen = load(browser, server)
        seen.page.wait_for_selector("#near li")
        assert seen.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [
            0,
            0,
            "",
        ]
    seen.page.wait_for_selector(".closed")
    assert (
        seen.page.text_content("body") or ""
    ).strip() == "The review was closed. What you decided is kept."
    # Going back shows nothing: the browser kept no copy.
    assert seen.page.evaluate("document.querySelectorAll('mark, .text').length") == 0
