"""The ledger of an end-to-end run in advance, in words: costs, and what can be told from noise."""

import json
import math
from collections import Counter, defaultdict

from rpsg.config import RunConfig
from rpsg.data import sample_path
from rpsg.plan import PlannedLine
from rpsg.plan_keys import Histogram, KeysPlan, noise_floor, plan_keys
from rpsg.privacy.accounting import compose, round_up
from rpsg.privacy.mechanisms import GaussianSum, ThresholdedKeys
from rpsg.rng import Streams
from rpsg.stages.keys import WordChoice
from rpsg.types import PrivateCorpus


def plan_paid_ledger(config: RunConfig, *, has_labels: bool) -> list[PlannedLine]:
    """Lists what an end-to-end run would release. Reads no private data."""
    plan = plan_keys(config, has_labels=has_labels)
    lines = [_line(label, mechanism, plan, config) for label, mechanism in plan.releases()]
    whole = compose(plan.events(), config.delta)
    source = "what was released above" if lines else "public prompts alone"
    lines.append(
        PlannedLine(
            release="texts",
            cost=f"nothing more; all of it: epsilon {round_up(whole.epsilon, 3):g}, delta {config.delta:g}",
            signal=f"{config.n} texts, written from {source}",
        )
    )
    return lines


def _line(label: str, mechanism: Histogram, plan: KeysPlan, config: RunConfig) -> PlannedLine:
    sigma, bound = mechanism.noise_multiplier, config.n_units_bound or 1
    own_delta = f", delta {mechanism.delta:g}" if isinstance(mechanism, ThresholdedKeys) else ""
    if label == "phrases" or own_delta:
        signal, warning = _naming(label, mechanism, plan, config)
    else:
        assert isinstance(mechanism, GaussianSum)
        each = bound / mechanism.n_items
        signal = f"at most {each:.1f} people a cell on average, noise {sigma:.2f}"
        warning = ""
        if label.startswith("vote") and each < sigma:
            warning = (
                f"at most {each:.1f} votes a candidate drown in noise of {sigma:.2f}: ask for fewer texts "
                "(n), fewer vote.candidates, or a larger epsilon"
            )
    return PlannedLine(release=label, cost=f"sigma {sigma:.3f}{own_delta}", signal=signal, warning=warning)


def _naming(label: str, mechanism: Histogram, plan: KeysPlan, config: RunConfig) -> tuple[str, str]:
    most = config.keys.max_phrases if label == "phrases" else 1
    people = math.ceil(noise_floor(mechanism) * math.sqrt(most))
    share_of_topic = (config.n_units_bound or 1) // plan.n_topics
    signal = f"about {people} people name one, when each holds {most}"
    if label != "phrases":
        n_likely = None
    else:
        shares, whose = _word_shares(plan, config)
        n_likely = plan.n_topics * sum(share * share_of_topic >= people for share in shares.values())
        signal += f"; were your texts like {whose}, about {n_likely} would be named"
    warning = ""
    if people > share_of_topic / 2:
        warning = (
            f"a {label.rstrip('s')} is named only when more than half of a topic's people share it "
            f"({people} of at most {share_of_topic}); raise epsilon, or bring more people"
        )
    elif n_likely == 0:
        warning = (
            "probably no phrase will be named, and texts be written as with epsilon 0; raise epsilon, lower "
            "keys.max_phrases, or bring more people"
        )
    return signal, warning


def _word_shares(plan: KeysPlan, config: RunConfig) -> tuple[dict[str, float], str]:
    """Shares of public texts that would count each word, and what these texts are."""
    if plan.vocabulary and plan.material is not None:
        return plan.material.phrases, "the public texts"
    name = "pubmed_train.jsonl" if config.write.prompt == "abstracts" else "posts_train.jsonl"
    texts = [json.loads(row)["text"] for row in sample_path(name).read_text(encoding="utf-8").splitlines()]
    choose = WordChoice(config.keys.max_phrases, Streams(config.seed))
    counts = Counter(word for text in texts for word in choose([text]))
    return {word: count / len(texts) for word, count in counts.items()}, f"the sample {name}"


def describe_capping(config: RunConfig, corpus: PrivateCorpus) -> str:
    """Says what counting several records of one person as one does to these data; for the operator only."""
    choose = WordChoice(config.keys.max_phrases, Streams(config.seed))
    words: defaultdict[str, set[str]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    all_words = 0
    for record in corpus.records:
        own = choose([record.text])
        sizes[record.unit_id] += 1
        all_words += len(own)
        # A word among the first of all of a unit's texts is among the first of the text that it is in.
        words[record.unit_id] = set(choose.first({*words[record.unit_id], *own}))
    counted = sum(len(kept) for kept in words.values())
    lost = 1 - counted / all_words if all_words else 0.0
    return (
        f"{len(corpus)} records of {len(sizes)} people, at most {max(sizes.values())} of one: a person "
        f"counts once in every histogram and vote, so {lost:.0%} of the words that the records would add one "
        "by one are not counted. This line was read from your data: it is for you, and is not released"
    )
