"""What a cell's release is worth, and what it gives away: the same figures for every method."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from rpsg import registry
from rpsg.audit.finding import Finding
from rpsg.audit.linkage import pair_rows
from rpsg.audit.run import AuditSettings, audit
from rpsg.audit.split import game_of
from rpsg.bench.matrix import BenchConfig
from rpsg.bench.vectors import KeptVectors
from rpsg.config import RunConfig
from rpsg.errors import DataError
from rpsg.evaluate.run import evaluate_run, sample_of
from rpsg.evaluate.sentiment import sentiment_agreement
from rpsg.privacy.seeds import read_seeds
from rpsg.result import RunResult
from rpsg.rng import Streams
from rpsg.scores import Better, TextSample
from rpsg.types import PrivateCorpus, PrivateRecord, SyntheticText

# Chosen in advance, not by what they find. Membership: of copied words, of likeness, of likelihood, and all
# together. The name after the colon is the column of the table.
_SHOWN = {
    ("ngram_overlap_5", "AUC"): "membership: AUC, ngram overlap 5",
    ("nearest tfidf", "AUC"): "membership: AUC, nearest tfidf",
    ("bigram_ratio", "AUC"): "membership: AUC, bigram ratio",
    ("combined", "AUC"): "membership: AUC, combined",
    ("combined", "TPR at 1 % FPR"): "membership: TPR at 1 % FPR, combined",
    ("copied_runs", ""): "leaks: members with an own 13-word run",
    ("disclosed_runs", "share of members disclosed"): "leaks: members disclosed",
    ("pii_replay", ""): "leaks: members with a private detail",
    ("linkage_tfidf", "geometric mean of the ranks of the texts' seeds"): "leaks: rank of the seed",
    ("extracted_details", "share of released texts with a member's private detail"): (
        "extraction: texts with a private detail"
    ),
    ("extracted_details", "share of the members' private details that are released"): (
        "extraction: private details released"
    ),
    ("extracted_texts", "share of members of whom half a text is released"): "extraction: half a text",
}
# Beside these the same figure where nothing can have leaked: of people who were not given to the method.
_WITH_CONTROL = ("copied_runs", "pii_replay", "linkage_tfidf")
# Of all other attacks less is better.
_HIGH_IS_GOOD = "leaks: rank of the seed"
JOINT_P = "membership: p, all attacks jointly"
_AGREEMENT = "sentiment: agreement with the seed"
WITHOUT_LEAK = ", where nothing leaked"
# Differences of methods are small: with ten draws, which texts they hold moves the distance of copies by
# 0.013, as much as seeds do. Fifty take some seconds of a core more.
_DRAWS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a release got.

    Attributes:
        figures: family and name of a figure, joined by ": ", to its value.
        better: the same to the good direction; of controls and p-values there is none.
        verdict: of the audit; empty where there was none.
        reason: what could not be computed, and why.
    """

    figures: Mapping[str, float]
    better: Mapping[str, Better]
    verdict: str
    reason: str


def judge_release(
    bench: BenchConfig,
    config: RunConfig,
    result: RunResult,
    given: PrivateCorpus,
    held_out: PrivateCorpus,
    *,
    vectors: Path,
) -> Judgement:
    """Scores a release, and attacks it.

    Args:
        bench: the benchmark.
        config: of the run.
        result: the finished run.
        given: the people whose texts the method had.
        held_out: people whose texts no method had.
        vectors: folder for those of private texts, which other cells need too.
    """
    seeds = read_seeds(result.folder / "private/ledger.sqlite")
    # Releases are in an order that nobody can repeat, and each figure is of some draws of their rows.
    result = replace(result, texts=tuple(sorted(result.texts, key=_place)))
    figures, better = _scores(bench, config, result, given, held_out, vectors)
    if agreement := _agreement(bench, config, result, given, seeds):
        figures |= agreement
        better[_AGREEMENT] = "higher"
    try:
        attacked, verdict = _attacks(config, result, given, held_out, seeds)
    except DataError as error:
        return Judgement(figures=figures, better=better, verdict="", reason=f"no audit: {error}")
    for name in attacked.keys() & _SHOWN.values():
        better[name] = "higher" if name == _HIGH_IS_GOOD else "lower"
    return Judgement(figures={**figures, **attacked}, better=better, verdict=verdict, reason="")


