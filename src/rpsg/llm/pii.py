"""Finds personal details with Presidio, spaCy and the project's own recognisers, without any network."""

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rpsg.errors import ModelUnavailable
from rpsg.llm.name_recognizers import find_names, tokens
from rpsg.llm.recognizers import Words, find_contacts, read_words
from rpsg.types import PiiSpan, Trust

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine
    from spacy.language import Language

PII_TYPES = (
    "EMAIL", "URL", "PHONE", "ADDRESS", "USERNAME", "ID", "IP", "ORG", "PERSON", "DATE_OF_BIRTH", "POSTCODE",
    "LOCATION", "AGE",
)  # fmt: skip
"""Every type a span can have; where spans overlap, the earlier type wins."""

_PRESIDIO_TYPES = {"EMAIL_ADDRESS": "EMAIL", "IP_ADDRESS": "IP", "CREDIT_CARD": "ID", "IBAN_CODE": "ID"}
_SPACY_TYPES = {"PERSON": "PERSON", "ORGANIZATION": "ORG", "LOCATION": "LOCATION"}
_SPACY_LABELS = {
    "PERSON": "PERSON",
    "ORG": "ORGANIZATION",
    "FAC": "ORGANIZATION",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
}
_NAME_LOCALES = (
    "en", "en_US", "en_GB", "en_NZ", "en_IN", "en_IE", "en_NG", "en_PK", "es_MX", "es_ES", "fr_FR", "de_DE",
    "it_IT", "pl_PL", "ga_IE", "yo_NG", "tw_GH", "ja_JP", "nl_NL",
)  # fmt: skip
_TAG = re.compile(r"\[(?:" + "|".join(PII_TYPES) + r")\]")
_BATCH = 64
# spaCy takes signs off a word one by one, each time reading all of it: minutes for fifty thousand signs.
_LONG_WORD = re.compile(r"\S{200,}")


class PresidioDetector:
    """Personal details in English text; see `PII_TYPES`.

    A country, a public programme, a bare year, an amount of money and a partial date are kept.
    """

    name = "presidio-en"
    trust: Trust = "local"

    def __init__(self, spacy_dir: Path) -> None:
        """Loads the spaCy model.

        Args:
            spacy_dir: folder of an English spaCy pipeline with an entity recogniser.

        Raises:
            ModelUnavailable: the folder is missing or holds no spaCy pipeline.
        """
        nlp = _load_spacy(spacy_dir)
        self._words = _load_words(nlp)
        self._engine = _nlp_engine(nlp)
        self._analyzer = _analyzer(self._engine)

    def find(self, texts: Sequence[str]) -> list[list[PiiSpan]]:
        """Returns the spans of each text, sorted and not overlapping."""
        shown = [_LONG_WORD.sub(_part_long_word, text) for text in texts]
        batch = self._engine.process_batch(shown, language="en", batch_size=_BATCH)
        return [self._find_one(text, output[1]) for text, output in zip(texts, batch, strict=True)]

    def _find_one(self, text: str, artifacts: "NlpArtifacts") -> list[PiiSpan]:
        spans = [
            *find_contacts(text, self._words),
            *find_names(text, self._words),
            *_from_spacy(text, artifacts, self._words),
            *self._from_presidio(text, artifacts),
        ]
        spans = merge_spans(text, spans)
        spans = merge_spans(text, [*spans, *_repeats(text, spans, self._words)])
        tags = [match.span() for match in _TAG.finditer(text)]
        return [span for span in spans if not any(span.start < b and a < span.end for a, b in tags)]

    def _from_presidio(self, text: str, artifacts: "NlpArtifacts") -> Iterator[PiiSpan]:
        for found in self._analyzer.analyze(
            text, language="en", entities=list(_PRESIDIO_TYPES), nlp_artifacts=artifacts, score_threshold=0.4
        ):
            kind = _PRESIDIO_TYPES[found.entity_type]
            yield PiiSpan(start=found.start, end=found.end, type=kind, score=float(found.score))


