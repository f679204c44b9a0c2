"""End-to-end differential privacy from private seeds, on one page: keys, texts, votes, release.

Theorem. Keys are mu_B-GDP (`rpsg.stages.keys`). A vote counts, for candidates that are functions of earlier
releases and public inputs, each unit's nearest ones, clipped to L2 norm 1, so T rounds add T / sigma^2. The
whole output is mu-GDP with mu^2 = mu_B^2 + T / sigma^2, plus the delta of thresholded keys (specification,
sections 3.2 and 3.3). T, n and the stopping rule are fixed in advance; what follows a release reads the
release and public inputs only, so the writing model may be remote.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from rpsg import data
from rpsg.audit.canary_mark import holds_canaries
from rpsg.config import RunConfig
from rpsg.errors import ConfigError
from rpsg.judging import judge
from rpsg.llm.surrogate import Surrogate, SurrogateSettings
from rpsg.plan import CALIBRATION_MAX, CALIBRATION_MIN, CALIBRATION_SHARE, Plan
from rpsg.plan_keys import Histogram, KeysPlan, noise_floor, plan_keys
from rpsg.privacy import budget
from rpsg.privacy.events import PrivacyEvent
from rpsg.privacy.mechanisms import ThresholdedKeys
from rpsg.privacy.noise import NoiseSource
from rpsg.privacy.plain import PaidTexts
from rpsg.public import build_topics
from rpsg.release import publish
from rpsg.result import RunResult
from rpsg.rundir import RunDir
from rpsg.session import Session, open_session
from rpsg.stages.herding import rank_by_herding
from rpsg.stages.keys import (
    ReleasedKeys,
    above,
    cell_rows,
    extract_keys,
    histogram_rows,
)
from rpsg.stages.refine import PrivateContext, Refinery, UsualTexts
from rpsg.stages.vote import cast_votes, floor_diversity
from rpsg.stored import units_of
from rpsg.text import is_usable
from rpsg.types import Candidate, PrivateCorpus, Progress, SyntheticText
from rpsg.writing import FIRST, Writer, describe_inputs, vary_survivors

PAID_NOTE = "written from the releases above and public inputs"
_PUBLIC_NOTE = "written from public inputs alone"
_HALF = SurrogateSettings(tokens=200_000)  # two share the training of one


def run_end_to_end(
    config: RunConfig,
    corpus: PrivateCorpus,
    *,
    on_progress: Callable[[Progress], None],
    noise: NoiseSource | None,
) -> RunResult:
    """Turns private texts into a replica that is differentially private as a whole; see `pipeline.run`."""
    planned = plan_keys(config, has_labels=bool(corpus.label_columns))
    # A run belongs to its public file too: counts drawn for the words of one say nothing of another's.
    digest = planned.material.sha256 if planned.material is not None else ""
    folder = RunDir.create(
        Path(str(config.output.folder)),
        config,
        fingerprint=data.fingerprint(corpus),
        public=digest,
        contains_canaries=holds_canaries(config, corpus),
    )
    with open_session(config, folder, on_progress, noise=noise) as session:
        check_material(session, planned)
        notes = settle(session, corpus, planned.events())
        keys = release_keys(session, corpus, planned) if planned.releases() else None
        write = Writer(session, planned, keys, corpus.label_columns)
        ranked = vote_in_rounds(session, corpus, write(planned.n_candidates, FIRST), planned)
        texts, filter_notes = refine_and_release(session, ranked, write)
        result = publish(session, corpus, sizes_of(config), texts, notes=(*notes, *filter_notes))
        return judge_by_halves(session, corpus, result)


def judge_by_halves(session: Session, corpus: PrivateCorpus, result: RunResult) -> RunResult:
    """Scores a release; what it is compared with is a random part of the data, which was used too."""
    real, holdout = data.split_calibration(
        corpus,
        share=CALIBRATION_SHARE,
        at_most=CALIBRATION_MAX,
        key=session.streams.key("scores").to_bytes(8),
    )
    return judge(session, result, real=real.records, holdout=holdout.records)


def settle(session: Session, corpus: PrivateCorpus, events: Sequence[PrivacyEvent]) -> list[str]:
    """Charges the run to its data's budgets before anything is drawn; returns notes for the operator."""
    if not events:
        return []
    run_id = session.folder.run_id
    if session.config.outside_budget:
        # Whether this run is charged is a public setting; how many were not depends on who is in the data.
        session.n_outside = 1
        n_outside = budget.note_outside(corpus, run_id)
    else:
        n_outside = budget.charge(corpus, run_id, events)
    if not n_outside:
        return []
    return [f"read from your data: {n_outside} run(s) on these people are outside their budget"]