def _place(item: SyntheticText) -> tuple[bytes, str]:
    return blake2b(item.text.encode()).digest(), repr(sorted(item.labels.items()))


def _scores(
    bench: BenchConfig,
    config: RunConfig,
    result: RunResult,
    given: PrivateCorpus,
    held_out: PrivateCorpus,
    vectors: Path,
) -> tuple[dict[str, float], dict[str, Better]]:
    labels = [name for name in given.label_columns if _shares_values(name, result, given)]
    synthetic = TextSample(
        texts=tuple(item.text for item in result.texts),
        labels={name: tuple(item.labels.get(name, "") for item in result.texts) for name in labels},
    )
    judged = evaluate_run(
        result.folder,
        {"real": sample_of(given), "holdout": sample_of(held_out), "synthetic": synthetic},
        embedder=KeptVectors(registry.embedder(config.models.embed), vectors),
        labels=labels,
        language_model=bench.language_model,
        # What real texts get is the row of copies.
        compared=False,
        seed=config.seed,
        repeats=_DRAWS,
    )
    named = {f"{family}: {item.name}": item for family, item in judged.scores}
    figures = {
        name: item.value
        for name, item in named.items()
        if item.value is not None and math.isfinite(item.value)
    }
    return figures, {name: named[name].better for name in figures}


def _shares_values(name: str, result: RunResult, given: PrivateCorpus) -> bool:
    real = {record.labels.get(name) for record in given.records}
    return bool({item.labels.get(name) for item in result.texts} & real)


def _agreement(
    bench: BenchConfig,
    config: RunConfig,
    result: RunResult,
    given: PrivateCorpus,
    seeds: Mapping[str, str],
) -> dict[str, float]:
    by_id: dict[str, PrivateRecord] = {record.record_id: record for record in given.records}
    pairs = [(by_id[seeds[item.text_id]].text, item.text) for item in result.texts if item.text_id in seeds]
    if not bench.sentiment_judge or len(pairs) < 2:
        return {}
    score = sentiment_agreement(
        [seed for seed, _ in pairs],
        [text for _, text in pairs],
        judge=registry.sentiment_model(bench.sentiment_judge),
        selected_by=config.models.sentiment,
        rng=Streams(config.seed).get("sentiment agreement"),
    )
    assert score.value is not None and score.baseline is not None
    return {_AGREEMENT: score.value, "sentiment: with another seed": score.baseline}


def _attacks(
    config: RunConfig,
    result: RunResult,
    given: PrivateCorpus,
    held_out: PrivateCorpus,
    seeds: Mapping[str, str],
) -> tuple[dict[str, float], str]:
    """Attacks a release as `rpsg audit` does, without the attacks that train language models for minutes."""
    game = game_of(given, held_out, [item.text for item in result.texts], seed=config.seed)
    ids = [record.record_id for record in given.records]
    found = audit(
        game,
        AuditSettings(language_models=False, generator=config.models.embed),
        pairs=pair_rows(seeds, [item.text_id for item in result.texts], ids),
    )
    return dict(_pick(found.findings)), found.verdict.word


def _pick(findings: Iterable[Finding]) -> Iterable[tuple[str, float]]:
    for item in findings:
        name = _SHOWN.get((item.attack, item.statistic)) or _SHOWN.get((item.attack, ""))
        if name and item.value is not None:
            yield name, item.value
            if item.attack in _WITH_CONTROL and item.control is not None:
                yield f"{name}{WITHOUT_LEAK}", item.control
        if item.attack == "all attacks jointly" and item.p_value is not None:
            yield JOINT_P, item.p_value
