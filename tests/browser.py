# ruff: noqa: E501 (texts as they come)
"""A headless Chromium for tests of pages; tests are skipped where there is none."""

import shutil
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


HOSTILE = [
    '<script>document.title="stolen"</script> said the post, and it went on for twelve words or more.',
    '"><img src=x onerror="document.title=\'stolen\'"> and then <b>bold</b> </script></textarea> words follow it.',
    '=HYPERLINK("http://evil.example","click") is how the text begins, and $\\alpha$ %{x} {{ 7*7 }} follow.',
    "A \u202egnirts desrever\u202c and a zero\u200bwidth space \u2066isolated\u2069 in the middle of it, says the post.",
    "[link](javascript:alert(1)) and http://evil.example/pixel.png and &lt;i&gt; entities &#x3c;b&#x3e; as they are.",
    "\u2028 line separators \u2029 and a null-like \ufeff mark and emoji 👩\u200d👩\u200d👧 stay where they are, as text.",
]
LABEL = '<a href="http://evil.example">x</a><b>y</b>'


def open_browser() -> Iterator["Browser"]:
    """Starts Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, what its console said and whom it asked for something."""

    def __init__(self, browser: "Browser", **options: object) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def serious(self) -> list[str]:
        """Returns axe-core's findings of a serious or critical kind."""
        code = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        # As the browser's own code: the page's policy lets no other script run.
        self.page.evaluate(code)
        found = self.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{item['id']} ({item['impact']}): {item['nodes'][0]['html'][:120]}"
            for item in found["violations"]
            if item["impact"] in {"serious", "critical"}
        ]
