"""Finds personal details by patterns and short word lists: the audit's own detector.

It shares no rule, list or model with the one that removes details from texts, so it does not miss what that
one misses for the same reason. It is small and precise. It misses: names of one word without a title or a
hint ("named Paula"), ages, details written out in words, lower-case names, scripts without capital letters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rpsg.text import normalised_words

Kind = Literal["email", "url", "phone", "username", "id", "date", "address", "name", "place", "amount"]

_UPPER = r"[A-ZÀ-ÖØ-ÞĀĒĪŌŪ]"
_CAPITAL = rf"(?<![\w'’&]){_UPPER}[\w'’&]*[^\W\d_](?:-{_UPPER}\w+)?"
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?"
    r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_UNIT = (
    r"(?:%|percent|mg|g|kg|ml|mL|l|cm|mm|km|miles?|lbs?|pounds?|kcal|mmHg|hours?|days?|weeks?|months?|years?"
    r"|dollars?|euros?|bucks|patients?|women|men|children|cases|subjects|rats|mice)"
)
_STREET = (
    r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Court|Ct|Way|Boulevard|Blvd|Place|Pl|Terrace|Rise|Mews"
    r"|Close|Crescent|Square|Row|Bay|Bluff|Hill|Highway|Parkway|Loop|Trail|Quay|Gardens|Grove|Circle)"
)
_TITLE = r"(?:Dr|Mr|Mrs|Ms|Miss|Prof|Professor|Aunt|Uncle|Coach|Officer|Judge|Nurse|Father|Sister|Pastor)"
# Capitalised at the start of a sentence, or always, and no part of a name.
_ORDINARY = (
    "a about after aim aims all also although am american an and another any april are as at august "
    "background be because been before both but by can case conclusion conclusions could december "
    "design did discussion do does during each either eleven english even every february for four "
    "friday from get give go had has have he her here him his how however i i'd i'll i'm i've if in "
    "into introduction is it it's its january july june just last let like many march materials may "
    "maybe me methods monday more most my never new next nine no nobody none nor not nothing november "
    "now objective objectives october of oh on once one only or other our out over own patients "
    "purpose report results same saturday see september setting seven she should since six so some "
    "somebody someone still such sunday ten than thank thanks that that's the their them then there "
    "there's these they they're this those three through thursday to today tomorrow tonight tuesday "
    "twelve two under until up upon us very was we we're wednesday well were what what's when where "
    "which while who whose why will with within without would yes yesterday yet you you're your"
)
_NOT_NAMES = frozenset(_ORDINARY.split())
_BEGINS_NO_NAME = rf"(?={_UPPER})(?!(?i:{'|'.join(sorted(_NOT_NAMES))})\b)"
# Checked in this order; a later pattern does not read what an earlier one found.
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("email", re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")),
    ("url", re.compile(r"(?:https?://|www\.)[^\s<>\"]+[\w/]")),
    (
        "date",
        re.compile(
            rf"(?<![\d.])\d{{1,2}}([/.-])\d{{1,2}}\1(?:\d{{4}}|\d\d)(?![\d.]\d)\b|\b\d{{4}}-\d\d-\d\d\b"
            rf"|\b\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}\.?,?\s+\d{{4}}\b"
            rf"|\b{_MONTH}\.?\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}}\b",
            re.IGNORECASE,
        ),
    ),
    (
        "phone",
        re.compile(
            r"(?<![\w-])(?:\+\d{1,3}[ .-]?|1[ .-])?(?:\(\d{3}\)[ .-]?|\d{3}[ .-])?\d{3}[ .-]\d{4}(?![\w-])"
            r"|(?<!\w)\+\d[\d .-]{7,14}\d\b"
        ),
    ),
    (
        "address",
        re.compile(
            rf"\b\d{{1,5}}[a-z]?\s+(?:{_UPPER}\.?\s+)?(?:{_CAPITAL}\s+){{1,4}}{_STREET}\b"
            r"(?:,?\s+(?:Apt|Unit|Suite|Flat|#)\.?\s*\w+)?"
        ),
    ),
    (
        "username",
        re.compile(
            r"(?<![\w.])@\w{3,}|\b[ur]/\w{3,}|\b[A-Za-z]\w*_\w+\b"
            r"|(?i:user ?name|screen ?name|nickname|gamertag|alias|account name)"
            r"[\s:,\"“'(]{1,8}(?:(?:is|was|as|of|called)\s{1,8})?[\"“'(]{0,3}\b(?P<value>[a-z][a-z0-9_.]{4,})\b"
        ),
    ),
    (
        "id",
        re.compile(
            r"(?<![\w.,/-])(?=[\w/-]*\d[\w/-]*\d[\w/-]*\d)(?!\d{1,3}[-/]\d{1,3}\b(?![-/\w]))"
            r"(?!(?:19|20)\d\d[-/](?:19|20)?\d\d\b(?![-/\w]))"
            r"\w+(?:[-/]\w+)+(?![\w-])|\b(?=\w*[A-Za-z])(?=\w*\d\w*\d\w*\d)\w{5,}\b|\b\d{6,}\b"
        ),
    ),
    (
        "amount",
        re.compile(rf"[$£€]\s?\d[\d,.]*\d(?:\s?[kKmM])?\b|[$£€]\s?\d\b|(?<![\d,.])\b\d[\d,.]*[ -]?{_UNIT}\b"),
    ),
    (
        "name",
        re.compile(
            rf"\b{_TITLE}\.?\s+{_CAPITAL}(?:\s+{_CAPITAL}){{0,2}}"
            rf"|\b{_BEGINS_NO_NAME}{_CAPITAL}(?:\s+(?:{_UPPER}\.|de|van|von|der|la|of|the|and|&))?(?:\s+{_CAPITAL}){{1,6}}"
            rf"|\b(?i:named|called|name is|name's)\s+(?P<value>{_CAPITAL})"
        ),
    ),
    (
        "place",
        re.compile(rf"\b(?i:in|from|near|outside|around|moved to|back to)\s+(?P<value>{_CAPITAL})\b"),
    ),
)


@dataclass(frozen=True, slots=True, repr=False)
class Detail:
    """A personal detail as a text has it.

    Attributes:
        kind: what it is.
        words: its words, normalised: how it is recognised elsewhere.
    """

    kind: Kind
    words: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Detail(<{self.kind}>)"


def find_details(text: str, *, last: Kind = "place") -> set[Detail]:
    """Returns the different personal details of a text.

    A stretch of text is read once: a number in an address is no amount.

    Args:
        text: any text.
        last: kinds that are looked for after this one are left out.
    """
    found = set()
    left = text
    for kind, pattern in _PATTERNS:
        spans = []
        for match in pattern.finditer(left):
            group = "value" if "value" in pattern.groupindex and match["value"] else 0
            detail = _read(kind, match[group])
            if detail is not None:
                spans.append(match.span(group))
                found.add(detail)
        if kind == last:
            break
        left = _blank(left, spans)
    return found


def _read(kind: Kind, value: str) -> Detail | None:
    words = normalised_words(value)
    if kind in ("name", "place"):
        while words and words[0] in _NOT_NAMES:
            words = words[1:]
        while words and words[-1] in _NOT_NAMES:
            words = words[:-1]
        # A name of one word left over from two, such as "Paula" of "When Paula", is too weak by itself.
        if kind == "name" and len(words) < 2 and " " in value.strip():
            return None
    if kind == "phone":
        words = ["".join(character for word in words for character in word if character.isdigit())[-10:]]
    return Detail(kind, tuple(words)) if words else None


def _blank(text: str, spans: Sequence[tuple[int, int]]) -> str:
    if not spans:
        return text
    parts, place = [], 0
    for start, end in spans:
        parts += [text[place:start], "\n" + " " * (end - start - 1)]
        place = end
    return "".join([*parts, text[place:]])