def _part_long_word(word: re.Match[str]) -> str:
    # As many characters as before: places in the text stay what they are.
    return re.sub(r"(\S{29})\S", r"\1 ", word[0])


def merge_spans(text: str, spans: Iterable[PiiSpan]) -> list[PiiSpan]:
    """Returns sorted, disjoint spans.

    The earlier type of `PII_TYPES` wins, then the longer span; what a losing span covers beyond the
    winners is kept as a span of its own, so that no part of a found detail is lost.
    """
    order = {kind: i for i, kind in enumerate(PII_TYPES)}
    kept: list[PiiSpan] = []
    for span in sorted(spans, key=lambda s: (order[s.type], s.start - s.end, -s.score, s.start)):
        for start, end in _minus(span, kept):
            piece = _strip(text, start, end)
            if piece and (piece == (span.start, span.end) or span.type in {"PERSON", "ORG"}):
                kept.append(PiiSpan(start=piece[0], end=piece[1], type=span.type, score=span.score))
    return sorted(kept, key=lambda s: s.start)


def _minus(span: PiiSpan, kept: Sequence[PiiSpan]) -> list[tuple[int, int]]:
    pieces = [(span.start, span.end)]
    for other in kept:
        cut: list[tuple[int, int]] = []
        for start, end in pieces:
            if other.end <= start or end <= other.start:
                cut.append((start, end))
                continue
            cut += [(a, b) for a, b in ((start, other.start), (other.end, end)) if a < b]
        pieces = cut
    return pieces


def _strip(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Cuts blanks and punctuation off both ends; nothing is left of a piece without two letters or digits."""
    value = text[start:end]
    core = value.strip(" \t\r\n.,;:!?\"“”'‘’-–—")
    if sum(c.isalnum() for c in core) < 2:
        return None
    keep = value if re.match(r"[(@+\w]", value) and re.search(r"[\w)]$", value) else core
    offset = value.index(keep)
    return start + offset, start + offset + len(keep)


def _repeats(text: str, spans: Sequence[PiiSpan], words: Words) -> Iterator[PiiSpan]:
    """Yields the other places where a found name stands, such as a surname alone."""
    for span in spans:
        value = text[span.start : span.end]
        if span.type == "PERSON":
            parts = {part for part in value.split() if len(part) > 2 and part[0].isupper()}
            parts = {p for p in parts if p.casefold() not in words.known or p.casefold() in words.given}
        elif span.type in {"USERNAME", "ID", "ORG"} and len(value) > 4:
            parts = {value}
        else:
            continue
        for part in parts:
            for match in re.finditer(rf"(?<!\w){re.escape(part)}(?!\w)", text):
                yield PiiSpan(start=match.start(), end=match.end(), type=span.type, score=span.score)


def _from_spacy(text: str, artifacts: "NlpArtifacts", words: Words) -> Iterator[PiiSpan]:
    for entity in artifacts.entities:
        kind = _SPACY_TYPES.get(entity.label_)
        start, end = entity.start_char, entity.end_char
        value = text[start:end]
        if kind and _plausible(kind, value, text[max(0, start - 8) : start], words):
            yield PiiSpan(start=start, end=end, type=kind, score=0.5)


def _plausible(kind: str, value: str, before: str, words: Words) -> bool:
    """Returns whether a model's entity looks like a name: capitalised, not ordinary, not what all share."""
    parts = tokens(value)
    if not parts or "\n" in value or not all(w[0].isupper() for w in value.split() if w[0].isalpha()):
        return False
    if any(part in words.public for part in parts) or all(part in words.generic for part in parts):
        return False
    if any(c.isdigit() for c in value) or value.isupper():
        return False
    if kind == "LOCATION":
        return _plausible_place(value, before, words)
    if kind == "ORG":
        return len(parts) > 1 and parts[-1] in words.org_endings
    given = parts[0] in words.given and parts[0] not in words.not_names
    return given or (len(parts) > 1 and not any(part in words.known for part in parts))


def _plausible_place(value: str, before: str, words: Words) -> bool:
    if all(part in words.countries for part in tokens(value)):
        return False
    if not all(re.fullmatch(r"[^\W\d_][^\W\d_A-Z]+", word) for word in re.split(r"[ -]", value.rstrip("."))):
        return False
    # The vocabulary holds the words of its training text as they were written there: a place in the
    # news stands there with its capital, a drug at the start of a sentence does not.
    after_place_word = re.search(r"\b(?:[Ii]n|[Nn]ear|[Aa]round|[Ff]rom|[Oo]utside)\s$", before) is not None
    return " " in value or value in words.known or after_place_word


def _load_words(nlp: "Language") -> Words:
    # A copy: the model's own vocabulary grows with every text it reads, which would make a text's
    # spans depend on the texts before it.
    known = frozenset(nlp.vocab.strings)
    return Words(
        known=known,
        given=_given_names(known),
        not_names=read_words("not_names"),
        public=read_words("public_names"),
        generic=read_words("generic_words") | nlp.Defaults.stop_words,
        org_endings=read_words("org_endings"),
        org_endings_lower=read_words("org_endings_lower"),
        org_beginnings=read_words("org_beginnings"),
        streets=read_words("street_words"),
        streets_capitalised=read_words("street_words_capitalised"),
        countries=read_words("countries"),
    )


def _given_names(known: frozenset[str]) -> frozenset[str]:
    names: set[str] = set()
    for locale in _NAME_LOCALES:
        provider = import_module(f"faker.providers.person.{locale}").Provider
        found = set(getattr(provider, "first_romanized_names", provider.first_names))
        # The largest list holds every word that was once a name in a census ("Lawyer", "Loyal").
        names |= {n for n in found if n.casefold() not in known or n in known} if locale == "en" else found
    return frozenset(name.casefold() for name in names if len(name) > 2 and " " not in name)


def _load_spacy(spacy_dir: Path) -> "Language":
    import spacy

    if not (spacy_dir / "config.cfg").is_file():
        raise ModelUnavailable(
            f"no spaCy pipeline at {spacy_dir}: config.cfg is missing; "
            "name the folder of an installed English pipeline, for example en_core_web_sm"
        )
    try:
        return spacy.load(spacy_dir, exclude=["parser", "attribute_ruler", "lemmatizer"])
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"cannot load the spaCy pipeline at {spacy_dir}: {error}") from error


