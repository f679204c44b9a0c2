"""AUG-PE (Xie et al., ICML 2024, arXiv 2403.01749) on one page: random, vote, select, vary; over and over.

Theorem. A vote counts, for candidates that are functions of earlier releases and public inputs, each unit's
nearest ones, clipped together to L2 norm 1; class counts likewise. So adding or removing one unit changes
each release by at most 1, and T votes are mu-GDP with mu^2 = 1 / sigma_c^2 + T / sigma^2 (specification,
section 2.2). The published code lets exact label counts decide how many texts each class gets and writes
un-noised votes to its log; here both go through the ledger, and nothing else is computed from private text.
"""

from collections.abc import Callable, Sequence

import numpy as np

from rpsg.config import RunConfig
from rpsg.end_to_end import judge_by_halves, refine_ranked
from rpsg.llm.prompting import PromptName, load_lines
from rpsg.methods import common
from rpsg.methods.augpe_api import check_prompts, write_random, write_variations
from rpsg.methods.augpe_plan import AugpePlan, plan_lines, solve, survivors_of
from rpsg.plan import Plan, PlannedLine
from rpsg.plan_calls import PlannedCalls, plan_task, prompt_tokens, reply_tokens
from rpsg.privacy.noise import NoiseSource
from rpsg.release import publish
from rpsg.result import RunResult
from rpsg.session import Session, open_session
from rpsg.stages.vote import cast_votes, class_name, floor_diversity
from rpsg.text import is_usable
from rpsg.types import Candidate, FloatArray, PrivateCorpus, Progress

_CHOSEN = "written from public prompts and chosen by votes"


def run(
    config: RunConfig,
    corpus: PrivateCorpus,
    *,
    on_progress: Callable[[Progress], None],
    noise: NoiseSource | None,
) -> RunResult:
    """Evolves texts from public prompts by the votes of private ones; see `pipeline.run`."""
    planned = solve(config, corpus)
    check_prompts(config)
    folder = common.begin(config, corpus)
    with open_session(config, folder, on_progress, noise=noise) as session:
        notes = common.charge(session, corpus, planned.events())
        session.public_inputs = _public_inputs(config)
        sizes = common.count_classes(session, corpus, planned.labels, planned.classes, n=planned.n)
        ranked = _evolve(session, corpus, planned, sizes)
        survivors = ranked[: planned.n]
        accepted = refine_ranked(session, ranked, lambda n, name: _more(session, survivors, n, name))
        texts = common.release(session, accepted, reason=_CHOSEN)
        result = publish(session, corpus, common.sizes_of(planned.n), texts, notes=notes)
        return judge_by_halves(session, corpus, result)


def _public_inputs(config: RunConfig) -> str:
    roles, keywords = (load_lines(config.write.prompt, f"{name}.txt") for name in ("roles", "keywords"))
    return f"prompts with {len(roles)} roles and {len(keywords)} keywords{common.declared_in_words(config)}"


# --- reads private text, gives out noisy histograms -------------------------------------------------


def _vote(
    session: Session, corpus: PrivateCorpus, population: Sequence[Candidate], planned: AugpePlan, number: int
) -> list[float]:
    """Lets every unit vote for its nearest usable candidates of its own class; returns noisy counts.

    Which candidates are usable is judged from their words alone, so the vote stays a function of earlier
    releases, and its noise is drawn for every candidate.
    """
    usable = [i for i, item in enumerate(population) if is_usable(item.text)]
    private_votes = cast_votes(
        session.embed_records(corpus.records),
        common.labels_of(session.config, corpus),
        [record.unit_id for record in corpus.records],
        vectors=_look_ahead(session, [population[i] for i in usable], number),
        classes=[class_name(population[i].labels) for i in usable],
        device=session.config.generation.device,
    )
    private_rows = floor_diversity(private_votes.among(usable))
    mechanism = planned.votes[number - 1] if planned.votes else None
    texts = [item.text for item in population]
    return common.release_sums(session, f"vote {number}", mechanism, private_rows, len(texts), of=texts)


# --- reads ledger outputs and public inputs only ----------------------------------------------------


