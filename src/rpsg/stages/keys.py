"""Keys: what each unit contributes to noisy histograms, and seeds sampled from them (mode B).

Theorem. A unit's keys are a function of that unit's records and of public inputs alone, and each
histogram is released by a mechanism of L2 sensitivity 1 under add/remove of one unit. So all of them
together are mu-GDP with mu^2 the sum of 1 / sigma^2, plus the delta of thresholded keys; seeds, and all
texts written from them, are post-processing (specification, section 3.2). There is no statistic of the
private corpus here: no inverse document frequency, no clustering, no exact count.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from rpsg.privacy.mechanisms import PrivateRows
from rpsg.rng import Streams
from rpsg.stored import take, units_of
from rpsg.text import content_words
from rpsg.types import FloatArray, Labels, PrivateRecord, Seed
from rpsg.vectors import VectorRows

TONES = ("positive", "negative", "neutral")
# Upper ends of public length buckets in words; a text is asked for as long as its bucket's middle.
LENGTHS = (40, 80, 120, 180, 260)
N_FACETS = len(TONES) * len(LENGTHS)
OTHER = "other"
_SEPARATOR = "\x1f"
_UNITS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateKeys:
    """What each unit contributes, in any order of units.

    Attributes:
        units: one entry a unit: its records.
        topics: index of the nearest public centroid.
        facets: index of (tone, length bucket).
        labels: unit to one key of topic and labels.
        phrases: unit to at most `max_phrases` keys of topic and phrase.
    """

    units: tuple[str, ...]
    topics: npt.NDArray[np.int64]
    facets: npt.NDArray[np.int64]
    labels: Mapping[str, tuple[str, ...]]
    phrases: Mapping[str, tuple[str, ...]]


def extract_keys(
    records: Sequence[PrivateRecord],
    *,
    vectors: VectorRows,
    tones: Mapping[str, str],
    centroids: FloatArray,
    max_phrases: int,
    salt: Streams,
    vocabulary: Sequence[str] = (),
    label_values: Mapping[str, Sequence[str]] | None = None,
) -> PrivateKeys:
    """Computes each unit's keys from that unit's records and public inputs alone.

    Args:
        records: all records.
        vectors: unit vectors, one row a record.
        tones: record id to sentiment; absent means neutral.
        centroids: public topic centroids, shape (k, d).
        max_phrases: most phrases of one unit.
        salt: public randomness that decides which of a unit's words count.
        vocabulary: the only words that count, the most telling first; empty for any word.
        label_values: label column to its declared values; any other counts as `other`.
    """
    choose = WordChoice(max_phrases, salt, vocabulary)
    # Units share the strings of the keys that they share.
    join = cache(_join)
    units: dict[str, list[int]] = {}
    for i, unit in enumerate(units_of(records)):
        units.setdefault(unit, []).append(i)
    topics, facets = [], []
    labels: dict[str, tuple[str, ...]] = {}
    phrases: dict[str, tuple[str, ...]] = {}
    for unit, (own, mean) in zip(units, _read_units(records, vectors, list(units.values())), strict=True):
        topic = int(np.argmax(centroids @ mean))
        topics.append(topic)
        facets.append(_facet(own, tones))
        # Several records of one unit count as one unit: its most frequent labels, ties by name.
        found = Counter(
            join(topic, label_key(declared_labels(record.labels, label_values))) for record in own
        )
        labels[unit] = (min(found, key=lambda key: (-found[key], key)),)
        phrases[unit] = tuple(join(topic, word) for word in choose([record.text for record in own]))
    return PrivateKeys(
        units=tuple(units),
        topics=np.asarray(topics, dtype=np.int64),
        facets=np.asarray(facets, dtype=np.int64),
        labels=labels,
        phrases=phrases,
    )


def _read_units(
    records: Sequence[PrivateRecord], vectors: VectorRows, units: Sequence[Sequence[int]]
) -> Iterator[tuple[Sequence[PrivateRecord], FloatArray]]:
    """Yields each unit's records and their mean vector; a thousand units are in memory at a time."""
    for start in range(0, len(units), _UNITS_AT_ONCE):
        part = units[start : start + _UNITS_AT_ONCE]
        rows = [i for own in part for i in own]
        found, texts = vectors[np.asarray(rows, dtype=np.int64)], list(take(records, rows))
        end = 0
        for own in part:
            begin, end = end, end + len(own)
            yield texts[begin:end], found[begin:end].mean(axis=0)


