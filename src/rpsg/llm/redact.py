"""Replaces personal details by tags or surrogates, and exact amounts of money by ranges."""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import date
from typing import Literal

import numpy as np

from rpsg.llm.recognizers import read_words
from rpsg.types import PiiSpan

Style = Literal["tag", "surrogate"]


def redact(text: str, spans: Sequence[PiiSpan], *, style: Style = "tag", rng: np.random.Generator) -> str:
    """Returns the text with every span replaced.

    Args:
        text: any text.
        spans: disjoint spans of the text, in any order.
        style: `tag` writes the type in brackets, `surrogate` an invented value of the same type; within a
            text the same value gets the same surrogate, and a first name the one it has in the full name.
        rng: source of the surrogates; not read for tags.

    Raises:
        ValueError: a span lies outside the text or overlaps another.
    """
    ordered = sorted(spans, key=lambda span: span.start)
    surrogates = _Surrogates(rng) if style == "surrogate" and ordered else None
    pieces: list[str] = []
    done = 0
    for span in ordered:
        if not done <= span.start < span.end <= len(text):
            raise ValueError(
                f"span {span.start}:{span.end} of type {span.type} overlaps another or lies outside a "
                f"text of {len(text)} characters; pass disjoint spans of it, as PiiDetector.find returns them"
            )
        value = text[span.start : span.end]
        pieces += [
            text[done : span.start],
            surrogates.get(span.type, value) if surrogates else f"[{span.type}]",
        ]
        done = span.end
    return "".join([*pieces, text[done:]])


class _Surrogates:
    """Invented values of one text."""

    def __init__(self, rng: np.random.Generator) -> None:
        from faker import Faker

        self._fake = Faker("en_US")
        self._fake.seed_instance(int(rng.integers(2**62)))
        self._rng = rng
        self._made: dict[tuple[str, str], str] = {}

    def get(self, kind: str, value: str) -> str:
        """Returns the value's surrogate: never the value itself, the same one every time."""
        if kind == "PERSON":
            return self._person(value)
        make = {
            "EMAIL": self._email,
            "PHONE": lambda _: f"555-01{self._rng.integers(100):02d}",
            "ADDRESS": lambda _: f"{self._fake.building_number()} {self._fake.street_name()}",
            "USERNAME": self._username,
            "ORG": self._organisation,
            "LOCATION": lambda _: str(self._fake.city()),
            "DATE_OF_BIRTH": self._date,
            "AGE": self._age,
            "URL": lambda _: f"https://example.com/{self._fake.word()}-{self._rng.integers(100)}",
            "IP": lambda old: f"2001:db8::{self._rng.integers(1, 9999)}" if ":" in old else self._ip(),
        }.get(kind, self._scramble)
        return self._once(kind, value, make)

    def _once(self, kind: str, value: str, make: Callable[[str], str]) -> str:
        key = (kind, value.casefold())
        while key not in self._made:
            made = make(value)
            if made.casefold() != value.casefold():
                self._made[key] = made
        return self._made[key]

    def _person(self, value: str) -> str:
        parts = value.split()
        made = []
        for i, part in enumerate(parts):
            new = self._once("PERSON", part, self._first_name if i == 0 else self._last_name)
            made.append(
                new.lower() if part.islower() else new.upper() if len(part) > 1 and part.isupper() else new
            )
        return " ".join(made)

    def _first_name(self, _value: str) -> str:
        return str(self._fake.first_name())

    def _last_name(self, _value: str) -> str:
        return str(self._fake.last_name())

    def _email(self, _value: str) -> str:
        return f"{self._fake.user_name()}@example.com"

    def _username(self, value: str) -> str:
        prefix = re.match(r"@|u/|", value)
        return (
            f"{prefix[0] if prefix else ''}{self._fake.word()}_{self._fake.word()}{self._rng.integers(100)}"
        )

    def _organisation(self, value: str) -> str:
        last = value.rsplit(maxsplit=1)[-1]
        kept = last if last.casefold() in read_words("org_endings") else "Services"
        return f"{self._fake.last_name()} {kept}"

    def _date(self, value: str) -> str:
        born: date = self._fake.date_of_birth(minimum_age=20, maximum_age=75)
        if re.match(r"[0-9]{4}-", value):
            return born.isoformat()
        if re.match(r"[0-9]+[/.-]", value):
            return f"{min(born.day, 12):02d}/{born.month:02d}/{born.year}"
        day = f"{born.day} {born:%B}" if value[:1].isdigit() else f"{born:%B} {born.day},"
        return f"{day} {born.year}"

    def _age(self, value: str) -> str:
        if not value.isdecimal():
            return "some"
        low = int(value) // 10 * 10
        return str(low + int(self._rng.integers(10)))

    def _ip(self) -> str:
        return f"192.0.2.{self._rng.integers(1, 255)}"

    def _scramble(self, value: str) -> str:
        """Draws every digit and letter anew, which keeps the format of a reference or a postcode."""
        return "".join(self._draw(c) for c in value)

    def _draw(self, character: str) -> str:
        if character.isdecimal():
            return str(self._rng.integers(10))
        if character.isalpha():
            letter = chr(ord("A") + int(self._rng.integers(26)))
            return letter.lower() if character.islower() else letter
        return character