def _nlp_engine(nlp: "Language") -> "SpacyNlpEngine":
    """Wraps a loaded pipeline, so that Presidio neither loads nor downloads one."""
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine

    unused = ["CARDINAL", "EVENT", "LANGUAGE", "LAW", "MONEY", "ORDINAL", "PERCENT", "PRODUCT", "QUANTITY",
              "WORK_OF_ART", "DATE", "TIME", "NORP"]  # fmt: skip
    engine = SpacyNlpEngine(
        models=[{"lang_code": "en", "model_name": "loaded"}],
        ner_model_configuration=NerModelConfiguration(
            labels_to_ignore=unused, model_to_presidio_entity_mapping=_SPACY_LABELS
        ),
    )
    engine.nlp = {"en": nlp}  # type: ignore[assignment]  # Presidio declares it as None until load()
    return engine


def _analyzer(engine: "SpacyNlpEngine") -> "AnalyzerEngine":
    """Returns Presidio with the recognisers of `_PRESIDIO_TYPES` only."""
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
    )
    from tldextract import TLDExtract

    # Presidio asks the module-wide extractor, which downloads the list of suffixes and caches it on
    # disk; this one reads the copy inside its package.
    suffixes = TLDExtract(suffix_list_urls=(), fallback_to_snapshot=True, cache_dir=None)

    class OfflineEmailRecognizer(EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            return suffixes(pattern_text).fqdn != ""

    registry = RecognizerRegistry(
        recognizers=[OfflineEmailRecognizer(), CreditCardRecognizer(), IbanRecognizer(), IpRecognizer()],
        supported_languages=["en"],
    )
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
