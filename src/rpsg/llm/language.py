"""Which language a text is in."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Below this many words, or this probability, the guess is not worth acting on.
_MIN_WORDS = 8
_MIN_PROBABILITY = 0.9


def detect_languages(texts: Sequence[str]) -> list[str]:
    """Returns an ISO 639-1 code a text, or "" where the detector cannot tell."""
    return [_detect(text) for text in texts]


def _detect(text: str) -> str:
    if len(text.split()) < _MIN_WORDS:
        return ""
    language, probability = _identifier().classify(text)
    return str(language) if probability >= _MIN_PROBABILITY else ""


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
