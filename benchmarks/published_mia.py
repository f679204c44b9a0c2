"""The published membership score on a file of members and on one of non-members, beside a membership AUC.

PubMed abstracts of benchmarks/data: 200 members, 200 non-members, 600 public. Two releases: one that is a
copy of the members, so that membership is as visible as it can be, and one made of 150 other abstracts.

    python benchmarks/published_mia.py
"""

import platform
import time
from pathlib import Path

import numpy as np

from rpsg.audit.finding import Game
from rpsg.audit.published import published
from rpsg.data import read_corpus, sample_path

N = 200
DATA = Path(__file__).parent / "data/pubmed.jsonl"


def main() -> None:
    texts = [record.text for record in read_corpus(DATA).records]
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]
    others = [record.text for record in read_corpus(sample_path("pubmed_test.jsonl")).records]
    for name, release in (("a copy of the members", texts[:N]), ("other texts", others)):
        game = Game(
            members=tuple(texts[:N]),
            nonmembers=tuple(texts[N : 2 * N]),
            synthetic=tuple(release),
            public=tuple(texts[2 * N :]),
        )
        began = time.perf_counter()
        findings = published(game, n_copies=5)
        seconds = time.perf_counter() - began
        print(f"\nrelease: {name} ({seconds:.0f} s, {platform.machine()})", flush=True)
        for found in findings:
            print(
                f"  {found.statistic:<66}{found.value:>7.3f} [{found.low:.3f}, {found.high:.3f}]"
                f"  control {found.control:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
