"""Canary runs: what they spend, planting for a configuration, and scoring what a run released."""

import json
import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from rpsg import registry
from rpsg.audit.auxiliary import AuxiliarySettings
from rpsg.audit.canary import KINDS, Kind, Secrets, read_secrets
from rpsg.audit.canary_findings import Claim, canary_findings
from rpsg.audit.canary_plant import Planting, Roles, plant, read_data
from rpsg.audit.finding import Finding
from rpsg.audit.lower_bounds import Power, power_table
from rpsg.audit.poisoning import DECIDING as DECIDING_POISONS
from rpsg.audit.poisoning import poisoning_findings
from rpsg.audit.result import Audit
from rpsg.audit.run import too_few_texts
from rpsg.audit.verdict import LEAK, TOO_FEW, Verdict, judge
from rpsg.config import RunConfig
from rpsg.data import fingerprint, read_corpus
from rpsg.errors import ConfigError, RunDirError
from rpsg.llm.calls import CallStore
from rpsg.loading import OnProgress, load_models
from rpsg.plan_keys import plan_keys
from rpsg.privacy.accounting import compose
from rpsg.privacy.budget import Cost, budgets_of
from rpsg.privacy.events import PrivacyEvent
from rpsg.privacy.ledger import read_run
from rpsg.public import PublicSession, read_public_corpus, write_public_texts
from rpsg.release import find_changes
from rpsg.rng import Streams
from rpsg.rundir import RunDir
from rpsg.text import words_alone
from rpsg.types import PrivateCorpus

# Canaries need one short text each, not the best of several drafts.
_WRITING = {"n_drafts": 1, "min_length": 30, "max_length": 80}
# Some drafts have a flaw, and some repeat another.
_ROUNDS, _SPARE = 10, 8
_MIN_TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryRequest:
    """What a person asks to plant.

    Attributes:
        config: of the run that will be audited; names the data.
        output: the planted copy of the data.
        secrets: the secrets file.
        n_canaries: coins to throw.
        kinds: of canaries; empty for all.
        repetitions: records a canary.
        style: of fact statements.
        public: a file of public texts; None lets the configuration's model write them.
        n_poisons: crafted records that aim at some of the canaries.
    """

    config: RunConfig
    output: Path
    secrets: Path
    n_canaries: int
    kinds: tuple[str, ...]
    repetitions: tuple[int, ...]
    style: str
    public: Path | None
    n_poisons: int = 0

    def planting(self) -> Planting:
        """Returns it as a plan.

        Raises:
            ConfigError: no data is named, or a kind is unknown.
        """
        data = self.config.data
        if data.path is None:
            raise ConfigError("data.path is not set; name the file with the private texts")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ConfigError(f"there are no canaries of kind {unknown[0]!r}; kinds are: {', '.join(KINDS)}")
        kinds: tuple[Kind, ...] = tuple(kind for kind in KINDS if not self.kinds or kind in self.kinds)
        return Planting(
            source=Path(data.path),
            output=self.output,
            secrets=self.secrets,
            n_canaries=self.n_canaries,
            kinds=kinds,
            repetitions=self.repetitions,
            style=self.style,
            roles=Roles(
                text=data.text_column, labels=data.label_columns, unit=data.unit_column, id=data.id_column
            ),
            n_poisons=self.n_poisons,
        )


def prepare(request: CanaryRequest) -> tuple[PrivateCorpus, list[str]]:
    """Checks everything and says what planting leads to; writes nothing.

    Returns:
        The data, and lines for the operator: what the canary run and the clean run spend.

    Raises:
        ConfigError: the plan is out of range.
        DataError: the data cannot be used.
    """
    corpus = read_data(request.planting())
    return corpus, [*describe_spending(request.config, corpus), describe_power(request)]


def describe_spending(config: RunConfig, corpus: PrivateCorpus) -> list[str]:
    """Says what a canary run and the clean run after it spend together on the same people."""
    twice = "The canary run and the run that is published are two runs on the same people."
    if config.guarantee != "end-to-end":
        return [
            f"{twice} With guarantee {config.guarantee} neither has a finite epsilon, so there is nothing to "
            "add up; data with a budget refuse both without --outside-budget."
        ]
    events = plan_keys(config, has_labels=bool(corpus.label_columns)).events()
    one, both = compose(events, config.delta).epsilon, compose([*events, *events], config.delta).epsilon
    return [
        f"{twice} Each spends epsilon {one:.3g} at delta {config.delta:g}; together they spend {both:.3g}. "
        "Only the clean run's own figure stands on its card: quote the sum.",
        *_describe_budgets(corpus, events),
    ]


