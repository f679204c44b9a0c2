"""What is sent to, and what comes back from, an OpenAI-compatible interface."""

import re
from collections.abc import Mapping, Sequence

from rpsg.types import Completion, Message, TextRequest

# How reasoning models mark their thoughts; those of OpenAI's open models end where the final channel begins.
_NAMES = r"(?:think(?:ing)?|thoughts?|reasoning|reflection)"
_BEGIN, _END = rf"(?:<{_NAMES}>|\[THINK\])", rf"(?:</{_NAMES}>|\[/THINK\])"
_THOUGHTS = re.compile(rf"{_BEGIN}.*?{_END}", re.DOTALL | re.IGNORECASE)
_THOUGHTS_END = re.compile(rf"{_END}|<\|channel\|>final<\|message\|>", re.IGNORECASE)
_THOUGHTS_BEGIN = re.compile(rf"{_BEGIN}|<\|channel\|>(?:analysis|commentary)", re.IGNORECASE)
# A server's own mistakes, where it ended a reply for no reason of the text's.
_BROKEN_OFF = frozenset({"error", "abort", "cancelled"})
_TEXT_PARTS = frozenset({None, "text", "output_text"})


# More than this is a server's mistake.
_MOST_TOKENS = 10**9


class Unusable(Exception):
    """A reply that was paid for and holds no usable text."""

    def __init__(self, reply: Completion) -> None:
        super().__init__(reply.reason)
        self.reply = reply


def to_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Returns the turns as the interface wants them.

    It cannot continue a reply, so the words that a reply is to begin with are asked for.
    """
    turns = list(messages)
    begin = turns.pop().content.strip() if turns[-1].role == "assistant" else ""
    chat = [{"role": turn.role, "content": clean(turn.content)} for turn in turns]
    if begin:
        ask = f"Begin your reply with these words: {clean(begin)}"
        if chat and chat[-1]["role"] == "user":
            chat[-1]["content"] += f"\n\n{ask}"
        else:
            chat.append({"role": "user", "content": ask})
    return chat


def read_reply(page: object, request: TextRequest) -> Completion:
    """Reads the body of a reply, parsed.

    Raises:
        ValueError: it is not a completion; worth another try.
        Unusable: it is one, without a usable text.
    """
    choices = page.get("choices") if isinstance(page, Mapping) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise ValueError("no choices")
    choice = choices[0]
    assert isinstance(page, Mapping)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise ValueError("no message")
    usage = page.get("usage")
    n_prompt, n_tokens = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    text = _text_of(message.get("content"))
    reason = _flaw(choice, message, text)
    if not reason:
        text, reason = _without_thoughts(text)
    if not reason and not text.strip():
        reason = "empty reply"
    for stop in request.stop:
        text = text.split(stop)[0]
    if reason:
        raise Unusable(rejected(reason, n_prompt, n_tokens))
    return Completion(
        text=clean(text),
        n_prompt_tokens=n_prompt,
        n_tokens=n_tokens,
        finish="length" if choice.get("finish_reason") == "length" else "stop",
    )


def rejected(reason: str, n_prompt_tokens: int | None = None, n_tokens: int | None = None) -> Completion:
    """Returns the place holder of a reply that cannot be used; it never holds a text."""
    return Completion(
        text="", n_prompt_tokens=n_prompt_tokens, n_tokens=n_tokens, finish="rejected", reason=reason
    )


def clean(text: str) -> str:
    """Takes out what has no UTF-8 form or no meaning: halves of character pairs, NUL."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _flaw(choice: Mapping[str, object], message: Mapping[str, object], text: str) -> str:
    if choice.get("finish_reason") == "content_filter":
        return "content filter"
    if message.get("refusal"):
        return "refusal"
    if choice.get("finish_reason") in _BROKEN_OFF:
        return "broken off"
    if not text and message.get("tool_calls"):
        return "no text"
    return ""


def _without_thoughts(text: str) -> tuple[str, str]:
    # Some servers put a reasoning model's thoughts before the reply, with or without their first mark.
    text = _THOUGHTS_END.split(_THOUGHTS.sub("", text))[-1]
    if _THOUGHTS_BEGIN.search(text):
        return "", "reasoning did not end"
    return text.strip(), ""


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [
            part.get("text")
            for part in content
            if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS
        ]
        return "".join(part for part in parts if isinstance(part, str))
    if content is None:
        return ""
    raise ValueError("content is not text")


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None
