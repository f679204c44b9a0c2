"""Self-BLEU of 1,000 texts of 100 words: seconds of ours and of NLTK's sentence_bleu, and both values.

NLTK is no dependency; without it only our time is printed.

    python benchmarks/self_bleu.py [texts] [texts for NLTK]
"""

import platform
import sys
import time

import numpy as np

from rpsg.evaluate.ngrams import bleu_against_others, count_ngrams

N_WORDS, N_VOCABULARY = 100, 20_000


def main(n: int, n_nltk: int) -> None:
    words = np.minimum(np.random.default_rng(0).zipf(1.3, size=(n, N_WORDS)), N_VOCABULARY)
    texts = [[f"w{word}" for word in row] for row in words]
    began = time.perf_counter()
    ours = bleu_against_others(count_ngrams(texts))
    seconds = time.perf_counter() - began
    print(f"{platform.machine()}: {n} texts of {N_WORDS} words, ours {seconds:.2f} s, {ours.mean():.12f}")
    try:
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    except ImportError:
        print("NLTK is not installed")
        return
    smooth = SmoothingFunction().method1
    began = time.perf_counter()
    theirs = [
        sentence_bleu(texts[:i] + texts[i + 1 :], texts[i], smoothing_function=smooth) for i in range(n_nltk)
    ]
    # Each text costs NLTK the same, so a part of them tells the time of all.
    whole = (time.perf_counter() - began) * n / n_nltk
    print(f"NLTK {whole:.0f} s (from {n_nltk} texts against all others), {whole / seconds:.0f} times as long")
    print(f"largest difference of a text's score: {np.abs(np.array(theirs) - ours[:n_nltk]).max():.1e}")


if __name__ == "__main__":
    arguments = [int(value) for value in sys.argv[1:]]
    size = arguments[0] if arguments else 1000
    main(size, arguments[1] if len(arguments) > 1 else size)
