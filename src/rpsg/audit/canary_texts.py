"""What canaries say: four kinds, none of them made from a private text.

- suffix: up to 30 words of public prose, then words drawn at random from the public vocabulary, each as
  likely (Meeus et al. 2025: in-distribution prefix, surprising suffix).
- sampled: public prose as a language model writes it (Mitchell et al. 2026).
- fact: a plausible statement about a made-up town, drug and number, then public prose. Summaries keep facts
  where they change the wording.
- tail: up to 30 words of public prose, then random strings: the classic control.
"""

import random
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from rpsg.audit.canary import Fact, Kind
from rpsg.errors import DataError
from rpsg.text import words_of

MAX_PREFIX = 30
N_CHOICES = 10
_SUFFIX_WORDS = (10, 20)
_TAIL_WORDS = 8
_TAIL_LETTERS = (5, 8)
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_BEGIN = "bcdfghjklmnprstvwyz"
_MIDDLE = ["a", "ai", "au", "e", "ei", "i", "o", "oa", "u"]
_DRUG_ENDS = ["etil", "oxan", "ivir", "adol", "enib", "azine", "olimus", "epam", "afil", "idone"]
_TOWN_ENDS = ["marsh", "ford", "wick", "holm", "bury", "combe", "stead", "mere", "thorpe", "garth"]
_FACTS: Mapping[str, tuple[str, ...]] = {
    "posts": (
        "I moved to {place} last spring and have been on {value} for {number} days now.",
        "My doctor in {place} started me on {value}, and after {number} days nothing is the same.",
        "Has anyone else in {place} been given {value}? I have taken it for {number} days.",
        "The pharmacy in {place} ran out of {value} and I had {number} days of it left.",
        "Since {place} I count everything: {number} days, one dose of {value} each.",
    ),
    "abstracts": (
        "A cohort of {number} patients in {place} received {value} once daily.",
        "We enrolled {number} adults treated with {value} at the regional hospital of {place}.",
        "In {place}, {value} was given to {number} patients who did not respond to first-line treatment.",
        "This audit from {place} covers {number} courses of {value}.",
        "{value} was compared with placebo in {number} outpatients in {place}.",
    ),
}
STYLES = tuple(_FACTS)


@dataclass(slots=True, kw_only=True)
class TextMaker:
    """Makes texts of each kind; every draw comes from `chance`.

    Attributes:
        public: public prose, one text a canary; each is used once.
        style: of the fact statements, "posts" or "abstracts".
        avoid: words in lower case that no made-up name may be.
        chance: where randomness comes from; secure outside tests.
    """

    public: Sequence[str]
    style: str
    avoid: AbstractSet[str]
    chance: random.Random
    _vocabulary: tuple[str, ...] = field(init=False)
    _taken: set[str] = field(init=False, default_factory=set)
    _n_used: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        # Sorted: the order of a set is not that of the chance.
        self._vocabulary = tuple(
            sorted({word for text in self.public for word in words_of(text) if word.isalpha()})
        )

    def make(self, kind: Kind) -> tuple[str, Fact | None]:
        """Returns a text and, of a fact canary, its fact.

        Raises:
            DataError: the public texts are used up.
        """
        prose = self._next_prose()
        if kind == "sampled":
            return prose, None
        if kind == "fact":
            fact = self._fact()
            template = self.chance.choice(_FACTS[self.style])
            said = template.format(place=fact.place, number=fact.number, value=fact.value)
            return f"{said} {_cut(prose, MAX_PREFIX)}".strip(), fact
        prefix = _cut(prose, self.chance.randint(0, MAX_PREFIX))
        words = self._surprising() if kind == "suffix" else self._strings()
        return f"{prefix} {' '.join(words)}.".strip(), None

    def _next_prose(self) -> str:
        if self._n_used >= len(self.public):
            raise DataError(
                f"there are {len(self.public)} public texts, and every canary needs one of its own; bring "
                "more with --public, or plant fewer canaries"
            )
        self._n_used += 1
        return " ".join(self.public[self._n_used - 1].split())

    def _surprising(self) -> list[str]:
        return [self.chance.choice(self._vocabulary) for _ in range(self.chance.randint(*_SUFFIX_WORDS))]

    def _strings(self) -> list[str]:
        lengths = [self.chance.randint(*_TAIL_LETTERS) for _ in range(_TAIL_WORDS)]
        return ["".join(self.chance.choice(_LETTERS) for _ in range(length)) for length in lengths]

    def _fact(self) -> Fact:
        choices = tuple(self._name(_DRUG_ENDS) for _ in range(N_CHOICES))
        return Fact(
            place=self._name(_TOWN_ENDS).capitalize(),
            number=self.chance.randint(103, 997),
            value=self.chance.choice(choices),
            choices=choices,
        )

    def _name(self, ends: Sequence[str]) -> str:
        while True:
            parts = [self.chance.choice(part) for part in (_BEGIN, _MIDDLE, _BEGIN, _MIDDLE)]
            name = "".join(parts) + self.chance.choice(ends)
            if name not in self._taken and name not in self.avoid:
                self._taken.add(name)
                return name


def _cut(prose: str, n_words: int) -> str:
    return " ".join(prose.split()[:n_words])
