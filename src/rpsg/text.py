"""What can be said of a text by looking at it alone: sentences, copied runs, flaws.

Pure functions without a model, shared by the stages.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from html import unescape

import regex

# Vowel signs and other marks are \w to this library, unlike to the standard one; no word begins with one.
_WORD = regex.compile(r"[^\W\p{M}]\w*+(?:['’]\w++)*+")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s|$)")
# A full stop after these does not end a sentence.
_ABBREVIATION = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof|St|vs|etc|e\.g|i\.e|approx|No|Fig|al|[A-Z])\.$")
_WRAPPING = re.compile(r"^(?:#+\s.*\n+|\*\*[^*\n]+\*\*\s*\n+|(?:title|subject)\s*:.*\n+)", re.IGNORECASE)
# What a model says about its task instead of doing it.
_META = re.compile(
    r"^[^\w\n]{0,20}(?:here(?:'s| is| are)\b|sure\b[,!.]|certainly\b|of course[,!]|okay, here)"
    r"|\bi(?:'m| am) sorry, but i can"
    r"|^[^\w\n]{0,20}i(?:['’]d| would|['’]ll| will) be (?:happy|glad) to "
    r"(?:assist|help you|write|provide|share a)\b"
    r"|\bunable to assist\b|\brevised the post\b"
    r"|\bas an ai\b|\blanguage model\b|\bword count\b|\bfirst[- ]person (?:post|passage|account)\b"
    r"|\bthe (?:original |above |given )?(?:post|text|summary|prompt|passage)"
    r" (?:above|says|describes|is about)\b"
    r"|\brewritten (?:version|post|text)\b|\brewrite (?:it|this|the)\b|\bpolished version\b"
    r"|\bthis (?:person|character)['’]s (?:story|post)\b"
    r"|\bend of (?:the|this) (?:story|post)\b|\bfor this (?:post|passage)\b"
    r"|\bi loved your (?:story|post)\b|\bwith the response\b"
    # A placeholder of a letter template, but not a tag that stands for a removed detail.
    r"|\[(?!(?-i:[A-Z_]+)\])(?:insert|your|name|date|city|company|location|customer|client|recipient|sender)[^\]]*\]"
    r"|<[a-z/|][^>\n]{0,30}>|```|\*\*|^#+\s",
    re.IGNORECASE | re.MULTILINE,
)
# What a summary may say of a text, and the text not of itself.
_FROM_OUTSIDE = re.compile(
    r"\bthe (?:author|writer|narrator|poster|commenter)\b|\bthe (?:story|post) is about\b"
    r"|\bthis is an? (?:\w+ ){0,2}(?:summary|story|post)(?: of| about|,)",
    re.IGNORECASE,
)
_MAX_REPEATS = 2
_WORDS_PER_REPEAT = 100
_RUN = 4
_LONG, _FEWEST_DIFFERENT = 40, 0.4
# Shorter words say little of a topic.
_MIN_LETTERS = 4
# A longer run of letters, such as one letter fifty thousand times, is to a model as long as many words.
_LONGEST_WORD = 100
# What chat formats mark turns with, and what prompts of ours put around a text.
_CONTROL_TOKEN = re.compile(
    r"<[|｜][^<>\n]{1,60}?[|｜]?>|<\s*/?\s*s\s*>|<</?SYS>>|</?(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS|gMASK)\]"
    r"|<(?:reserved_\d+|(?:bo|eo)[achsmu])>"
    r"|<\s*/?\s*(?:post|abstract|summary|text|think(?:ing)?|tool_call|tool_response)\b[^<>\n]{0,60}>",
    re.IGNORECASE,
)
# Zero-width and direction-changing characters, and controls other than line ends and tabs; not the joiners
# that scripts and emoji need.
_HIDDEN = re.compile(r"[\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# The same, halves of character pairs, which no file can hold, 8-bit controls, which some terminals obey, and
# characters without a shape of their own. Not the selectors that emoji need.
UNSEEN = re.compile(
    f"{_HIDDEN.pattern[:-1]}\x80-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2028\u2029"
    "\u3164\uffa0\u2800\ufff0-\ufffc\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# What no reader of any script misses: the same without selectors that Mongolian needs and halves of pairs.
_UNREAD = re.compile(f"{_HIDDEN.pattern[:-1]}\u00ad\u034f\u061c\U000e0000-\U000e0fff]")
# A shorter synthetic text says too little to be one.
MIN_WORDS = 12


# Apostrophes as keyboards and programs write them, and a line in the place of a space.
_SAME_SIGN = str.maketrans("\u2018\u2019\u02bc\u00b4`\uff07_", "'''''' ")
# Between letters of other scripts these have a meaning; where words are compared they only hide.
JOINERS = re.compile(r"[\u200c\u200d\ufe00-\ufe0f]")
# Names of tags, not what stands within them, which may be a copy; and line ends that a program wrote out.
_MARKUP = re.compile(
    r"</?(?:a|b|blockquote|br|code|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|span|strong|t[dhr]|table|u|ul)"
    r"(?=[\s/>])|\\[nrt]",
    re.IGNORECASE,
)
# Lines and strokes through letters; those of accents have become part of their letter before.
# Nor do the points of Hebrew and Arabic count, which most writers leave out.
_STROKES = re.compile(
    r"[\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    r"\u20d0-\u20ff\ufe20-\ufe2f]"
)


def words_of(text: str) -> list[str]:
    """Returns the words in lower case, punctuation stripped."""
    return _WORD.findall(text.lower())


def word_spans(text: str) -> list[tuple[str, int, int]]:
    """Returns each word in lower case, with where it begins and ends."""
    return [(match[0].lower(), match.start(), match.end()) for match in _WORD.finditer(text)]


def trim_to_sentences(text: str) -> str:
    """Cuts a text after its last complete sentence; returns "" when it has none."""
    text = text.strip()
    return text[: max(_sentence_ends(text), default=0)]


def _sentence_ends(text: str) -> list[int]:
    return [
        match.end()
        for match in _SENTENCE_END.finditer(text)
        if not _ABBREVIATION.search(text[max(0, match.start() - 12) : match.start() + 1])
    ]


def trim_loops(text: str) -> str:
    """Cuts a text that repeats itself to the longest beginning of whole sentences that does not.

    A small model that has run out of things to say goes round in circles; what it wrote before may do. A text
    that repeats itself from its first sentence on is returned as it is.
    """
    spans = word_spans(text)
    if not is_repetitive([word for word, _, _ in spans]):
        return text
    runs, best, n_words = _Runs(), 0, 0
    for end in _sentence_ends(text):
        while n_words < len(spans) and spans[n_words][1] < end:
            runs.add(spans[n_words][0])
            n_words += 1
        if not runs.are_repetitive:
            best = end
    return text[:best] if best else text


class _Runs:
    """Counts runs of four words as words are added."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._different: set[str] = set()
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._most = 0

    def add(self, word: str) -> None:
        self._words.append(word)
        self._different.add(word)
        if len(self._words) >= _RUN:
            run = tuple(self._words[-_RUN:])
            self._counts[run] += 1
            self._most = max(self._most, self._counts[run])

    @property
    def are_repetitive(self) -> bool:
        n = len(self._words)
        if self._most > _MAX_REPEATS + n // _WORDS_PER_REPEAT:
            return True
        return n >= _LONG and len(self._different) / n < _FEWEST_DIFFERENT


