"""RPSG on one page: load, abstract, select, vary, vote, vary again, refine, release.

The steps are those of "Private Seeds, Public LLMs" (arXiv 2604.07486); docs/method.md lists what is
done differently and why. Everything is private until `ledger.release` of the texts.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from rpsg import data
from rpsg.audit.canary_mark import holds_canaries
from rpsg.config import RunConfig
from rpsg.end_to_end import run_end_to_end, sizes_of
from rpsg.errors import ConfigError
from rpsg.judging import judge
from rpsg.label_shares import LabelShares
from rpsg.llm.language import detect_languages
from rpsg.loading import check_keys, check_prompts, check_trust, with_device
from rpsg.methods import find_method
from rpsg.methods.common import begin
from rpsg.methods.published import choose_published
from rpsg.plan import Plan, PlannedLine, make_plan, plan_ledger, split_pool
from rpsg.plan_calls import PlannedCalls, plan_calls, price_tasks
from rpsg.plan_keys import plan_keys
from rpsg.plan_words import describe_capping, plan_paid_ledger
from rpsg.privacy import budget
from rpsg.privacy.card import promise
from rpsg.privacy.card_words import canaries_in_words, noise_in_words, statement
from rpsg.privacy.noise import NoiseSource
from rpsg.release import publish
from rpsg.result import RunResult
from rpsg.rundir import new_run_folder
from rpsg.session import Session, open_session
from rpsg.stages.variants import Source
from rpsg.steps import check_labels, hold_vote, prepare_refinery, release_texts, vary_again, vary_from
from rpsg.steps import choose as choose_with_noise
from rpsg.types import PrivateCorpus, PrivateRecord, PrivateVariant, Progress


def run(
    config: RunConfig,
    corpus: PrivateCorpus,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    noise: NoiseSource | None = None,
) -> RunResult:
    """Turns private texts into a synthetic replica.

    Called again with the same configuration, data and folder, it goes on where it was stopped:
    finished model calls are read back and committed draws are replayed.

    Args:
        config: the settings; `config.output.folder` names the run folder.
        corpus: the private texts.
        on_progress: told after every step.
        noise: the secure source unless a test gives another; then the card says "not private".

    Returns:
        The released texts, the statement of what protects them, and what happened.

    Raises:
        ConfigError: more texts are wanted than there are seeds, or a server's key is not set, or a
            prompt is not whole.
        RunDirError: the folder holds another run.
        DataError: label values hold personal details.
        BudgetExceeded: the data have a budget, which cannot be charged in these modes.
        PrivateDataError: a task that reads private text names a remote model.
        PrivacyError: the run's ledger was edited, cut, or is an old copy.
    """
    config = with_device(with_folder(config))
    check_trust(config)
    check_keys(config)
    method = find_method(config)
    if method is not None:
        return method.run(config, corpus, on_progress=on_progress, noise=noise)
    check_prompts(config)
    if config.guarantee == "end-to-end":
        return run_end_to_end(config, corpus, on_progress=on_progress, noise=noise)
    pool, calibration = split_pool(config, corpus)
    sizes = make_plan(config, n_pool=len(pool), n_calibration=len(calibration))
    folder = begin(config, corpus)
    with open_session(config, folder, on_progress, noise=noise) as session:
        check_labels(session, corpus)
        session.n_outside = budget.note_outside(corpus, folder.run_id)
        by_id = {record.record_id: record for record in pool.records}
        queue = [by_id[name] for name in data.sample_seeds(pool, session.streams.get("seeds"))]
        seeds, unused = queue[: sizes.n_seeds], queue[sizes.n_seeds :]
        shares = LabelShares.of(queue[: sizes.n_wanted])

        chosen = choose(session, seeds, label="first")
        first = vary_from(session, chosen, label="first", n_each=config.write.n_variants)
        survivors = hold_vote(session, first, pool, n_places=sizes.n_seeds * config.write.n_variants)
        final = vary_again(session, survivors, chosen, label="first")

        refinery = prepare_refinery(session, pool, calibration, first)
        accepted, rejected = refinery.refine(final)
        session.reject(rejected)
        # Refill: unused seeds first, then new variants of summaries already chosen. A record is drawn
        # for at most once, and there is no second vote. Labels that lost most texts come first.
        for round_number in range(1, config.refine.refill_rounds + 1):
            fresh, unused = shares.take(unused, accepted)
            again, _ = shares.take(_unserved(chosen, accepted), accepted)
            if not fresh and not again:
                break
            label = f"refill {round_number}"
            sources = choose(session, fresh, label=label) if fresh else {s.record_id: s for s in again}
            chosen = {**chosen, **sources}
            written = vary_from(session, sources, label=label, n_each=1)
            more, rejected = refinery.refine(vary_again(session, written, sources, label=label))
            accepted += more
            session.reject(rejected)

        session.counts["texts accepted"] = len(accepted)
        texts = release_texts(session, shares.cut(accepted))
        result = publish(session, corpus, sizes, texts, notes=refinery.notes)
        return judge(session, result, real=pool.records, holdout=calibration.records)


def choose(session: Session, seeds: Sequence[PrivateRecord], *, label: str) -> dict[str, Source]:
    """Summarises each seed and chooses one summary: with noise that protects the choice, or as published."""
    if session.config.method == "rpsg-published":
        return choose_published(session, seeds, label=label)
    return choose_with_noise(session, seeds, label=label)


def load_corpus(config: RunConfig) -> PrivateCorpus:
    """Reads and checks the data that a configuration names.

    Raises:
        ConfigError: no data is named, or a column does not exist.
        DataError: the data cannot be used.
    """
    if config.data.path is None:
        raise ConfigError("data.path is not set; name the file with the private texts")
    source = config.data
    corpus = data.read_corpus(
        Path(config.data.path),
        text_column=source.text_column,
        label_columns=source.label_columns,
        unit_column=source.unit_column,
        id_column=source.id_column,
        min_words=source.min_words,
    )
    data.check_language(corpus, detect_languages, frozenset(config.models.languages))
    return corpus


def plan_releases(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedLine]:
    """Lists the ledger of a run in advance; spends nothing."""
    method = find_method(config)
    if method is not None:
        return method.plan_releases(config, corpus)
    if config.guarantee == "end-to-end":
        return plan_paid_ledger(config, has_labels=bool(corpus.label_columns))
    return plan_ledger(config, plan(config, corpus))


def plan_tasks(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedCalls]:
    """Estimates a run's calls of language models; spends nothing.

    Raises:
        ConfigError: the price table cannot be read, or a model's endpoint is unknown.
    """
    sizes, method = plan(config, corpus), find_method(config)
    if method is not None:
        return price_tasks(method.plan_tasks(config, corpus), config)
    return plan_calls(config, corpus, sizes)


def plan_notes(config: RunConfig, corpus: PrivateCorpus) -> list[str]:
    """Says what the data mean for a plan; read from the data, for the operator only."""
    notes = label_warnings(config, corpus)
    if config.guarantee == "end-to-end" and corpus.has_units and find_method(config) is None:
        notes.append(describe_capping(config, corpus))
    return notes


def label_warnings(config: RunConfig, corpus: PrivateCorpus) -> list[str]:
    """Says how many records have a label that counts as `other`: private, for the operator only."""
    values = config.data.label_values
    if config.method == "public" and corpus.label_columns and not values:
        return ["without data.label_values every text gets the label `other`: what the data hold is not read"]
    if config.guarantee != "end-to-end" and config.method != "augpe":
        return []
    missing = {
        column: sum(record.labels.get(column, "") not in values[column] for record in corpus.records)
        for column in corpus.label_columns
        if values
    }
    return [
        f"{n:,} of {len(corpus):,} records have a value of {column} that data.label_values does not name; it "
        "counts as `other`"
        for column, n in missing.items()
        if n
    ]


def plan(config: RunConfig, corpus: PrivateCorpus) -> Plan:
    """Computes the sizes of a run; spends nothing."""
    check_trust(config)
    method = find_method(config)
    if method is not None:
        return method.plan(config, corpus)
    if config.guarantee == "end-to-end":
        return sizes_of(config)
    pool, calibration = split_pool(config, corpus)
    return make_plan(config, n_pool=len(pool), n_calibration=len(calibration))


def with_folder(config: RunConfig) -> RunConfig:
    """Returns the configuration with a run folder, a new one where none is named."""
    if config.output.folder is not None:
        return config
    output = config.output.model_copy(update={"folder": str(new_run_folder())})
    return config.model_copy(update={"output": output})


def statement_of(config: RunConfig, corpus: PrivateCorpus) -> str:
    """Returns what a run may say of its privacy."""
    return _statement(config, corpus) + (canaries_in_words() if holds_canaries(config, corpus) else "")


def _statement(config: RunConfig, corpus: PrivateCorpus) -> str:
    method = find_method(config)
    if method is not None:
        return method.statement_of(config, corpus)
    if config.guarantee == "end-to-end":
        planned = plan_keys(config, has_labels=bool(corpus.label_columns))
        return promise(
            config.epsilon,
            config.delta,
            planned.events(),
            has_units=corpus.has_units,
            outside_budget=config.outside_budget,
            method=config.method,
        )
    text = statement(
        guarantee=config.guarantee,
        epsilon=config.epsilon,
        n_candidates=config.abstract.n_candidates,
        has_units=corpus.has_units,
        method=config.method,
    )
    if config.epsilon is None:
        return text
    return f"{text} {noise_in_words(epsilon=config.epsilon, n_candidates=config.abstract.n_candidates)}"


def _unserved(sources: dict[str, Source], accepted: Sequence[PrivateVariant]) -> list[Source]:
    served = {variant.record_id for variant in accepted}
    return [source for record_id, source in sources.items() if record_id not in served]