class WordChoice:
    """Chooses a unit's words that count: the first of a public ranking, else those of smallest public hash.

    Words are never ranked by how frequent they are among others' texts.
    """

    def __init__(self, at_most: int, salt: Streams, vocabulary: Sequence[str] = ()) -> None:
        """Fixes the order.

        Args:
            at_most: most words of one unit.
            salt: of the hash.
            vocabulary: the only words that count, in order of rank; empty for any word.
        """
        self._at_most = at_most
        self._rank = {word: i for i, word in enumerate(vocabulary)}
        # Most words come again and again.
        self._hash = cache(lambda word: (salt.key("word", word), word))

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Returns the words of one unit's texts that count."""
        return self.first(content_words(texts))

    def first(self, usable: set[str]) -> list[str]:
        """Returns those of a unit's content words that count."""
        if self._rank:
            return sorted(usable & self._rank.keys(), key=self._rank.__getitem__)[: self._at_most]
        return sorted(usable, key=self._hash)[: self._at_most]


def declared_labels(labels: Labels, values: Mapping[str, Sequence[str]] | None) -> Labels:
    """Returns labels with `other` in place of values that are not declared."""
    if not values:
        return labels
    found = {name: labels.get(name, OTHER) for name in values}
    return {name: value if value in values[name] else OTHER for name, value in found.items()}


def label_key(labels: Labels) -> str:
    """Returns labels as one key, whatever characters are in them."""
    return json.dumps(sorted(labels.items()))


def phrase_cells(n_topics: int, vocabulary: Sequence[str]) -> list[str]:
    """Returns every key of a topic and a public phrase."""
    return [_join(topic, word) for topic in range(n_topics) for word in vocabulary]