def check_material(session: Session, planned: KeysPlan) -> None:
    """Refuses a public file of another embedder.

    Raises:
        ConfigError: its name or dimension is not that of the run's embedder.
    """
    if planned.material is None:
        return
    embedder, file = session.models.embedder, session.config.keys.public
    dimension = embedder.embed(["a"]).shape[1]
    if (planned.material.embedder, planned.material.centroids.shape[1]) != (embedder.name, dimension):
        raise ConfigError(
            f"keys.public: {file} was built with embedder {planned.material.embedder!r}, dimension "
            f"{planned.material.centroids.shape[1]}, and the run embeds with {embedder.name!r}, dimension "
            f"{dimension}; build it again with: rpsg public build CONFIG"
        )


def sizes_of(config: RunConfig) -> Plan:
    """Returns the sizes of an end-to-end run, none of which depends on the data."""
    n = config.n or 0
    return Plan(n_records=0, n_calibration=0, n_pool=0, n_wanted=n, n_seeds=0, filters_on=False)


# --- reads private text, gives out noisy histograms -------------------------------------------------


def release_keys(session: Session, corpus: PrivateCorpus, planned: KeysPlan) -> ReleasedKeys:
    """Computes each unit's keys on its own and releases their noisy histograms."""
    public = planned.material or build_topics(session, n_topics=planned.n_topics)
    session.public_inputs = describe_inputs(public.provenance, planned, session.config)
    private_keys = extract_keys(
        corpus.records,
        vectors=session.embed_records(corpus.records),
        tones=session.judge_tones(corpus.records),
        centroids=public.centroids,
        max_phrases=session.config.keys.max_phrases,
        salt=session.streams,
        vocabulary=planned.vocabulary,
        label_values=planned.label_values,
    )
    topics: object = [1.0]
    if planned.topics is not None:
        private_topics = histogram_rows(private_keys.topics)
        # Where no public file holds them they are made of texts that the model wrote.
        topics = session.ledger.release("topics", planned.topics, private_topics, of=[public.provenance])
    assert planned.facets is not None
    facets = session.ledger.release("facets", planned.facets, histogram_rows(private_keys.facets))
    labels = _release_cells(session, "labels", planned.labels, private_keys.labels, planned.label_cells, 0.0)
    floor = noise_floor(planned.phrases) if planned.phrases is not None else 0.0
    phrases = _release_cells(
        session, "phrases", planned.phrases, private_keys.phrases, planned.phrase_cells, floor
    )
    session.tell("keys", 1, 1)
    return ReleasedKeys(
        topics=cast("Sequence[float]", topics),
        facets=cast("Sequence[float]", facets),
        labels=labels,
        phrases=phrases,
    )


def _release_cells(
    session: Session,
    label: str,
    mechanism: Histogram | None,
    private_held: Mapping[str, Sequence[str]],
    cells: Sequence[str],
    floor: float,
) -> Mapping[str, float]:
    """Releases the keys that many people hold, or a histogram of public cells; cells above a floor count."""
    if mechanism is None:
        return {}
    if isinstance(mechanism, ThresholdedKeys):
        return cast("Mapping[str, float]", session.ledger.release(label, mechanism, private_held))
    noisy = session.ledger.release(label, mechanism, cell_rows(private_held, cells))
    return above(cells, cast("Sequence[float]", noisy), floor)


