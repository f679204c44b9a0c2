"""How often the audit cries wolf: who is a member is drawn anew, again and again, whatever the texts are.

    python benchmarks/audit_null.py [permutations, default 200]

PubMed abstracts, 120 to a side, and a release of 60 others; each time the 240 are dealt to the sides anew.
What is counted is the smallest p of an audit after Holm's adjustment: below 0.01 in at most one audit of a
hundred, if the level is kept. Attacks with language models are left out; they take minutes each time.
"""

import platform
import sys
import time
from pathlib import Path

import numpy as np

from rpsg.audit.finding import Game
from rpsg.audit.run import AuditSettings, audit
from rpsg.audit.verdict import ALPHA, LEAK
from rpsg.data import read_corpus
from rpsg.errors import DataError

DATA = Path(__file__).parent / "data/pubmed.jsonl"
N_SIDE, N_RELEASED = 120, 60


def main(n_permutations: int) -> None:
    rng = np.random.default_rng(0)
    texts = [record.text for record in read_corpus(DATA).records]
    drawn = [texts[i] for i in rng.permutation(len(texts))[: 2 * N_SIDE + N_RELEASED]]
    dealt, released = drawn[N_RELEASED:], tuple(drawn[:N_RELEASED])
    smallest, verdicts, refused, began = [], 0, 0, time.perf_counter()
    for seed in range(n_permutations):
        order = [dealt[i] for i in rng.permutation(2 * N_SIDE)]
        game = Game(
            members=tuple(order[:N_SIDE]), nonmembers=tuple(order[N_SIDE:]), synthetic=released, seed=seed
        )
        try:
            verdict = audit(game, AuditSettings(language_models=False)).verdict
        except (
            DataError
        ):  # the control, which never sees the release, takes one split of a hundred for biased
            refused += 1
            continue
        assert verdict.p_smallest is not None
        smallest.append(verdict.p_smallest)
        verdicts += verdict.word == LEAK
        if (seed + 1) % 20 == 0:
            print(f"{seed + 1}: smallest so far {min(smallest):.4f}", flush=True)
    below, near = (sum(p < level for p in smallest) for level in (ALPHA, 0.05))
    seconds = (time.perf_counter() - began) / n_permutations
    print(
        f"{platform.machine()}; {n_permutations} permutations, {refused} refused by the split's control; of "
        f"the others the smallest adjusted p {min(smallest):.4f}, {below} below {ALPHA}, {near} below 0.05; "
        f"{verdicts} verdicts 'leak found'; {seconds:.1f} s each"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
