"""Recognisers of user names, people, organisations and places by shape, context and word lists."""

import re
from collections.abc import Iterator

from rpsg.llm.recognizers import Range, Words
from rpsg.types import PiiSpan

_CAP = r"[A-ZÀ-ÖØ-ÞĀĒĪŌŪ](?:[\w’'-]*\w)?"
_NAME = rf"{_CAP}(?: {_CAP}){{0,2}}"
_LOWER_NAME = r"[a-zà-öø-þ][\w-]+(?: [a-zà-öø-þ][\w-]+)?"
_TOKEN = re.compile(r"[^\W_][\w’'-]*\w|[^\W_]")

_TITLE = (
    r"(?:Dr|Mr|Mrs|Ms|Miss|Mx|Prof|Professor|Doctor|Rev|Reverend|Pastor|Father|Sister|Judge|Sgt|Officer|Nurse|Captain"
    r"|Coach|Aunt|Auntie|Uncle|Nurse|Detective|Principal)\.?"
)
_TITLED = re.compile(rf"\b(?:{_TITLE}|(?i:dr|mr|mrs|ms|prof)\.?) (?P<v>{_NAME})\b")
_TITLED_LOWER = re.compile(rf"\b(?:dr|mr|mrs|ms|prof)\.? (?P<v>{_LOWER_NAME})")
_KIN = (
    r"(?:step)?(?:son|daughter|kid|boy|girl|wife|husband|partner|brother|sister|nephew|niece|cousin|friend|mate"
    r"|neighbou?r|youngest|eldest|oldest|baby|little|grandson|granddaughter|roommate|flatmate|housemate"
    r"|fianc[ée]e?|girlfriend|boyfriend|supervisor|caseworker|landlord|landlady|manager|mum|mom|dad|buddy)"
)
_NAMED = re.compile(
    rf"(?:\b(?i:{_KIN}|{_KIN},|name is|name['’]?s|name tag says|call me|signed,?|sincerely,|named"
    rf"|addressed to) [\"“'‘]?)(?P<v>{_NAME})(?!\w)"
)
_INTRODUCED = re.compile(
    r"(?:\b(?i:this is|yours,|love,|dear|came to|it began at|called|hello,? i['’]m|i['’]m|i am|hola,|hello,?"
    rf"|for|tell|told|asked?|call|met|thank|text) [\"“'‘]?)(?P<v>{_NAME})(?!\w)"
)
_HERE = re.compile(rf"(?<![\w-])(?P<v>{_CAP}(?: {_CAP})?)(?= (?:here|again)\b)")
_NAMED_LOWER = re.compile(
    rf"\b(?:name is|name['’]?s|call me|signed,?|began at|addressed to) (?P<v>{_LOWER_NAME})", re.IGNORECASE
)
_INTRODUCED_LOWER = re.compile(
    rf"\b(?:this is|our|my {_KIN},?|i['’]?m|i am) (?P<v>{_LOWER_NAME})", re.IGNORECASE
)
_BARE = re.compile(rf"(?:(?<=[a-z,;] )|(?<=[.!?] )(?=\S+[.!]))(?P<v>{_CAP})(?!\w)")
_ACTS = re.compile(
    r"(?<![\w’'-])(?P<v>[A-ZÀ-ÖØ-Þ][a-zà-öø-þāēīōū-]+)"
    r"(?='s (?!disease|syndrome|anomaly|test|procedure|neuralgia|sign|criteria|scale|palsy|chorea|sarcoma)"
    r"[a-z]"
    r"| (?:needs|wants|says|said|asked|told|goes|loves|thinks|cried|aged|laughed|smiled|called|calls|texted"
    r"|knows)\b)"
)
_MINE = re.compile(rf"\b[Mm]y (?P<v>{_CAP})(?=, who)")
_CONTRACTION = re.compile(r"['’](?:d|m|ll|ve|re|t)$", re.IGNORECASE)
_SIGN_OFF = re.compile(
    rf"(?:[.!?)”\"]\s+|\n\s*|[-–—]\s?)(?P<v>{_CAP}(?: {_CAP})?)(?:[.!]?\s*\Z|, [^.\n]{{0,40}}[.!]?\s*\Z)"
)
_PAIR = re.compile(rf"(?<![\w’'-])(?P<v>{_CAP}(?: [A-Z]\.)?(?: {_CAP}){{1,2}})(?![\w&])")
_LOWER_PAIR = re.compile(r"(?<![\w’'@.-])(?P<v>[a-zà-öø-þ]{3,} [a-zà-öø-þ]{3,})(?=\s*(?:\n|[,.;:!?]|\Z))")

