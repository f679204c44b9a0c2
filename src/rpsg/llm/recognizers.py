"""Recognisers of contact details, dates, ages and reference numbers: patterns with checks, no model.

A wrong span destroys a text as surely as a missed one leaks it, so every pattern asks for a shape or
a context that ordinary sentences and scientific abstracts do not have.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources

from rpsg.types import PiiSpan

Range = tuple[int, int]

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?\b"
_YEAR = r"(?:1[89]|20)[0-9]{2}\b"
_FULL_DATE = re.compile(
    rf"(?<![\w/.-])(?:{_DAY}(?: of)?[ -]{_MONTH},?[ -]{_YEAR}|{_MONTH} {_DAY},? {_YEAR}"
    rf"|{_YEAR}[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12][0-9]|3[01])\b"
    rf"|(?:0?[1-9]|[12][0-9]|3[01])[/.-](?:0?[1-9]|[12][0-9]|3[01])[/.-]{_YEAR})(?![\w/]|-\d)",
    re.IGNORECASE,
)
_ANY_DATE = re.compile(
    rf"(?<![\w/.-])(?:[0-9]{{1,2}}[/.-][0-9]{{1,2}}[/.-](?:[0-9]{{4}}|[0-9]{{2}})\b"
    rf"|(?:{_DAY}(?: of)? )?{_MONTH},? {_YEAR}|{_DAY}(?: of)? {_MONTH}|{_MONTH} {_DAY})",
    re.IGNORECASE,
)
_BIRTH_CUE = re.compile(r"\b(?:born|birth(?:day|date)?|bday|dob|d\.o\.b\.?)\b[^\n]{0,40}?", re.IGNORECASE)

_PHONE = re.compile(
    r"(?<![\w+/.-])(?<![$£€])(?:"
    r"(?:\+?1[-. ]?)?(?:\([0-9]{3}\) ?|[0-9]{3}[-. ])[0-9]{3}[-. ][0-9]{4}"  # US and Canada
    r"|555-[0-9]{4}"
    r"|555[ .]01[0-9]{2}"
    r"|\+[0-9]{1,3}(?:[-. ]?\(?[0-9]\)?){7,12}"  # international
    r"|\(0[0-9]{1,4}\)[- ]?[0-9]{3,4}[- ]?[0-9]{3,4}"
    r"|0[0-9]{1,4}[- ][0-9]{3,4}[- ]?[0-9]{3,4}"  # UK, Australia, New Zealand
    r"|0[0-9]{8,10}"
    r"|1[38]00[- ][0-9]{3}[- ][0-9]{3}"
    r")(?![\w/-]|\.[0-9])"
)
_LOCAL_PHONE = re.compile(
    r"\b(?:call|text|phone|ring|number|cell|tel|reach|dial|mobile|fax|line)\b[^.!?\n]{0,25}?(?<![\w+/.-])"
    r"(?P<v>[0-9]{3}[- ][0-9]{4})(?![\w/-]|\.[0-9])",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w][\w.+'-]*@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}", re.IGNORECASE)
_SPOKEN_EMAIL = re.compile(
    r"\b[\w.+-]+\s?[\[(]\s?at\s?[\])]\s?[\w-]+(?:\s?[\[(]\s?dot\s?[\])]\s?|\.)[a-z]{2,}", re.I
)
_URL = re.compile(
    r"(?<![\w@.])(?:https?://[^\s<>\"')]+|www\.[^\s<>\"')]+"
    r"|(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|io|info|biz|co\.uk|org\.uk|com\.au|co\.nz|ca)\b(?:/[^\s<>\"')]*)?)",
    re.IGNORECASE,
)
_STATE = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT"
    r"|V[AT]|W[AIVY]|Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia"
    r"|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan"
    r"|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|Hampshire|Jersey|Mexico|York|Carolina|Dakota|Ohio"
    r"|Oklahoma|Oregon|Pennsylvania|Rhode Island|Tennessee|Texas|Utah|Vermont|Virginia|Washington|Wisconsin"
    r"|Wyoming)"
)
_POSTCODE = re.compile(
    rf"\b(?:(?P<uk>[A-Z]{{1,2}}[0-9][A-Z0-9]? [0-9][ABD-HJLNP-UW-Z]{{2}})"
    rf"|(?P<ca>[ABCEGHJ-NPRSTVXY][0-9][A-Z] [0-9][A-Z][0-9])"
    rf"|{_STATE},? (?P<us>[0-9]{{5}}(?:-[0-9]{{4}})?)"
    rf"|(?:NSW|VIC|QLD|TAS|ACT),? (?P<au>[0-9]{{4}}))\b(?![,.]?[0-9])"
)
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)[0-9]{3}-[0-9]{2}-[0-9]{4}(?![\w-])")


_AGE = r"(?P<v>1[0-9]|[2-9][0-9]|10[0-9])(?![0-9]|[.,:/-][0-9])"
# "I'm 40 minutes late" is not an age, so a bare number must end its phrase.
_AGE_END = (
    r"(?=\s*(?:[,.;:!?)\n\"”]|$|(?:and|now|but|with|in|next|this|so|today|or|tomorrow|then|when|because)\b)"
    r"(?!\s*and (?:a half|change)\b))"
)
_AGE_OF = rf"(?:only |just |now |almost )?{_AGE}{_AGE_END}"
_AGES = (
    re.compile(rf"\b(?:i['’]?m|i am|i was|s?he['’]?s|s?he (?:is|was)|turn(?:ed|ing|s)?) {_AGE_OF}", re.I),
    re.compile(rf"(?<![\w.$£€-]){_AGE}(?=[ -]?(?:years?[ -]olds?|yrs?[ -]old|y/?o)\b)", re.I),
    re.compile(rf"\b(?:aged?|age is|age of|age:) {_AGE}{_AGE_END}", re.I),
    re.compile(rf"\bat {_AGE}(?=,? (?:I|you|she|he|my|your)\b)", re.I),
    re.compile(rf"(?:[(\[]|\b(?:I|me|am|I'm) [(\[]?){_AGE}(?=\s?[MF]\b)"),
)

# --- reference numbers ------------------------------------------------------------------------------

_ID_CUE = re.compile(
    r"(?:\b(?:claim|case|account|acct|a/c|ref|reference|file|docket|ticket|request|number|no|loan|agreement|policy"
    r"|member(?:ship)?|invoice|order|tenancy|licen[cs]e|badge|permit|id|customer|resident|mrn|chart|record"
    r"|application|plan|lease|tracking|confirmation|serial|visa|passport|ssn|tfn|ird|nino|warrant|citation"
    r"|booking|contract|appeal|grievance|complaint|plate|bond|debtor|student|employee|matter|unit)\b|#)",
    re.IGNORECASE,
)
_ID_FILLER = (
    r"(?:\s*(?:[:#.,(\"“'=–—-]+|\b(?:number|no|nr|num|ref|reference|id|code|is|was|it['’]?s|account|acct|file|the"
    r"|under|claim|case|called|reads?|says|as|with|for|mine)\b\.?)){0,6}\s*"
)
_ID_TOKEN = re.compile(
    rf"{_ID_FILLER}(?<![\w$£€])(?P<v>[A-Za-z0-9]+(?:[-/][A-Za-z0-9]+){{0,4}})(?![\w%]|[.,][0-9])"
)
_ID_SHAPE = re.compile(
    r"(?<![\w$£€/.+-])(?P<v>(?:[A-Z]{1,4}[0-9]{0,6}|[0-9]{1,8}[A-Z]?)"
    r"(?:[-/](?:[A-Z]{1,4}|[0-9]{1,8}[A-Z]{0,2}|[A-Z]{1,2}[0-9]{1,8}|[a-z]{1,2}\b)){2,4}"
    r"|[A-Z]{2,3}[0-9]{7,10})(?![\w/-]|[.,][0-9])"
)
_NOT_AN_ID = re.compile(
    r"(?:1[89]|20)[0-9]{2}s?|(?:1[89]|20)[0-9]{2}[-/](?:(?:1[89]|20)?[0-9]{2})"  # years
    r"|[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}|[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"  # dates
    r"|[0-9]+(?:st|nd|rd|th|k|am|pm|mg|ml|lb|kg)|covid-19|(?-i:[0-9]+-[a-z]{3,}(?:-[a-z]+)*)|401k?|1099(?:-[a-z]+)?"
    r"|[0-9]+(?:-|/)(?:hour|day|week|month|year)\w*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Words:
    """Public word lists the recognisers check their matches against; all lower case.

    Attributes:
        known: words the language model's vocabulary knows; a single-word user name is not among them.
        given: given names of many languages.
        not_names: given names that are mostly other words.
        public: programmes, brands, days and greetings that everybody shares.
        generic: words that do not tell one organisation from another.
        org_endings: last words of names of organisations.
        org_endings_lower: those that mark a name written without capitals too.
        org_beginnings: first words of such names in languages other than English.
        streets: last words of street names.
        streets_capitalised: last words of street names that are common words otherwise.
        countries: words of names of countries and large regions.
    """

    known: frozenset[str]
    given: frozenset[str]
    not_names: frozenset[str]
    public: frozenset[str]
    generic: frozenset[str]
    org_endings: frozenset[str]
    org_endings_lower: frozenset[str]
    org_beginnings: frozenset[str]
    streets: frozenset[str]
    streets_capitalised: frozenset[str]
    countries: frozenset[str]


def read_words(name: str) -> frozenset[str]:
    """Returns the words of a list that comes with the package."""
    lines = resources.files("rpsg.llm").joinpath("data", f"{name}.txt").read_text("utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def find_contacts(text: str, words: Words) -> Iterator[PiiSpan]:
    """Yields e-mail, web and postal addresses, phones, dates, ages and reference numbers."""
    for kind, score, find in _FINDERS:
        for start, end in find(text, words):
            yield PiiSpan(start=start, end=end, type=kind, score=score)


def _whole(*patterns: re.Pattern[str]) -> Callable[[str, Words], Iterator[Range]]:
    """Makes a finder of a pattern's group `v`, or of the whole match where it has none."""

    def find(text: str, _words: Words) -> Iterator[Range]:
        for pattern in patterns:
            group = "v" if "v" in pattern.groupindex else 0
            for match in pattern.finditer(text):
                yield match.span(group)

    return find