def strip_wrapping(text: str) -> str:
    """Takes off a leading heading or title line and quotation marks around the whole."""
    text = _WRAPPING.sub("", text.strip()).strip()
    if len(text) > 1 and text[0] in '"“' and text[-1] in '"”' and not re.search(r"[\"“”]", text[1:-1]):
        text = text[1:-1].strip()
    return text


def split_into_parts(text: str, max_words: int) -> list[str]:
    """Splits a text at sentence ends into the fewest parts of similar length, none over `max_words`.

    A single sentence longer than that is split between words, and a word of hundreds of letters within:
    to a model it is as long as many. Nothing else is lost.
    """
    if any(len(word) > _LONGEST_WORD for word in text.split()):
        text = _break_long_words(text)
    total = len(text.split())
    if total <= max_words:
        return [text]
    goal = -(-total // -(-total // max_words))
    parts: list[list[str]] = [[]]
    for sentence in _sentences(text):
        words = sentence.split()
        while len(words) > max_words:
            parts.append(words[:max_words])
            words = words[max_words:]
        if len(parts[-1]) + len(words) > max_words or len(parts[-1]) >= goal:
            parts.append([])
        parts[-1] += words
    return [" ".join(part) for part in parts if part]


def _break_long_words(text: str) -> str:
    return re.sub(rf"\S{{{_LONGEST_WORD}}}", r"\g<0> ", text)


def defuse(text: str) -> str:
    """Takes out of a text what a model could take for the end of it, or for a turn of someone else's.

    That is: control tokens of chat formats, the marks that prompts put around a text, characters that turn
    or hide others, and halves of character pairs.
    """
    return _CONTROL_TOKEN.sub(" ", _UNREAD.sub("", text)).encode("utf-8", "replace").decode("utf-8")


def reveal(text: str) -> str:
    """Writes a text so that a reader sees all that is in it: characters that hide or turn others by name."""
    return UNSEEN.sub(lambda match: f"\u27e8U+{ord(match[0]):04X}\u27e9", text)


def _sentences(text: str) -> Iterable[str]:
    start = 0
    for match in _SENTENCE_END.finditer(text):
        yield text[start : match.end()]
        start = match.end()
    if text[start:].strip():
        yield text[start:]


def content_words(texts: Sequence[str]) -> set[str]:
    """Returns the words of some texts that have four letters or more and are no stop words."""
    from spacy.lang.en.stop_words import STOP_WORDS

    words = {word for text in texts for word in words_of(text)}
    return {word for word in words if word.isalpha() and len(word) >= _MIN_LETTERS and word not in STOP_WORDS}


def flaw_of(text: str, *, min_words: int, is_summary: bool = False) -> str | None:
    """Names what makes a text unusable, or returns None.

    Args:
        text: any text.
        min_words: a shorter one is too short.
        is_summary: summaries may speak of "the author"; a text that does has not found its own voice.

    Returns:
        "empty", "too short", "cut off", "meta text", "repetition" or None.
    """
    words = words_of(text)
    if not words:
        return "empty"
    if len(words) < min_words:
        return "too short"
    if not trim_to_sentences(text):
        return "cut off"
    if _META.search(text) or (_FROM_OUTSIDE.search(text) and not is_summary):
        return "meta text"
    return "repetition" if is_repetitive(words) else None


def is_usable(text: str) -> bool:
    """Tells whether a text may be released as far as its words tell."""
    return flaw_of(text, min_words=MIN_WORDS) is None


def is_repetitive(words: list[str]) -> bool:
    """Tells whether a run of four words occurs too often for the text's length, or few words are different.

    Twice is fine, and once more for each full hundred words: the terms of a long abstract come again.
    """
    runs = _Runs()
    for word in words:
        runs.add(word)
    return runs.are_repetitive


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class WordRuns:
    """All runs of `length` consecutive words of some texts, hashed."""

    length: int
    hashes: frozenset[bytes]

    @classmethod
    def build(cls, texts: Iterable[str], length: int) -> "WordRuns":
        """Collects the runs of every text. Case and punctuation do not count."""
        return cls(length=length, hashes=frozenset(run for text in texts for run in _runs(text, length)))

    def shared_with(self, text: str) -> bool:
        """Tells whether a text contains one of the runs."""
        return any(run in self.hashes for run in _runs(text, self.length))


def _runs(text: str, length: int) -> Iterable[bytes]:
    words = normalised_words(text)
    for start in range(len(words) - length + 1):
        yield blake2b(" ".join(words[start : start + length]).encode(), digest_size=8).digest()


def normalised_words(text: str) -> list[str]:
    """Returns the words of a text as they are compared, however a program wrote them.

    Compatible characters, characters written as HTML entities, upper and lower case and all apostrophes are
    equal; names of tags, characters that nobody sees and the points of Hebrew and Arabic are left out.
    """
    plain = JOINERS.sub("", _MARKUP.sub(" ", unescape(text)))
    seen = UNSEEN.sub(lambda match: " " if match[0].isspace() else "", plain)
    return words_of(_STROKES.sub("", unicodedata.normalize("NFKC", seen.translate(_SAME_SIGN))).casefold())


def words_alone(text: str) -> str:
    """Returns a text without case, punctuation and layout; one that holds no word stays as it is."""
    return " ".join(normalised_words(text)) or text


def digest_of(texts: Sequence[str]) -> str:
    """Returns a digest of a set of texts: of their words, whatever their order and layout."""
    words = sorted(" ".join(words_of(text)) for text in texts)
    return blake2b("\n".join(words).encode(), digest_size=16).hexdigest()