_LINK = r"(?:&|of|de|da|del|du|la|le|and|the)"
_RUN = re.compile(rf"(?<![\w@])(?P<v>{_CAP}(?:(?: {_LINK}){{0,2}} {_CAP}){{1,7}})")
_FIRM = re.compile(rf"(?<![\w@])(?P<v>(?:{_CAP} ){{1,3}}& {_CAP}(?: {_CAP}){{0,3}})")
_AT = re.compile(
    rf"\b(?:at|left|joined|work(?:ed|ing|s)? (?:at|for)|preschool,|school,|clinic,|for|from) (?:the )?"
    rf"(?P<v>{_CAP}(?: {_CAP}){{1,4}})"
)
_LOWER_ORG = re.compile(
    r"(?:\b(?:at|from) |^)(?=(?:the )?"
    r"(?P<v>[a-zà-öø-þāēīōū][\w’'-]+(?: [a-zà-öø-þāēīōū&][\w’'-]*){2,4}))",
    re.MULTILINE,
)

_HOMES = (
    re.compile(rf"\b(?i:i['’]?m|i am|aged?) [0-9]{{2}},? (?:\w+ing )?(?:in )?(?P<v>{_CAP}(?: {_CAP})?)"),
    re.compile(rf"(?<=, )(?P<v>{_CAP}(?: {_CAP})?)(?=,? (?:age|aged) [0-9]{{2}})"),
    re.compile(
        r"\b(?i:lives?|lived|living|rent|renting|based|moved|born|raised|grew up|stuck|homeless|work|works"
        r"|working|drive|drove|driving|jobs?|house|flat|apartment|place|hospital|routes|gigs)(?: [a-z]+){0,4}"
        rf" (?:in|around|near|outside|to) (?P<v>{_CAP}(?: {_CAP})?)"
    ),
)

# --- user names -------------------------------------------------------------------------------------

_HANDLES = (
    re.compile(r"(?<![\w@./])(?P<v>@[A-Za-z_][\w.]{1,29}\b)"),
    re.compile(r"(?<![\w/])/?(?P<v>u/[\w-]{3,})"),
)
_SNAKE = re.compile(r"(?<![\w@/.-])(?P<v>[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+)(?![\w@]|\.\w|\()")
_HANDLE = r"[\"“'‘*]?(?P<v>(?=[\w.-]*[a-z])[A-Za-z0-9](?:[\w.-]{3,28})[A-Za-z0-9])\b"
_SITE = (
    r"(?:board|forum|sub|subreddit|site|page|list|server|chat|group|app|discord|thread|threads|community|channel"
    r"|network|blog|platform|marketplace|swap|reddit|instagram|twitter|discord|etsy|ravelry|facebook|tumblr)s?"
)
_ON_A_SITE = (
    rf"[\"”'’*]?,? (?:on|from|at|in|over at|over on) (?:(?:the|this|that|a|my|our|an|those|these) )?"
    rf"(?:[\w'’-]+ ){{0,4}}?{_SITE}\b"
)
_USERNAME_CONTEXTS = (
    re.compile(
        rf"\b(?:as|i['’]?m|i am|at|under|know|knows|knew|remember|tell|me|to|by|here|wanted|follow|find"
        rf"|message|ask|is|name|there)\b[,:]? {_HANDLE}{_ON_A_SITE}",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:user ?name|handle|screen ?name|login|gamertag|discord|insta(?:gram)?|twitter|tiktok|venmo"
        rf"|cash ?app|reddit)(?: name)?(?: (?:is|was|here is|there is)|['’]s|:|,)? {_HANDLE}",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:post(?:s|ed|ing)?|go|goes|known|find me|dm me|pm me|message me|reach me|answer me)"
        rf"(?: \w+){{0,4}} (?:as|by|at|under)[:,]? {_HANDLE}",
        re.IGNORECASE,
    ),
)