def _postcodes(text: str, _words: Words) -> Iterator[Range]:
    for match in _POSTCODE.finditer(text):
        yield match.span(match.lastgroup or 0)


def _dates(text: str, _words: Words) -> Iterator[Range]:
    for match in _FULL_DATE.finditer(text):
        yield match.span()
    for cue in _BIRTH_CUE.finditer(text):
        near = _ANY_DATE.search(text, cue.end(), min(len(text), cue.end() + 45))
        if near and "\n\n" not in text[cue.end() : near.start()]:
            yield near.span()


def _ids(text: str, _words: Words) -> Iterator[Range]:
    for match in _ID_SHAPE.finditer(text):
        value = match["v"]
        if sum(c.isdigit() for c in value) >= 4 and not _NOT_AN_ID.fullmatch(value):
            yield match.span("v")
    for cue in _ID_CUE.finditer(text):
        token = _ID_TOKEN.match(text, cue.end())
        if token and token.start("v") > cue.end() - (cue[0] == "#") and _is_reference(token["v"], cue[0]):
            yield token.span("v")


def _is_reference(value: str, cue: str) -> bool:
    """Returns whether a token after a word such as "claim" is a reference and not a count or a year."""
    digits = sum(c.isdigit() for c in value)
    if _NOT_AN_ID.fullmatch(value) or digits < 3:
        return False
    if value.isdigit():
        return digits >= (4 if cue.casefold() in {"#", "no", "number", "id"} else 6)
    return len(value) >= 5


