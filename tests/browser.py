# ruff: noqa: E501 (texts as they come)
"""For tests of pages: a headless Chromium, a finished run, and one whose texts try everything.

Tests are skipped where there is no Chromium.
"""

import json
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from test_cli import FAKE, POSTS, call

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


def finished_run(factory: pytest.TempPathFactory, *more: str) -> Path:
    """Makes a run of fake models on the sample posts, with reports."""
    folder = factory.mktemp("runs") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(factory.mktemp("state")))
        assert (
            call("run", POSTS, "--label-column", "topic", "-n", "24", "-o", folder, "-q", *FAKE, *more) == 0
        )
    return folder


def spoiled_copy(finished: Path, where: Path, *, hostile: bool) -> Path:
    """Copies a run, perhaps with released texts and labels that try everything."""
    folder = Path(shutil.copytree(finished, where / "one"))
    path = folder / "release/synthetic.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if hostile:
        for row, text in zip(rows, HOSTILE, strict=False):
            row["text"], row["topic"] = text, LABEL
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


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