def label_cells(n_topics: int, label_values: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns every key of a topic and declared labels, `other` included."""
    choices = label_choices(label_values)
    return [_join(topic, label_key(labels)) for topic in range(n_topics) for labels in choices]


def label_choices(label_values: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Returns every combination of declared label values, `other` included; one empty one without columns."""
    choices = [[(name, value) for value in (*label_values[name], OTHER)] for name in sorted(label_values)]
    return [dict(pairs) for pairs in product(*choices)]


def cell_rows(held: Mapping[str, Sequence[str]], cells: Sequence[str]) -> PrivateRows:
    """Returns what each unit contributes to public cells: weight 1 for each that it holds."""
    index = {cell: i for i, cell in enumerate(cells)}
    pairs = [(unit, index[key]) for unit, keys in enumerate(held.values()) for key in keys if key in index]
    units, items = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    return PrivateRows(units=units, items=items, weights=np.ones(len(units)))


def histogram_rows(indices: npt.NDArray[np.int64]) -> PrivateRows:
    """Returns one contribution of weight 1 a unit."""
    return PrivateRows(units=np.arange(len(indices)), items=indices, weights=np.ones(len(indices)))


def _facet(own: Sequence[PrivateRecord], tones: Mapping[str, str]) -> int:
    found = Counter(tones.get(record.record_id, "neutral") for record in own)
    tone = min(found, key=lambda name: (-found[name], name))
    words = float(np.mean([len(record.text.split()) for record in own]))
    return TONES.index(tone) * len(LENGTHS) + int(np.searchsorted(LENGTHS[:-1], words))


def _join(topic: int, key: str) -> str:
    return f"{topic}{_SEPARATOR}{key}"


# --- from here on: ledger outputs only -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedKeys:
    """The noisy histograms, as the ledger gave them out.

    Attributes:
        topics: noisy units of each topic; one entry where there is one topic.
        facets: noisy units of each (tone, length bucket).
        labels: topic and label key to noisy units: declared ones, or those above the threshold.
        phrases: topic and phrase to noisy weight; only what is above the threshold.
    """

    topics: Sequence[float]
    facets: Sequence[float]
    labels: Mapping[str, float]
    phrases: Mapping[str, float]

    @classmethod
    def public(cls, label_cells: Sequence[str]) -> "ReleasedKeys":
        """What stands in for releases with epsilon 0: everything public is as likely, no phrase is known."""
        return cls(topics=[1.0], facets=[1.0] * N_FACETS, labels=dict.fromkeys(label_cells, 1.0), phrases={})


def above(cells: Sequence[str], values: Sequence[float], floor: float) -> dict[str, float]:
    """Returns the public cells whose noisy value exceeds a public floor."""
    return {cell: value for cell, value in zip(cells, values, strict=True) if value > floor}


def sample_paid_seeds(
    keys: ReleasedKeys,
    n: int,
    *,
    label_columns: Sequence[str],
    phrases_per_text: int,
    guided: float,
    streams: Streams,
    round_name: str,
) -> list[Seed]:
    """Samples what to write about from noisy histograms: post-processing, as often as one likes.

    Args:
        keys: the histograms.
        n: seeds wanted.
        label_columns: columns of labels.
        phrases_per_text: phrases of a seed.
        guided: share of the seeds that have phrases, evenly among them; less where fewer phrases are known
            than one text takes, which would all be written around the same.
        streams: experiment randomness.
        round_name: makes ids and random streams unique.
    """
    topics = _normalise(keys.topics)
    facets = _normalise(keys.facets)
    phrases, labels = _by_topic(keys.phrases, len(topics)), _by_topic(keys.labels, len(topics))
    everywhere = Counter[str]()
    for table in phrases:
        everywhere.update(table)
    guided *= min(1.0, len(everywhere) / phrases_per_text)
    seeds = []
    for i in range(n):
        rng = streams.get("seed", round_name, i)
        topic = int(rng.choice(len(topics), p=topics))
        facet = int(rng.choice(N_FACETS, p=facets))
        has_phrases = int((i + 1) * guided) > int(i * guided)
        seeds.append(
            Seed(
                seed_id=f"seed-{round_name}-{i}",
                phrases=_draw(phrases[topic] or everywhere, phrases_per_text * has_phrases, rng),
                labels=_labels(_draw(labels[topic], 1, rng), label_columns),
                tone=TONES[facet // len(LENGTHS)],
                n_words=_middle(facet % len(LENGTHS)),
            )
        )
    return seeds


def _normalise(counts: Sequence[float]) -> npt.NDArray[np.float64]:
    positive = np.clip(np.asarray(counts, dtype=np.float64), 0.0, None)
    total = positive.sum()
    return positive / total if total > 0 else np.full(len(positive), 1 / len(positive))


def _by_topic(found: Mapping[str, float], n_topics: int) -> list[dict[str, float]]:
    tables: list[dict[str, float]] = [{} for _ in range(n_topics)]
    for key, value in found.items():
        topic, _, name = key.partition(_SEPARATOR)
        tables[int(topic)][name] = value
    return tables


def _draw(table: Mapping[str, float], n: int, rng: np.random.Generator) -> tuple[str, ...]:
    if not table:
        return ()
    names = sorted(table)
    chances = _normalise([table[name] for name in names])
    count = min(n, int((chances > 0).sum()))
    return tuple(str(name) for name in rng.choice(names, size=count, replace=False, p=chances))


def _labels(drawn: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    named = {name: value for key in drawn for name, value in json.loads(key)}
    return {name: named.get(name, OTHER) for name in columns}


def _middle(bucket: int) -> int:
    low = LENGTHS[bucket - 1] if bucket else LENGTHS[0] // 2
    return (low + LENGTHS[bucket]) // 2