_WORD = r"[^\W\d_][\w'’-]*"
_UNIT = (
    r"(?:,? (?:apt|apartment|unit|suite|ste|flat|room|rm|lot|floor|#)\.? ?#?\s?[\w/-]{1,6}\b"
    r"|,? ?#[\w-]{1,5}\b)"
)
_ADDRESS = re.compile(
    r"(?<![\w.,/$£€#-])(?:(?:flat|apt|apartment|unit|suite) [\w/]{1,6},? )?"
    rf"(?P<n>[0-9]{{1,5}}(?:[a-d]|[-/][0-9]{{1,4}})?)\b,? (?P<w>{_WORD}\.?(?: {_WORD}\.?){{1,5}})",
    re.IGNORECASE,
)
_PO_BOX = re.compile(r"\bP\.? ?O\.? Box [0-9]{1,6}\b", re.IGNORECASE)
_UNIT_AFTER = re.compile(_UNIT, re.IGNORECASE)
_PLACE_BEFORE = re.compile(r"\b(?:at|address(?: is)?:?|lives? on|live at)\s$", re.IGNORECASE)
_NOT_IN_STREET = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "to",
        "by",
        "for",
        "from",
        "with",
        "and",
        "or",
        "but",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "my",
        "your",
        "our",
        "his",
        "her",
        "their",
        "its",
        "it",
        "i",
        "we",
        "you",
        "he",
        "she",
        "they",
        "this",
        "that",
        "more",
        "less",
        "than",
        "minutes",
        "minute",
        "hours",
        "hour",
        "days",
        "day",
        "weeks",
        "week",
        "months",
        "month",
        "years",
        "year",
        "blocks",
        "block",
        "miles",
        "mile",
        "km",
        "feet",
        "per",
        "times",
        "people",
        "patients",
        "women",
        "men",
        "dollars",
        "bucks",
        "pounds",
        "percent",
        "mg",
        "kg",
        "ml",
        "supreme",
        "federal",
        "district",
        "claims",
        "magistrates",
        "step",
        "old",
        "later",
        "ago",
        "away",
        "down",
        "up",
        "off",
        "out",
        "through",
        "over",
        "before",
        "after",
        "until",
        "since",
        "as",
        "if",
        "when",
        "while",
        "so",
        "then",
        "who",
        "which",
        "have",
        "has",
        "had",
        "do",
        "does",
        "did",
        "not",
        "no",
        "all",
    ]
)


