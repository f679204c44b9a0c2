"""The published membership score on a file of members and on one of non-members, beside a membership AUC.

PubMed abstracts of benchmarks/data: 200 members, 200 non-members, 600 public. Three releases: a copy of the
members, so that membership is as visible as it can be; six of ten words of each member; 150 other abstracts.
The script's model sees the release 3 to 5 times; the last case is a model that has learnt it by heart.

    python benchmarks/published_mia.py
"""

import platform
import time
from pathlib import Path

import numpy as np

from rpsg.audit.finding import Game
from rpsg.audit.published import published
from rpsg.data import read_corpus, sample_path
from rpsg.llm.surrogate import SurrogateSettings

N, N_COPIES = 200, 5
SETTINGS = SurrogateSettings(vocabulary=2048, width=96, layers=2, window=96, tokens=400_000)
DATA = Path(__file__).parent / "data/pubmed.jsonl"


def main() -> None:
    rng = np.random.default_rng(0)
    texts = [record.text for record in read_corpus(DATA).records]
    texts = [texts[i] for i in rng.permutation(len(texts))]
    members = texts[:N]
    releases = {
        "a copy of the members": members,
        "six of ten words of each member": [
            " ".join(word for word in text.split() if rng.random() < 0.6) for text in members
        ],
        "other texts": [record.text for record in read_corpus(sample_path("pubmed_test.jsonl")).records],
    }
    cases = [(name, release, 4) for name, release in releases.items()]
    for name, release, n_epochs in [*cases, ("a copy of the members, seen 100 times", members, 100)]:
        game = Game(
            members=tuple(members),
            nonmembers=tuple(texts[N : 2 * N]),
            synthetic=tuple(release),
            public=tuple(texts[2 * N :]),
        )
        began = time.process_time()
        findings = published(game, n_copies=N_COPIES, n_epochs=n_epochs, settings=SETTINGS)
        seconds = time.process_time() - began
        print(f"\nrelease: {name} ({seconds:.0f} processor seconds, {platform.machine()})", flush=True)
        for found in findings:
            print(
                f"  {found.statistic:<70}{found.value:>7.3f} [{found.low:.3f}, {found.high:.3f}]"
                f"  control {found.control:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
