"""What a person decided about released texts: an audit trail that is only ever added to.

A decision that was taken with private text on screen depends on private text. So does every later one of the
same run, also where only synthetic texts are shown: what a person has read cannot be unread.
"""

import fcntl
import getpass
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from pydantic import TypeAdapter

from rpsg.errors import ConfigError, RunDirError

Verdict = Literal["accept", "reject", "undecided"]
MAX_REASON = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One line of the trail.

    Attributes:
        event: "opened" when a review began, "decided" for a text, "applied" when a release was written.
        saw_private: whether private text was, or had been, on screen.
        text_id: of the released text; "" where the event has none.
        verdict: "undecided" takes a verdict back.
        reason: in the reviewer's words; it may quote private text, so the trail stays in `private/`.
        by: the reviewer's user name.
        time: seconds since 1970.
    """

    event: Literal["opened", "decided", "applied"]
    saw_private: bool
    text_id: str = ""
    verdict: Verdict = "undecided"
    reason: str = ""
    by: str
    time: float


_LINE = TypeAdapter(Decision)


class Trail:
    """The decisions on one run, in `private/review.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Decision]:
        """Returns every line, in order.

        Raises:
            RunDirError: a line is none of ours.
        """
        if not self.path.exists():
            return []
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
            # What follows the last line end was cut off when a process was killed.
            return [_LINE.validate_json(line) for line in lines[:-1]]
        except ValueError:
            raise RunDirError(f"{self.path} was edited: a line of it is no decision") from None

    def current(self) -> dict[str, Decision]:
        """Returns the last decision on each text that has one."""
        found = {item.text_id: item for item in self.entries() if item.event == "decided"}
        return {text_id: item for text_id, item in found.items() if item.verdict != "undecided"}

    @property
    def saw_private(self) -> bool:
        """Whether private text was on screen in any review of this run."""
        return any(item.saw_private for item in self.entries())

    def open(self, *, shows_private: bool) -> None:
        """Notes that a review begins."""
        self._add(event="opened", saw_private=self.saw_private or shows_private)

    def last(self, text_id: str) -> Decision | None:
        """Returns the last decision on a text, also one that takes a verdict back."""
        found = [item for item in self.entries() if item.event == "decided" and item.text_id == text_id]
        return found[-1] if found else None

    def decide(self, text_id: str, verdict: str, reason: str = "", *, saw_private: bool = False) -> Decision:
        """Adds a decision on a text.

        Args:
            text_id: of the text.
            verdict: "undecided" takes one back.
            reason: needed for a rejection.
            saw_private: private text was on screen, whatever the trail says of it.

        Raises:
            ConfigError: there is no such verdict, a rejection has no reason, or the reason is too long.
        """
        if verdict not in get_args(Verdict):
            raise ConfigError(f"verdict must be one of {', '.join(get_args(Verdict))}")
        reason = " ".join(reason.split())
        if verdict == "reject" and not any(sign.isalpha() for sign in reason):
            raise ConfigError("a rejection needs a reason, in words")
        if len(reason) > MAX_REASON:
            raise ConfigError(f"a reason has at most {MAX_REASON} characters")
        return self._add(
            event="decided",
            saw_private=self.saw_private or saw_private,
            text_id=text_id,
            verdict=cast("Verdict", verdict),
            reason=reason,
        )

    def note_applied(self) -> None:
        """Notes that a release was written from these decisions."""
        self._add(event="applied", saw_private=self.saw_private)

    def _add(
        self,
        *,
        event: Literal["opened", "decided", "applied"],
        saw_private: bool,
        text_id: str = "",
        verdict: Verdict = "undecided",
        reason: str = "",
    ) -> Decision:
        line = Decision(
            event=event,
            saw_private=saw_private,
            text_id=text_id,
            verdict=verdict,
            reason=_whole(reason),
            by=_whole(_user()),
            time=round(time.time(), 3),
        )
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "rb+", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # A line that was cut off by a kill would swallow the next one.
                file.truncate(file.read().rfind(b"\n") + 1)
                file.write(json.dumps(asdict(line), ensure_ascii=True).encode("ascii") + b"\n")
                os.fsync(file.fileno())
        except OSError as error:
            raise RunDirError(f"cannot write {self.path}: {error.strerror}") from None
        return line


def rejected_ids(decisions: Sequence[Decision]) -> frozenset[str]:
    """Returns the ids of the texts that were rejected."""
    return frozenset(item.text_id for item in decisions if item.verdict == "reject")


def _whole(text: str) -> str:
    # Half of a character pair, as in a name of another encoding, is no text that JSON readers take.
    return text.encode("utf-8", "replace").decode("utf-8")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