def find_names(text: str, words: Words) -> Iterator[PiiSpan]:
    """Yields user names, people, organisations and home towns."""
    for kind, score, ranges in (
        ("USERNAME", 0.9, _handles(text)),
        ("USERNAME", 0.85, _snake_names(text)),
        ("USERNAME", 0.75, _plain_user_names(text, words)),
        ("ORG", 0.85, _organisations(text, words)),
        ("PERSON", 0.85, _titled(text, words)),
        ("PERSON", 0.75, _people(text, words)),
        ("PERSON", 0.6, _lower_people(text, words)),
        ("LOCATION", 0.6, _homes(text, words)),
    ):
        for start, end in ranges:
            yield PiiSpan(start=start, end=end, type=kind, score=score)


def tokens(text: str) -> list[str]:
    """Returns the words of a text in lower case, without a possessive ending."""
    return [re.sub(r"['’]s$", "", word.casefold()) for word in _TOKEN.findall(text)]


def _is_given(word: str, words: Words) -> bool:
    return word in words.given and word not in words.not_names and word not in words.public


def _name_like(word: str, words: Words) -> bool:
    """Returns whether a lower-case word is a name by list, or at least no ordinary word."""
    return _is_given(word, words) or all(part not in words.known for part in word.split("-"))


def _trim(text: str, start: int, end: int, words: Words) -> Range | None:
    """Cuts a run of capitalised words before the first word that cannot be part of a name."""
    stop = start
    for match in _TOKEN.finditer(text, start, end):
        word = tokens(match[0])[0]
        if word in words.public or word in words.generic or _CONTRACTION.search(word):
            break
        stop = match.end() - (2 if match[0].endswith(("'s", "’s")) else 0)
    return (start, stop) if stop > start else None


def _titled(text: str, words: Words) -> Iterator[Range]:
    for match in _TITLED.finditer(text):
        found = _trim(text, *match.span("v"), words)
        if found:
            yield found
    for match in _TITLED_LOWER.finditer(text):
        yield from _lower_name(text, match, words)


def _lower_name(text: str, match: re.Match[str], words: Words) -> Iterator[Range]:
    """Yields one or two lower-case words after a title or an introduction if they look like a name."""
    first, *others = match["v"].split(" ")
    second = bool(others) and _name_like(others[0], words)
    given = first in words.given and first not in words.generic
    if not (_name_like(first, words) or given or (second and first not in words.generic)):
        return
    ends_phrase = re.match(r"\s*(?:\n|[,.;:!?]|$)", text[match.end("v") :])
    whole = not others or second or (bool(ends_phrase) and others[0] not in words.generic)
    yield match.start("v"), match.end("v") if whole else match.start("v") + len(first)


def _people(text: str, words: Words) -> Iterator[Range]:
    for pattern in (_NAMED, _MINE, _INTRODUCED, _HERE, _SIGN_OFF):
        for match in pattern.finditer(text):
            found = _trim(text, *match.span("v"), words)
            certain = pattern in (_NAMED, _MINE)
            if found and (certain or _introduced_name(text[slice(*found)], words)):
                yield found
    for match in _PAIR.finditer(text):
        found = _trim(text, *match.span("v"), words)
        if found and _full_name(text[slice(*found)], words):
            yield found
    for match in _BARE.finditer(text):
        word = tokens(match["v"])[0]
        if _is_given(word, words) and not match["v"].isupper():
            yield match.start("v"), match.start("v") + len(word)
    for match in _ACTS.finditer(text):
        word = match["v"].casefold()
        if _is_given(word, words) or word not in words.known:
            yield match.span("v")


def _full_name(value: str, words: Words) -> bool:
    """Returns whether capitalised words are a given name and more; headings in capitals are not."""
    first, *others = tokens(value)
    unknown = any(other not in words.known for other in others)
    heading = value.isupper() and first in words.known and not unknown
    given = _is_given(first, words) or (first in words.given and unknown)
    return bool(others) and given and not heading