def _evolve(
    session: Session, corpus: PrivateCorpus, planned: AugpePlan, sizes: Sequence[int]
) -> list[Candidate]:
    """Writes, votes, selects and varies, T times; returns the last vote's survivors, then the others."""
    n_each = session.config.augpe.variations
    wanted = [labels for labels, size in zip(planned.labels, sizes, strict=True) for _ in range(size)]
    left = {class_name(labels): size for labels, size in zip(planned.labels, sizes, strict=True)}
    population = write_random(session, [labels for labels in wanted for _ in range(n_each)], "first")
    _keep_generation(session, 0, population)
    kept, others = population, []
    for number in range(1, planned.n_epochs + 1):
        if number > 1:
            population = kept + write_variations(session, kept, n_each - 1, f"epoch {number}")
        session.counts["candidates voted on"] += len(population)
        counts = _vote(session, corpus, population, planned, number)
        classes = [class_name(item.labels) for item in population]
        first, rest = survivors_of(counts, classes, left, threshold=session.config.augpe.threshold)
        kept, others = [population[i] for i in first], [population[i] for i in rest]
        _keep_generation(session, number, kept)
    return kept + others


def _look_ahead(session: Session, candidates: Sequence[Candidate], number: int) -> FloatArray:
    """Returns unit vectors to vote by: of each text, or of the mean of it and variations of it."""
    own, k = session.models.embedder.embed([item.text for item in candidates]), session.config.augpe.lookahead
    if not k or not candidates:
        return own
    ahead = write_variations(session, candidates, k, f"lookahead {number}")
    vectors = session.models.embedder.embed([item.text for item in ahead])
    mean = (own + vectors.reshape(len(candidates), k, -1).sum(axis=1)) / (k + 1)
    unit: FloatArray = (mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)).astype("f4")
    return unit


def _keep_generation(session: Session, number: int, kept: Sequence[Candidate]) -> None:
    rows = ({"id": item.variant_id, "text": item.text, **item.labels} for item in kept)
    session.folder.write_private(f"generation-{number}", rows)


def _more(session: Session, survivors: Sequence[Candidate], n: int, round_name: str) -> list[Candidate]:
    """Writes `n` more variations of the survivors, the best first."""
    each = -(-n // len(survivors))
    return write_variations(session, survivors, each, round_name)[:n]


# --- in advance --------------------------------------------------------------------------------------


def plan(config: RunConfig, corpus: PrivateCorpus) -> Plan:
    """Computes sizes; refuses settings whose noise cannot be accounted for and prompts that are missing."""
    check_prompts(config)
    return common.sizes_of(solve(config, corpus).n)


def plan_releases(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedLine]:
    """Lists class counts, votes and texts."""
    return plan_lines(config, solve(config, corpus))


def plan_tasks(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedCalls]:
    """Estimates the calls of RANDOM_API and VARIATION_API."""
    planned, settings = solve(config, corpus), config.augpe
    text = reply_tokens((config.write.min_length + config.write.max_length) / 2, config)
    name: PromptName = "fill" if settings.variation == "fill" else "rewrite"
    prompt = prompt_tokens(config, name) + text
    n_varied = (planned.n_epochs - 1) * planned.n * (settings.variations - 1)
    n_ahead = planned.n_epochs * planned.n_candidates * settings.lookahead
    writer = config.models.write
    return [
        plan_task("random", writer, planned.n_candidates, prompt_tokens(config, "random"), text),
        plan_task("vary", writer, n_varied, prompt, text),
        plan_task("look ahead", writer, n_ahead, prompt, text),
    ]


def statement_of(config: RunConfig, corpus: PrivateCorpus) -> str:
    """Returns what a run may say of its privacy."""
    return common.statement_of(config, corpus, solve(config, corpus).events())


def describe(config: RunConfig, corpus: PrivateCorpus, plan: Plan) -> list[str]:
    """Says what a run would do."""
    planned = solve(config, corpus)
    noise = "exact votes" if config.epsilon is None else f"noise of {planned.votes[0].noise_multiplier:.2f}"
    return [
        f"{plan.n_wanted} synthetic texts wanted, of {planned.n_candidates} candidates an epoch",
        f"{planned.n_epochs} epochs of votes ({noise}) and variation by {config.augpe.variation}",
        f"models: {config.models.write} writes from public prompts, {config.models.embed} embeds",
    ]