def _addresses(text: str, words: Words) -> Iterator[Range]:
    for box in _PO_BOX.finditer(text):
        yield box.span()
    for match in _ADDRESS.finditer(text):
        end = _street_end(match, words, after_place=bool(_PLACE_BEFORE.search(text, 0, match.start())))
        if end:
            unit = _UNIT_AFTER.match(text, end)
            yield match.start(), unit.end() if unit else end


def _street_end(match: re.Match[str], words: Words, *, after_place: bool) -> int:
    """Returns where the street name after a house number ends, or 0 if there is none."""
    end = 0
    for position, word in enumerate(re.finditer(r"\S+", match["w"])):
        plain = word[0].rstrip(".").casefold()
        if plain in _NOT_IN_STREET:
            break
        capitalised = word[0][0].isupper()
        if position and (
            plain in words.streets or (plain in words.streets_capitalised and (capitalised or after_place))
        ):
            end = match.start("w") + word.start() + len(word[0].rstrip("."))
    return end


_FINDERS: tuple[tuple[str, float, Callable[[str, Words], Iterator[Range]]], ...] = (
    ("EMAIL", 1.0, _whole(_EMAIL, _SPOKEN_EMAIL)),
    ("URL", 0.9, _whole(_URL)),
    ("PHONE", 0.95, _whole(_PHONE, _LOCAL_PHONE)),
    ("ADDRESS", 0.9, _addresses),
    ("DATE_OF_BIRTH", 0.85, _dates),
    ("ID", 0.85, _ids),
    ("ID", 0.9, _whole(_SSN)),
    ("POSTCODE", 0.8, _postcodes),
    ("AGE", 0.7, _whole(*_AGES)),
)