def _introduced_name(value: str, words: Words) -> bool:
    """Returns whether capitalised words after "I'm" or "told" are a name rather than an adjective."""
    first, *others = tokens(value)
    if others:
        return first not in words.not_names or first in words.given
    unknown = all(part not in words.known for part in first.split("-"))
    return _is_given(first, words) or (unknown and not value.isupper() and value.isalpha())


def _lower_people(text: str, words: Words) -> Iterator[Range]:
    for pattern in (_NAMED_LOWER, _INTRODUCED_LOWER):
        for match in pattern.finditer(text):
            first = match["v"].split(" ")[0]
            named = pattern is _NAMED_LOWER and first in words.given and first not in words.generic
            if match["v"].islower() and (named or (_is_given(first, words) and first not in words.known)):
                yield from _lower_name(text, match, words)
    for match in _LOWER_PAIR.finditer(text):
        first, second = match["v"].split(" ")
        if _is_given(first, words) and first not in words.known and _name_like(second, words):
            yield match.span("v")


def _organisations(text: str, words: Words) -> Iterator[Range]:
    for match in _RUN.finditer(text):
        yield from _named_organisation(text, match, words)
    for match in _FIRM.finditer(text):
        if all(len(part) > 2 for part in tokens(match["v"])):
            yield match.span("v")
    for match in _AT.finditer(text):
        parts = tokens(match["v"])
        if not all(_shared(part, words) for part in parts) and parts[0] not in words.public:
            yield match.span("v")
    for match in _LOWER_ORG.finditer(text):
        yield from _lower_organisation(match, words)


def _shared(word: str, words: Words) -> bool:
    return word in words.public or word in words.generic or word in words.countries


def _named_organisation(text: str, match: re.Match[str], words: Words) -> Iterator[Range]:
    """Yields the part of a capitalised run from its first telling word to its last ending word."""
    parts = list(_TOKEN.finditer(text, *match.span("v")))
    plain = [tokens(part[0])[0] for part in parts]
    start = 0
    while start < len(parts) and (plain[start] in words.generic or plain[start] in words.public):
        start += 1
    endings = [i for i in range(start + 1, len(parts)) if plain[i] in words.org_endings]
    if start < len(parts) - 1 and plain[start] in words.org_beginnings:
        yield parts[start].start(), parts[-1].end()
    elif endings:
        yield parts[start].start(), parts[endings[-1]].end()


def _lower_organisation(match: re.Match[str], words: Words) -> Iterator[Range]:
    """Yields a name written in lower case: two or more telling words, then an ending word."""
    parts = list(_TOKEN.finditer(match["v"]))
    plain = [part[0] for part in parts]
    end = next((i for i, word in enumerate(plain) if word in words.org_endings_lower), 0)
    telling = [
        word for word in plain[:end] if word not in words.generic and "'" not in word and "’" not in word
    ]
    if end >= 2 and len(telling) == end:
        more = end + 1 < len(plain) and plain[end + 1] in words.org_endings_lower
        yield match.start("v"), match.start("v") + parts[end + more].end()


def _homes(text: str, words: Words) -> Iterator[Range]:
    for pattern in _HOMES:
        for match in pattern.finditer(text):
            shared = any(_shared(part, words) for part in tokens(match["v"]))
            if not shared and not match["v"].isupper():
                yield match.span("v")


def _handles(text: str) -> Iterator[Range]:
    for pattern in _HANDLES:
        for match in pattern.finditer(text):
            yield match.span("v")


def _snake_names(text: str) -> Iterator[Range]:
    for match in _SNAKE.finditer(text):
        if sum(c.isalpha() for c in match["v"]) >= 5:
            yield match.span("v")


def _plain_user_names(text: str, words: Words) -> Iterator[Range]:
    for pattern in _USERNAME_CONTEXTS:
        for match in pattern.finditer(text):
            value = match["v"]
            ordinary = value.casefold() in words.known or value[0].isupper() or "-" in value
            if not ordinary or any(c.isdigit() or c == "_" for c in value[1:]):
                yield match.span("v")
