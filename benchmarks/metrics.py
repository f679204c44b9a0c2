"""Seconds and memory of every metric, and how they grow with the number of texts.

Random unit vectors of 384 dimensions and random texts of 100 words stand for a data set, so embedding is
not counted. Every metric computes its value, reference and baseline over all its repetitions, as
`rpsg evaluate` does. On a machine that does other things too, the processor seconds tell more than those
on the clock; draws run on all cores.

    python benchmarks/metrics.py [rows ...]
"""

import platform
import resource
import sys
import time

import numpy as np

from rpsg.evaluate.metrics import fast_metrics
from rpsg.scores import Comparison, TextSample

DIMENSION, N_WORDS, N_VOCABULARY = 384, 100, 20_000


def main(sizes: list[int]) -> None:
    print(f"{platform.machine()}, numpy {np.__version__}")
    seconds: dict[str, list[float]] = {}
    for n in sizes:
        comparison = make_comparison(n)
        clock = 0.0
        for metric in fast_metrics():
            began, began_cpu = time.perf_counter(), time.process_time()
            scores = metric.score(comparison)
            seconds.setdefault(metric.name, []).append(time.process_time() - began_cpu)
            clock += time.perf_counter() - began
            assert all(score.value is not None for score in scores), scores
        total = sum(spent[-1] for spent in seconds.values())
        print(
            f"{n} x {n}: {clock:.0f} s on the clock, {total:.0f} processor seconds, peak {peak_gb():.2f} GB",
            flush=True,
        )
    print(f"\n{'processor':<14}" + "".join(f"{n:>10}" for n in sizes) + "    growth with n")
    for name, spent in seconds.items():
        shown = "".join(f"{value:>9.1f}s" for value in spent)
        print(f"{name:<14}{shown}    {growth(sizes, spent)}")


def make_comparison(n: int) -> Comparison:
    rng = np.random.default_rng(0)
    return Comparison(
        real=make_sample(n, rng, 0.0),
        holdout=make_sample(n, rng, 0.0),
        synthetic=make_sample(n, rng, 0.02),
        baseline=make_sample(n, rng, 0.1),
    )


def make_sample(n: int, rng: np.random.Generator, shift: float) -> TextSample:
    vectors = rng.normal(size=(n, DIMENSION)) * np.linspace(2, 0.2, DIMENSION) + shift
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # Word frequencies fall like those of a language.
    words = np.minimum(rng.zipf(1.3, size=(n, N_WORDS)), N_VOCABULARY)
    texts = tuple(" ".join(f"w{word}" for word in row) + "." for row in words)
    return TextSample(texts=texts, vectors=vectors.astype(np.float32))


def growth(sizes: list[int], spent: list[float]) -> str:
    if len(sizes) < 2:
        return ""
    return f"n^{np.log(spent[-1] / spent[-2]) / np.log(sizes[-1] / sizes[-2]):.1f}"


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main([int(value) for value in sys.argv[1:]] or [2_500, 5_000, 10_000])
