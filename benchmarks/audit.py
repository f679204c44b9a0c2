"""Time of a whole audit: 1,000 released texts against 1,000 members and 1,000 non-members.

The texts are sentences of PubMed abstracts put together anew, eight a text, so that there are enough of them;
no text of one part is in another, but sentences are. What is found is beside the point, only the time counts.

    python benchmarks/audit.py [texts of each part, default 1000]
"""

import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from rpsg.audit.finding import Game
from rpsg.audit.run import audit
from rpsg.data import read_corpus

DATA = Path(__file__).parent / "data/pubmed.jsonl"
N_SENTENCES = 8


def main(n: int) -> None:
    rng = np.random.default_rng(0)
    sentences = [part for record in read_corpus(DATA).records for part in record.text.split(". ")]
    texts = [". ".join(rng.choice(sentences, size=N_SENTENCES).tolist()) for _ in range(3 * n)]
    game = Game(members=tuple(texts[:n]), nonmembers=tuple(texts[n : 2 * n]), synthetic=tuple(texts[2 * n :]))
    words = sum(len(text.split()) for text in texts) / len(texts)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads; {n} texts a part, {words:.0f} words each"
    )
    began = time.perf_counter()
    found = audit(game)
    for name, seconds in found.seconds.items():
        print(f"{seconds:7.1f} s  {name}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.perf_counter() - began:7.1f} s  in all (one run), peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