def vote_in_rounds(
    session: Session, corpus: PrivateCorpus, candidates: Sequence[Candidate], planned: KeysPlan
) -> list[Candidate]:
    """Lets every unit vote for its nearest candidates, T rounds; returns the last round's, the best first."""
    ranked = list(candidates)
    for number, mechanism in enumerate(planned.votes, start=1):
        if number > 1:
            ranked = vary_survivors(session, ranked, planned.n_candidates, round_name=f"round {number}")
        usable = [i for i, item in enumerate(ranked) if is_usable(item.text)]
        vectors = session.models.embedder.embed([ranked[i].text for i in usable])
        private_votes = cast_votes(
            session.embed_records(corpus.records),
            [{}] * len(corpus),
            units_of(corpus.records),
            vectors=vectors,
            classes=[""] * len(usable),
            device=session.config.generation.device,
        )
        private_rows = floor_diversity(private_votes.among(usable))
        counts = cast(
            "Sequence[float]",
            session.ledger.release(
                f"vote {number}", mechanism, private_rows, of=[item.text for item in ranked]
            ),
        )
        session.tell(f"vote {number}", 1, 1)
        order = rank_by_herding([counts[i] for i in usable], vectors, noise=mechanism.noise_multiplier)
        # What cannot be released stands last, whatever noise it was given.
        left = sorted(set(range(len(ranked))) - set(usable))
        ranked = [ranked[i] for i in (*(usable[i] for i in order), *left)]
    return ranked


# --- reads ledger outputs and public inputs only ----------------------------------------------------


def refine_and_release(
    session: Session, ranked: Sequence[Candidate], write: Writer
) -> tuple[tuple[SyntheticText, ...], tuple[str, ...]]:
    """Releases the first `n` candidates by rank that pass the filters, and says which filters were off."""
    usual, notes = _usual_texts(session, ranked)
    return release_paid(session, refine_ranked(session, ranked, write, usual=usual)), notes


def refine_ranked(
    session: Session,
    ranked: Sequence[Candidate],
    write: Callable[[int, str], list[Candidate]],
    *,
    usual: UsualTexts | None = None,
) -> list[Candidate]:
    """Filters by what synthetic and public text shows, and returns the first `n` by rank.

    Args:
        session: the open run.
        ranked: candidates, the best first.
        write: writes more, of earlier releases and public inputs, when the ranks are used up.
        usual: a filter by likelihood among synthetic texts.
    """
    wanted = session.config.n or 0
    refinery = public_refinery(session)
    accepted: list[Candidate] = []
    waiting = list(ranked)
    for number in range(session.config.refine.refill_rounds + 1):
        if number:
            waiting = write(2 * (wanted - len(accepted)), f"refill {number}")
        usable = [item for item in waiting if is_usable(item.text)]
        if usual is not None:
            usable, rejected = usual.keep(usable)
            session.reject(rejected)
        more, rejected = refinery.refine(usable)
        session.reject(rejected)
        accepted += more
        if len(accepted) >= wanted:
            break
    session.counts["texts accepted"] = len(accepted)
    return accepted[:wanted]


def release_paid(
    session: Session, accepted: Sequence[Candidate], *, reason: str = "written from noisy keys"
) -> tuple[SyntheticText, ...]:
    """Releases texts that are a function of earlier releases and public inputs."""
    note = _PUBLIC_NOTE if session.config.epsilon == 0 else PAID_NOTE
    released = session.ledger.release("texts", PaidTexts(reason=reason), accepted, note=note)
    return cast("tuple[SyntheticText, ...]", released)


def _usual_texts(
    session: Session, candidates: Sequence[Candidate]
) -> tuple[UsualTexts | None, tuple[str, ...]]:
    if not session.config.refine.nll.enabled:
        return None, ()
    usable = [item for item in candidates if is_usable(item.text)]
    if len(usable) < CALIBRATION_MIN:
        note = f"likelihood filter is off: it needs {CALIBRATION_MIN} candidates, and there are {len(usable)}"
        return None, (note,)
    session.tell("prepare filters", 0, 1)
    train = partial(Surrogate.train, seed=session.streams.key("surrogate") % 2**31, settings=_HALF)
    usual = UsualTexts.measure(usable, train=train, quantile=session.config.refine.nll.quantile)
    session.tell("prepare filters", 1, 1)
    return usual, ()


def public_refinery(session: Session) -> Refinery:
    """Returns the filters that read synthetic texts and public models only."""
    off = {"enabled": False}
    config = session.config.refine
    changes = {
        "similarity": config.similarity.model_copy(update=off),
        "nll": config.nll.model_copy(update=off),
    }
    public_only = config.model_copy(update=changes)
    return Refinery(
        PrivateContext.nothing(),
        config=public_only,
        embedder=session.models.embedder,
        surrogate=None,
        pii=session.models.pii,
        languages=session.config.models.languages,
        streams=session.streams,
    )
