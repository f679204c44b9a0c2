"""The audit on one page: check the split, attack, judge."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rpsg.audit.aggregation import aggregation
from rpsg.audit.auxiliary import THOROUGH, AuxiliarySettings
from rpsg.audit.control import check_split
from rpsg.audit.copying import TESTED_RUN, VERBATIM, VERBATIM_RUNS, copying
from rpsg.audit.description import description
from rpsg.audit.disclosure import disclosure
from rpsg.audit.extraction import extraction
from rpsg.audit.finding import Finding, Game
from rpsg.audit.linkage import linkage, other_models
from rpsg.audit.membership import membership_findings, membership_scores
from rpsg.audit.own import KnownRuns
from rpsg.audit.pii_replay import TELLING, pii_replay
from rpsg.audit.pool import Pool
from rpsg.audit.result import Audit
from rpsg.audit.verdict import ALPHA, MIN_UNITS, judge
from rpsg.text import digest_of, normalised_words
from rpsg.types import Embedder

# A release of fewer says too little of anybody for "nothing was found" to mean something.
MIN_RELEASED = 20

# Known words that somebody wrote so that they are found nowhere: spaces taken out, letters of other alphabets
# that look the same. A microgram or a long address is neither.
_LONGEST = 40
_LOOK_ALIKE = str.maketrans(
    "\u0430\u0251\u03b1\u0435\u0456\u0131\u043e\u03bf\u0585\u0440\u0441\u0443\u0445\u0455\u0458",
    "aaaeiiooopcyxsj",
)
_MAX_ODD = 0.01

FIXED_SPLIT = (
    "members and non-members are a random split of fixed sizes, so a bound on epsilon is one of replacing a "
    "unit, not of adding or removing one"
)
_BY_CHANCE = (
    "words alone tell the two sides apart (p < 0.01), though a coin made them: that happens once in a "
    "hundred splits, and the tests allow for it; another split would tell more"
)
_REST: tuple[tuple[str, Callable[[Game], tuple[Finding, ...]]], ...] = (
    ("copied runs", copying),
    ("disclosure", disclosure),
    ("private details", pii_replay),
    ("extraction", extraction),
    ("aggregation", aggregation),
    ("description", description),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """How hard to try.

    Attributes:
        thorough: larger language models, more references and neighbours; no limit of time.
        language_models: whether to run the attacks with language models at all.
        embedders: local models for the nearest-text attack, and for linkage where the release was not chosen
            by them.
        generator: name of the embedder that the release was chosen by, where that is known.
    """

    thorough: bool = False
    language_models: bool = True
    embedders: tuple[Embedder, ...] = field(default=())
    generator: str = ""

    @property
    def auxiliary(self) -> AuxiliarySettings | None:
        """Size of the attacks with language models."""
        if not self.language_models:
            return None
        return THOROUGH if self.thorough else AuxiliarySettings()


def audit(
    game: Game,
    settings: AuditSettings | None = None,
    *,
    pairs: Mapping[int, int] | None = None,
    notes: Sequence[str] = (),
    drawn: bool = False,
    on_progress: Callable[[str], None] = lambda name: None,
) -> Audit:
    """Attacks a release.

    Args:
        game: members, non-members, the release.
        settings: how hard to try.
        pairs: row of a released text to row of the member text it was written from, where that is known.
        notes: carried into the result.
        drawn: rpsg itself split the data by a secret coin; see `check_split`.
        on_progress: told the name of each step before it begins.

    Raises:
        DataError: the two sides overlap, are too small, or differ by more than chance.
    """
    settings = settings or AuditSettings()
    clock = _Clock(on_progress)
    clock.begin("control")
    pool = Pool.of(game)
    control = check_split(pool, drawn=drawn)
    scores = membership_scores(
        pool, game, embedders=settings.embedders, auxiliary=settings.auxiliary, on_progress=clock.begin
    )
    clock.begin("significance")
    findings: list[Finding] = [*membership_findings(pool, scores)]
    for name, attack in _REST:
        clock.begin(name)
        findings += attack(game)
    if pairs:
        clock.begin("linkage")
        findings += linkage(
            game,
            pairs,
            generator=settings.generator,
            embedders=other_models(settings.embedders, settings.generator),
        )
    findings.sort(key=lambda item: not item.decides)
    return Audit(
        verdict=judge(
            findings,
            n_members=pool.n_members,
            n_nonmembers=pool.n_nonmembers,
            blind=[*_blind(game), *_doubts(findings)],
        ),
        control=control,
        findings=tuple(findings),
        n_members=pool.n_members,
        n_nonmembers=pool.n_nonmembers,
        n_synthetic=len(game.synthetic),
        texts_digest=digest_of(game.synthetic),
        relation=FIXED_SPLIT,
        seconds=clock.end(),
        seed=game.seed,
        notes=(*notes, *([_BY_CHANCE] if control.is_biased else [])),
    )


class _Clock:
    """Times steps, and passes their names on."""

    def __init__(self, on_progress: Callable[[str], None]) -> None:
        self._tell = on_progress
        self._began: list[tuple[str, float]] = []

    def begin(self, name: str) -> None:
        self._tell(name)
        self._began.append((name, time.perf_counter()))

    def end(self) -> dict[str, float]:
        ends = [*(at for _, at in self._began[1:]), time.perf_counter()]
        return {name: end - at for (name, at), end in zip(self._began, ends, strict=True)}


def _blind(game: Game) -> list[str]:
    """Says what keeps the attacks from seeing a leak."""
    # Copies are seen by runs of words that one unit alone has. A text without any hides them: a short one,
    # one in a script without spaces, and one that hardly differs from another person's.
    said, known = [], KnownRuns.of(game)
    seen = known.units_with_own(TESTED_RUN)
    n_seen = min(int((seen < known.units.n_members).sum()), int((seen >= known.units.n_members).sum()))
    if n_seen < MIN_UNITS:
        said.append(
            f"only {n_seen} units of a side have {TESTED_RUN} words in a row, with spaces between them, that "
            "nobody else has; of others no copy can be seen"
        )
    copied = known.units.count(known.texts_with(known.owners(TESTED_RUN) >= 0))
    p_swapped = copied.mirrored.p_value()
    if p_swapped is not None and p_swapped < ALPHA:
        said.append(
            f"words of non-members come back more often than members' ({copied.nonmembers} against "
            f"{copied.members} units, p = {p_swapped:.2g}): the release was made from the non-members, or "
            "the two files were exchanged"
        )
    n_partners = known.units.n_partners
    if n_partners < MIN_UNITS:
        said.append(
            f"only {n_partners} units of a side have as many texts as a unit of the other side; tests "
            f"compare such units alone, and {MIN_UNITS} are the least"
        )
    n_common = len(known.shared_with_release(VERBATIM))
    if n_common:
        said.append(
            f"the release has {VERBATIM} words in a row of {n_common} members that others have too: a set "
            "phrase (name it with --public), or texts that stand nearly the same in two places, whose copies "
            "no test can see; remove near duplicates"
        )
    return [*said, *(too_few_texts(game.synthetic) or _hidden_words(game))]


def _doubts(findings: Sequence[Finding]) -> list[str]:
    """Names what came back of members and cannot be told from chance: neither a leak nor nothing."""
    said = {
        VERBATIM_RUNS: f"{VERBATIM} words in a row of their own",
        TELLING: "an address or a number of their own",
    }
    return [
        f"the release has {said[item.attack]} of {item.value:.0f} members and of {item.control or 0:.0f} "
        "non-members: too few, or too alike, to tell a leak from what is known elsewhere"
        for item in findings
        if item.attack in said and not item.is_leak and _is_doubtful(item.attack, item.value, item.control)
    ]


def _is_doubtful(attack: str, members: float | None, others: float | None) -> bool:
    # One helpline's number is no reason to say nothing of a release.
    n_members, n_others = members or 0, others or 0
    return n_members > 0 if attack == VERBATIM_RUNS else n_members > max(1, n_others)


def too_few_texts(synthetic: Sequence[str]) -> list[str]:
    """Says what a release is too small for, if it is."""
    if len(synthetic) < MIN_RELEASED:
        return [f"{len(synthetic)} released texts; {MIN_RELEASED} are the least that attacks can work on"]
    whole = {words for text in synthetic if len(words := tuple(normalised_words(text))) >= TESTED_RUN}
    if len(whole) < MIN_RELEASED:
        return [
            f"only {len(whole)} different released texts have {TESTED_RUN} words; {MIN_RELEASED} are the "
            "least that attacks can work on. Is it the right file and column?"
        ]
    return []


def _hidden_words(game: Game) -> list[str]:
    n_odd = _count_disguised(game)
    if n_odd > _MAX_ODD * len(game.synthetic):
        return [
            f"{n_odd} released texts have words of known texts with the spaces taken out, with spaces "
            "between letters, or with letters of other alphabets that look the same: copies in them cannot "
            "be seen"
        ]
    return []


def _count_disguised(game: Game) -> int:
    """Counts the released texts with a word that is a known one, or several, in disguise."""
    known = [normalised_words(text) for text in (*game.members, *game.nonmembers)]
    vocabulary = {word for words in known for word in words}
    together = "\n".join("".join(words) for words in known)

    def is_disguised(word: str) -> bool:
        if word in vocabulary:
            return False
        return word.translate(_LOOK_ALIKE) in vocabulary or (
            len(word) > _LONGEST and word[:_LONGEST] in together
        )

    spelt_out = _is_spelt_out if not any(map(_is_spelt_out, known)) else lambda words: False
    released = map(normalised_words, game.synthetic)
    return sum(spelt_out(words) or any(map(is_disguised, words)) for words in released)


def _is_spelt_out(words: list[str]) -> bool:
    return sum(len(word) == 1 for word in words) > len(words) / 2
