"""What makes samples impossible to compare, or their figures doubtful: looked for first."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rpsg.errors import ConfigError, DataError
from rpsg.evaluate.duplicates import near_duplicate_pairs
from rpsg.llm.language import UNKNOWN, detect_languages
from rpsg.scores import TextSample
from rpsg.text import words_alone, words_of
from rpsg.types import Embedder

_LANGUAGE_SAMPLE = 200
# Of more texts in another language nothing is embedded; of fewer it is said that they are there.
_MOST_FOREIGN, _SOME_FOREIGN = 0.5, 0.05
# So many texts that are too short to tell a language are looked at as one.
_TOGETHER = 10
# Of more holdout texts that nearly repeat real ones it is said that they flatter the reference.
_MOST_NEAR = 0.1
# A difference in near copies that chance makes as rarely as this is named.
_RARE = 0.05
_LEAST_DIMENSIONS = 2
# The figures are made for unit vectors; scales far from theirs give wrong ones.
_MOST_LENGTH = 10.0
_MOST_ZERO = 0.05
# The manifolds of precision and recall reach to the third neighbour.
_N_NEIGHBOURS = 3
_ENGLISH_ONLY = frozenset({"all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2"})


def check_samples(samples: dict[str, TextSample]) -> list[str]:
    """Refuses samples that have nothing to compare; returns notes on doubtful ones.

    Raises:
        DataError: real and holdout are the same texts, one of them is a few texts repeated, or labels have
            no value in common.
    """
    words = {role: [words_alone(text) for text in sample.texts] for role, sample in samples.items()}
    real, holdout, synthetic = (set(words[role]) for role in ("real", "holdout", "synthetic"))
    held_out = set(samples["holdout"].texts)
    n_shared = len(held_out & set(samples["real"].texts))
    if n_shared > len(held_out) / 2:
        raise DataError(
            f"{n_shared} of {len(held_out)} holdout texts are also real texts; the holdout must be other "
            "texts of the same source, or its figures mean nothing"
        )
    notes = [
        f"{sample.n_empty} rows of the {role} file have no text and are left out"
        for role, sample in samples.items()
        if sample.n_empty
    ]
    notes += [*_notes_on_copies(words), *_notes_on_near_copies(samples, words)]
    for role, known in (("real", real), ("holdout", holdout)):
        if len(known) <= _N_NEIGHBOURS:
            raise DataError(
                f"only {len(known)} of {len(words[role])} {role} texts are different; remove the duplicates: "
                "every figure would be about those few"
            )
        if len(known) < len(words[role]) / 2:
            notes.append(f"only {len(known)} of {len(words[role])} {role} texts are different")
    n_different = len(synthetic)
    if n_different < len(samples["synthetic"]) / 2:
        notes.append(f"only {n_different} of {len(samples['synthetic'])} synthetic texts are different")
    notes += [*_check_labels(samples), *_notes_on_languages(samples)]
    ours = {word for text in synthetic for word in words_of(text)}
    if not ours & {word for text in real for word in words_of(text)}:
        raise DataError("real and synthetic texts have no word in common; is it the right file and language?")
    return notes


def _check_labels(samples: dict[str, TextSample]) -> list[str]:
    notes = []
    for label, values in samples["synthetic"].labels.items():
        known = set(samples["real"].labels.get(label, ())) - {""}
        if not known & set(values):
            raise DataError(f"label column {label!r}: real and synthetic values have nothing in common")
        if not known & set(samples["holdout"].labels.get(label, ())):
            raise DataError(f"label column {label!r}: real and holdout values have nothing in common")
        for role in ("holdout", "synthetic"):
            found = [value for value in samples[role].labels.get(label, ()) if value]
            n_unknown = sum(value not in known for value in found)
            if n_unknown > len(found) / 2:
                notes.append(
                    f"{n_unknown} {role} values of {label!r} are none of the real ones: written otherwise?"
                )
            plain = {" ".join(value.split()).casefold() for value in known}
            n_near = sum(v not in known and " ".join(v.split()).casefold() in plain for v in found)
            if n_near:
                notes.append(
                    f"{n_near} {role} values of {label!r} are real ones but for capitals or spaces, and "
                    "count as others: write them alike"
                )
    return notes


def refuse_holdout(samples: dict[str, TextSample]) -> None:
    """Refuses to test a model on the texts that it was trained on.

    Raises:
        DataError: most holdout texts are real ones, or most synthetic texts are holdout ones.
    """
    held_out = set(map(words_alone, samples["holdout"].texts))
    n_real = len(held_out & set(map(words_alone, samples["real"].texts)))
    if n_real > len(held_out) / 2:
        raise DataError(
            f"{n_real} of {len(held_out)} holdout texts are also real texts, word for word; the holdout must "
            "be other texts of the same source, or its figures mean nothing"
        )
    n_same = sum(words_alone(text) in held_out for text in samples["synthetic"].texts)
    if n_same > len(samples["synthetic"]) / 2:
        raise DataError(
            f"{n_same} of {len(samples['synthetic'])} synthetic texts are holdout texts, so every figure "
            "would flatter them; the holdout must be texts that nothing was made from"
        )


def check_vectors(samples: dict[str, TextSample]) -> None:
    """Refuses vectors that cannot be compared.

    Raises:
        ConfigError: they were made by different models.
        DataError: they hold NaN or infinity, or have different dimensions or the wrong number of rows.
    """
    embedded = {role: sample for role, sample in samples.items() if sample.vectors is not None}
    models = {sample.embedder for sample in embedded.values()}
    if "" in models:
        raise ConfigError("vectors without the name of their model cannot be compared; set embedder")
    if len(models) > 1:
        raise ConfigError(f"embeddings come from different models ({', '.join(sorted(models))}); use one")
    shapes = set()
    for role, sample in embedded.items():
        vectors = sample.vectors
        assert vectors is not None
        if vectors.ndim != 2 or len(vectors) != len(sample):
            raise DataError(
                f"the {role} data set has {len(sample)} texts and vectors of shape {vectors.shape}"
            )
        n_bad = int((~np.isfinite(vectors)).any(axis=1).sum())
        if n_bad:
            raise DataError(f"{n_bad} embeddings of the {role} data set hold NaN or infinity")
        n_different, n_texts = len(np.unique(vectors, axis=0)), len(set(map(words_alone, sample.texts)))
        is_flat = vectors.any(axis=1).mean() < 1 - _MOST_ZERO or n_different < n_texts / 2
        if vectors.shape[1] < _LEAST_DIMENSIONS or is_flat:
            raise DataError(
                f"the {role} data set has vectors of {vectors.shape[1]} dimensions, more than "
                f"{_MOST_ZERO:.0%} of them zero or most of them alike: they are no embeddings of texts"
            )
        length = float(np.median(np.linalg.norm(vectors, axis=1)))
        if not 1 / _MOST_LENGTH < length < _MOST_LENGTH:
            raise DataError(
                f"the {role} data set has vectors of length {length:.3g}; scale embeddings to unit length"
            )
        shapes.add(vectors.shape[1])
    if len(shapes) > 1:
        raise DataError(f"embeddings have different dimensions ({', '.join(map(str, sorted(shapes)))})")


def _notes_on_copies(words: dict[str, list[str]]) -> list[str]:
    real, holdout, synthetic = (set(words[role]) for role in ("real", "holdout", "synthetic"))
    said = (
        (len(real & holdout), "holdout texts are also real texts: the reference is flattered"),
        (
            sum(text in real for text in words["synthetic"]),
            "synthetic texts are copies of real ones: fidelity and utility are flattered",
        ),
        (
            sum(text in holdout for text in words["synthetic"]),
            "synthetic texts are holdout texts: what is trained on them is tested on them, so that utility "
            "and fidelity mean nothing",
        ),
        (
            sum(text in real or text in holdout for text in words.get("baseline", ())),
            "baseline texts are copies of real or holdout ones, so they are no baseline",
        ),
        (
            sum(text in synthetic for text in words.get("baseline", ())),
            "baseline texts are synthetic ones too, so they are no baseline",
        ),
    )
    return [f"{n} {what}" for n, what in said if n]


def _notes_on_near_copies(samples: dict[str, TextSample], words: dict[str, list[str]]) -> list[str]:
    """Names synthetic texts that nearly repeat a private one, where they do so more than held-out ones do."""
    from scipy.stats import fisher_exact

    exact = {*words["real"], *words["holdout"]}
    rows = [
        text
        for text, alone in zip(samples["synthetic"].texts, words["synthetic"], strict=True)
        if alone not in exact
    ]
    notes = []
    for role, other in (("real", "holdout"), ("holdout", "real")):
        known = list(dict.fromkeys(samples[role].texts))
        n_ours, n_theirs = _n_near(rows, known), _n_near(samples[other].texts, known)
        n_all, n_other = len(samples["synthetic"]), len(samples[other])
        table = [[n_ours, n_all - n_ours], [n_theirs, n_other - n_theirs]]
        if role == "real" and n_theirs > _MOST_NEAR * n_other:
            notes.append(
                f"{n_theirs} of {n_other} holdout texts nearly repeat a real one: the reference is flattered"
            )
        if fisher_exact(table, alternative="greater").pvalue < _RARE:
            notes.append(
                f"{n_ours} of {n_all} synthetic texts nearly repeat a {role} one ({n_theirs} of {n_other} "
                f"{other} texts do): fidelity and utility are flattered"
            )
    return notes


def _n_near(texts: Sequence[str], known: Sequence[str]) -> int:
    # The known ones come first: of a phrase that hundreds share, each of the others is compared with those.
    pairs = near_duplicate_pairs([*known, *texts], n_known=len(known))
    return len(np.unique(pairs[(pairs[:, 0] < len(known)) & (pairs[:, 1] >= len(known)), 1]))


def _languages(sample: TextSample) -> list[str]:
    """Returns the language of some of the texts, where it can be told."""
    # Files are often sorted; what is taken does not depend on the seed of the figures.
    rows = np.random.default_rng(0).permutation(len(sample))[:_LANGUAGE_SAMPLE]
    texts = [sample.texts[row] for row in rows]
    codes = detect_languages(texts)
    told = [code for code in codes if code]
    short = [text for text, code in zip(texts, codes, strict=True) if not code]
    if len(short) > len(told):
        parts = [short[i : i + _TOGETHER] for i in range(0, len(short), _TOGETHER)]
        together = detect_languages([" ".join(part) for part in parts])
        told += [code for code, part in zip(together, parts, strict=True) if code for _ in part]
    return told


def _notes_on_languages(samples: dict[str, TextSample]) -> list[str]:
    usual = {
        role: found[0][0]
        for role in ("real", "holdout", "synthetic")
        if (found := Counter(_languages(samples[role])).most_common(1)) and found[0][0] != UNKNOWN
    }
    return [
        f"most {role} texts are in {code!r} and most real ones in {usual['real']!r}: figures that compare "
        "words or embeddings mean nothing"
        for role, code in usual.items()
        if "real" in usual and code != usual["real"]
    ]


def are_readable(embedder: Embedder, samples: dict[str, TextSample], notes: list[str]) -> bool:
    """Tells whether an embedder knows the language of the texts; adds notes where it does not know all.

    Vectors of a language that a model does not know look fine and mean little.
    """
    if embedder.name not in _ENGLISH_ONLY:
        return True
    for role, sample in samples.items():
        codes = _languages(sample)
        share = sum(code != "en" for code in codes) / len(codes) if codes else 0.0
        of = f"{share:.0%} of the {role} texts are not English, which {embedder.name} cannot read"
        if share > _MOST_FOREIGN:
            notes.append(f"{of}: no metrics on embeddings; name a multilingual embedder")
            return False
        if share > _SOME_FOREIGN:
            notes.append(f"{of}: metrics on embeddings say nothing of them")
    return True