# --- money ------------------------------------------------------------------------------------------

_UNITS = {"": 1, "k": 10**3, "thousand": 10**3, "grand": 10**3, "m": 10**6, "million": 10**6, "b": 10**9,
          "bn": 10**9, "billion": 10**9}  # fmt: skip
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
_SCALE = r"(?:\s?(?:thousand|million|billion|grand)\b|\s?(?:bn|[kmb])\b)"
_DASH = r"\s?[-–—]\s?"
_BEFORE = r"(?<![0-9kmbn][-–—])(?<![0-9kmbn] [-–—])(?<![0-9kmbn][-–—] )(?<![0-9kmbn] [-–—] )(?<![0-9])"
# Atomic groups: half a number or a number without its "k" must not match in place of the whole.
_AMOUNT = re.compile(
    rf"{_BEFORE}(?P<sym>[$£€]) ?(?P<low>(?>{_NUMBER}))(?P<low_scale>{_SCALE})?+"
    rf"(?:{_DASH}(?P=sym)? ?(?P<high>(?>{_NUMBER}))(?P<high_scale>{_SCALE})?+)?+"
    rf"(?!\w|[.,][0-9]|{_DASH}[$£€]?[0-9])"
    rf"|{_BEFORE}(?<![\w$£€.,-])(?P<low_>(?>{_NUMBER}))(?P<low_scale_>{_SCALE})?+"
    rf"(?:{_DASH}(?P<high_>(?>{_NUMBER}))(?P<high_scale_>{_SCALE})?+)?"
    rf"(?P<word> ?€| (?:dollars|euros?|pounds|bucks|quid)\b)(?!{_DASH}[0-9]| ?[0-9])",
    re.IGNORECASE,
)


def generalise_money(text: str) -> str:
    """Returns the text with amounts of money widened to round ranges, `$1,500` to `$1,000-$2,000`.

    A range is widened to round ends; one that has them, and with it a text that went through here, stays
    as it is. Zero, numbers without a currency and numbers in words stay too.
    """
    return _AMOUNT.sub(_widen, text)


def _widen(match: re.Match[str]) -> str:
    suffix = "" if match["sym"] else "_"
    low_scale, high_scale = match[f"low_scale{suffix}"], match[f"high_scale{suffix}"]
    low_number = float(match[f"low{suffix}"].replace(",", ""))
    high_text = match[f"high{suffix}"]
    high_number = float(high_text.replace(",", "")) if high_text else low_number
    if high_text and high_scale and not low_scale and low_number < high_number:
        low_scale = high_scale  # "$5-10k" starts at five thousand
    low = low_number * _scale(low_scale)
    high = high_number * _scale(high_scale if high_text else low_scale)
    floor, ceiling = _floor(min(low, high)), _ceiling(max(low, high), strict=not high_text)
    if max(low, high) == 0 or (high_text and (floor, ceiling) == (low, high)):
        return match[0]
    symbol, word = match["sym"] or "", match["word"] or ""
    return f"{symbol}{_written(floor)}-{symbol}{_written(ceiling)}{word}"


def _scale(written: str | None) -> int:
    return _UNITS[(written or "").strip().casefold()]


def _step(value: float) -> int:
    # Below ten a step of one would give the amount away.
    return 10 if value < 10 else 10 ** int(math.log10(value) + 1e-9)


def _floor(value: float) -> int:
    return int(value // _step(value)) * _step(value)


def _ceiling(value: float, *, strict: bool) -> int:
    step = _step(value)
    return (int(value // step) + 1) * step if strict else math.ceil(value / step) * step


def _written(value: int) -> str:
    for scale, name in ((10**9, "billion"), (10**6, "million")):
        if value >= scale and value % scale == 0:
            return f"{value // scale:,} {name}"
    return f"{value:,}"


# --- survival ---------------------------------------------------------------------------------------


def contains_detail(text: str, value: str) -> bool:
    """Returns whether a detail stands in a text as whole words, in any case, accents and punctuation."""
    detail = _plain(value)
    return bool(detail.strip()) and detail in _plain(text)


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c for c in folded if not unicodedata.combining(c))
    return " " + " ".join(re.findall(r"[^\W_]+", kept)) + " "
