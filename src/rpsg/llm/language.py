"""Which language a text is in."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Below this many words, or this probability, the guess is not worth acting on.
_MIN_WORDS = 8
_MIN_PROBABILITY = 0.9
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile(r"[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff]")
# ISO 639-2 for a language that nobody told.
UNKNOWN = "und"


def detect_languages(texts: Sequence[str]) -> list[str]:
    """Returns an ISO 639-1 code a text, or "" where the detector cannot tell.

    A text in another script than the Latin one is never English, however short: the detector's best guess
    stands for it, or "und". Chinese, Japanese and Thai have no spaces, so that words say nothing of length.
    """
    return [_detect(text) for text in texts]


def _detect(text: str) -> str:
    letters = len(_LETTER.findall(text))
    if letters > 2 * len(_LATIN.findall(text)):
        guess = str(_identifier().classify(text)[0])
        return UNKNOWN if guess == "en" else guess
    if len(text.split()) < _MIN_WORDS:
        return ""
    language, probability = _identifier().classify(text)
    return str(language) if probability >= _MIN_PROBABILITY else ""


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