def _describe_budgets(corpus: PrivateCorpus, events: Sequence[PrivacyEvent]) -> list[str]:
    lines = []
    cost = Cost.of(events)
    for budget in budgets_of(corpus):
        with closing(budget):
            state = budget.state()
            canary_run, clean_run = budget.would_be(cost), budget.would_be(cost.times(2))
        fits = (
            "" if clean_run <= state.epsilon else ", which it does not hold: the clean run would be refused"
        )
        lines.append(
            f"Data budget of {state.name}, epsilon {state.epsilon:g} at delta {state.delta:g}: spent "
            f"{state.spent_epsilon:.3g} now, {canary_run:.3g} after the canary run, {clean_run:.3g} after "
            f"the clean run{fits}."
        )
    return lines


def describe_power(request: CanaryRequest) -> str:
    """Says what the audit could certify at best."""
    sizes = len(set(request.repetitions)) if request.config.data.unit_column is None else 1
    (power,) = power_table(request.config.delta, [request.n_canaries // sizes])
    several = f" of each of the {sizes} repetitions" if sizes > 1 else ""
    return f"Power: {in_words(power)}{several}. It cannot refute a claim above that."


def in_words(power: Power) -> str:
    """Returns a row of the power table as a sentence."""
    return (
        f"an attack without one error could show epsilon {power.one_run:.1f} (one run) or "
        f"{power.two_sided:.1f} (two-sided) with {power.m} canaries"
    )


def plant_canaries(request: CanaryRequest, corpus: PrivateCorpus, *, on_progress: OnProgress) -> Secrets:
    """Writes the planted file, its mark and the secrets file.

    Raises:
        ConfigError: a file appeared meanwhile.
        DataError: there are too few public texts.
    """
    return plant(request.planting(), corpus, _public_texts(request, on_progress))


def _public_texts(request: CanaryRequest, on_progress: OnProgress) -> Callable[[int], Sequence[str]]:
    config = request.config
    if request.public is not None:
        path = request.public
        return lambda _: read_public_corpus(path, text_column=config.data.text_column, config=config)
    write = config.write.model_copy(
        update={**_WRITING, "temperature": max(_MIN_TEMPERATURE, config.write.temperature)}
    )
    config = config.model_copy(update={"write": write})

    def written(n: int) -> list[str]:
        texts: dict[str, None] = {}
        with tempfile.TemporaryDirectory() as folder, closing(CallStore(Path(folder) / "calls")) as store:
            models = load_models(config, store, on_progress)
            session = PublicSession(config=config, models=models, streams=Streams(secrets.randbits(62)))
            with closing(models):
                for number in range(_ROUNDS):
                    missing = n - len(texts)
                    if missing > 0:
                        new = write_public_texts(session, missing + _SPARE, round_name=f"canaries {number}")
                        texts.update(dict.fromkeys(new))
        return list(texts)

    return written


# --- scoring --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How canaries are scored.

    Attributes:
        without: texts released from the same data without poisons.
        public: texts that the adversary knows.
        embedder: its name; not the run's own. None weighs words.
        auxiliary: size of the language models trained on the release; None leaves them out.
        seed: breaks ties, and fixes how models are trained.
    """

    without: Path | None = None
    public: Sequence[str] = ()
    embedder: str | None = None
    auxiliary: AuxiliarySettings | None = None
    seed: int = 0


def score_run(secrets_file: Path, folder: Path, how: Scoring) -> tuple[Finding, ...]:
    """Scores a finished run of planted data.

    Args:
        secrets_file: what `rpsg canary plant` wrote.
        folder: the run.
        how: which scores, and what the adversary knows.

    Raises:
        ConfigError: the run was not made of these planted data, they are gone, or it has released nothing.
        RunDirError: there is no run.
    """
    run = RunDir.open(folder)
    check_planted_run(secrets_file, run)
    synthetic = read_synthetic(_released_file(run), text_column="text")
    check_release(run)
    return score_texts(secrets_file, synthetic, how, claim=claim_of(run))


def check_planted_run(secrets_file: Path, run: RunDir) -> None:
    """Refuses secrets that are not those of a run's data.

    Raises:
        ConfigError: the run was not made of these planted data, or they are gone.
    """
    if not run.contains_canaries:
        raise ConfigError(f"{run.root} was not made from planted data; run the planted file first: rpsg run")
    _check_planting(read_secrets(secrets_file), run, secrets_file)


def check_release(run: RunDir) -> None:
    """Refuses to attack, as a run's, texts that are not those it released.

    Raises:
        RunDirError: card or rows are not as the run wrote them.
        PrivacyError: the ledger, or the configuration it was begun with, was edited.
    """
    problems = find_changes(run)
    if problems:
        raise RunDirError(
            f"{run.release} is not as the run wrote it ({'; '.join(problems)}); put it back, or audit the "
            "file alone with --synthetic"
        )


def score_texts(
    secrets_file: Path, synthetic: Sequence[str], how: Scoring, *, claim: Claim
) -> tuple[Finding, ...]:
    """Scores texts that any tool released from planted data; see `score_run`."""
    found = read_secrets(secrets_file)
    return (
        *canary_findings(
            found,
            synthetic,
            claim=claim,
            public=how.public,
            embedder=registry.embedder(how.embedder) if how.embedder is not None else None,
            auxiliary=how.auxiliary,
            seed=how.seed,
        ),
        *poisoning_findings(
            found,
            synthetic,
            without=None if how.without is None else read_synthetic(how.without, text_column="text"),
            public=how.public,
            seed=how.seed,
        ),
    )


def claim_of(run: RunDir) -> Claim:
    """Returns what a run claims for one unit and for groups, recomputed from its ledger.

    Raises:
        RunDirError: it has no ledger.
    """
    config = run.read_config()
    if config.guarantee != "end-to-end":
        return Claim(delta=config.delta, epsilon={})
    lines, _ = read_run(run.ledger)
    events = [event for line in lines for event in line.events]
    sizes = (1, 4, 16)
    return Claim(
        delta=config.delta,
        epsilon={size: compose(events, config.delta, group=size).epsilon for size in sizes},
    )


def delta_of(folder: Path) -> float:
    """Returns the delta that a run claims its epsilon at."""
    return RunDir.open(folder).read_config().delta


def read_synthetic(path: Path, *, text_column: str) -> list[str]:
    """Reads released texts, made by any tool."""
    return [record.text for record in read_corpus(path, text_column=text_column, min_words=1).records]


def judge_canaries(findings: Sequence[Finding], synthetic: Sequence[str]) -> Verdict:
    """Weighs what canaries showed in released texts, as `rpsg audit` weighs its attacks."""
    (n_in, n_out) = max((item.n_members, item.n_nonmembers) for item in findings)
    blind = [
        f"of the poisons' targets {item.n_members} are in and {item.n_nonmembers} left out: too few to tell "
        "what poisons pull out; plant 30 or more"
        for item in findings
        if item.attack == DECIDING_POISONS and item.value is None
    ]
    return judge(findings, n_members=n_in, n_nonmembers=n_out, blind=[*blind, *too_few_texts(synthetic)])


def join_canaries(audit: Audit, findings: Sequence[Finding]) -> Audit:
    """Adds what canaries showed to the audit of the same run, and weighs all of it together."""
    joined = sorted((*audit.findings, *findings), key=lambda item: not item.decides)
    verdict = judge(joined, n_members=audit.n_members, n_nonmembers=audit.n_nonmembers)
    # More tests share one error: what was found without them stays found, and what was blind stays so.
    if verdict.word != LEAK and audit.verdict.word in {LEAK, TOO_FEW}:
        verdict = replace(audit.verdict, p_smallest=verdict.p_smallest)
    return replace(audit, findings=tuple(joined), verdict=verdict)


def _check_planting(found: Secrets, run: RunDir, secrets_file: Path) -> None:
    """Refuses the coins of another planting: they would show no leak, whatever leaked."""
    source = run.read_config().data
    path = Path(source.path or "")
    if not path.is_file():
        raise ConfigError(f"{path}, the planted data of the run, is not there; put it back")
    corpus = read_corpus(
        path,
        text_column=source.text_column,
        label_columns=source.label_columns,
        unit_column=source.unit_column,
        id_column=source.id_column,
        min_words=source.min_words,
    )
    if json.loads((run.private / "data.json").read_text())["fingerprint"] != fingerprint(corpus):
        raise ConfigError(f"{path} is not what {run.root} was made from; put those data back")
    here = {words_alone(record.text) for record in corpus.records}
    if any((words_alone(canary.text) in here) != canary.is_in for canary in found.canaries):
        raise ConfigError(f"{secrets_file} is of another planting than {path}, which the run was made from")


def released_texts(folder: Path) -> list[str]:
    """Returns the texts that a run released.

    Raises:
        RunDirError: there is no run.
        ConfigError: it has released nothing.
    """
    return read_synthetic(_released_file(RunDir.open(folder)), text_column="text")


def _released_file(run: RunDir) -> Path:
    found = run.release / f"synthetic.{run.read_config().output.formats[0]}"
    if not found.exists():
        raise ConfigError(f"{run.root} has released nothing yet; go on with: rpsg resume {run.root}")
    return found
