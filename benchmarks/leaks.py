"""What the attacks on copied, disclosed, linked and replayed text find, their seconds, and how copying grows.

Controls: 500 members and 500 non-members of 1,000 PubMed abstracts split at random; a release of 150 other
abstracts, alone and with copies of 2, 5 and 10 % of the members.

Speed: texts of about 185 words, made of the sentences of different abstracts put together, so that any number
of texts can be had. Every second released text keeps half the words of a member.
On a machine that does other things too, the processor seconds tell more than those on the clock.

    python benchmarks/leaks.py [texts of each kind] [texts for the growth of copying]
"""

import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rpsg.audit.aggregation import aggregation
from rpsg.audit.copying import copying
from rpsg.audit.description import description
from rpsg.audit.disclosure import disclosure
from rpsg.audit.extraction import extraction
from rpsg.audit.finding import Finding, Game
from rpsg.audit.linkage import linkage
from rpsg.audit.pii_replay import pii_replay
from rpsg.data import read_corpus, sample_path

DATA = Path(__file__).parent / "data/pubmed.jsonl"


def main(n: int, n_long: int) -> None:
    show_controls()
    show_speed(n, n_long)


def show_controls() -> None:
    texts = [record.text for record in read_corpus(DATA).records]
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]
    others = [record.text for record in read_corpus(sample_path("pubmed_test.jsonl")).records]
    for n_copied in (0, 10, 25, 50):
        game = Game(
            members=tuple(texts[:500]),
            nonmembers=tuple(texts[500:]),
            synthetic=(*others, *texts[100 : 100 + n_copied]),
        )
        print(f"{n_copied} of 500 members copied")
        for found in (*copying(game), *disclosure(game), *pii_replay(game)):
            if found.p_value is not None or "epsilon" in found.statistic:
                tested = "" if found.p_value is None else f" p {found.p_value:.2g}"
                print(f"  {found.attack}, {found.statistic}: {found.value} control {found.control}{tested}")


def show_speed(n: int, n_long: int) -> None:
    print(f"{platform.machine()}, numpy {np.__version__}: {n} released texts, {n} + {n} records")
    game = make_game(n)
    pairs = {i: i for i in range(0, n, 2)}
    attacks: dict[str, Callable[[], tuple[Finding, ...]]] = {
        "copying": lambda: copying(game),
        "disclosure": lambda: disclosure(game),
        "linkage": lambda: linkage(game, pairs, generator=""),
        "pii replay": lambda: pii_replay(game),
        "extraction": lambda: extraction(game),
        "aggregation": lambda: aggregation(game),
        "description": lambda: description(game),
    }
    total = np.zeros(2)
    for name, attack in attacks.items():
        seconds = spent(attack)
        total += seconds
        print(describe(name, seconds), flush=True)
    print(describe("together", total))
    few, many = (make_game(size // 3) for size in (n_long // 10, n_long))
    short, long = spent(lambda: copying(few))[1], spent(lambda: copying(many))[1]
    print(
        f"copying: {short:.2f} processor seconds for {n_long // 10} texts, {long:.2f} for {n_long}: "
        f"{long / short:.1f} times"
    )


def spent(work: Callable[[], object]) -> np.ndarray:
    began = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - began


def describe(name: str, seconds: np.ndarray) -> str:
    return f"{name:<12}{seconds[0]:>8.1f} s on the clock, {seconds[1]:.1f} processor seconds"


def make_game(n: int) -> Game:
    rng = np.random.default_rng(0)
    sentences = [
        sentence
        for record in read_corpus(DATA).records
        for sentence in re.split(r"(?<=[.!?])\s+", record.text)
    ]
    texts = [" ".join(sentences[i] for i in rng.integers(0, len(sentences), size=9)) for _ in range(3 * n)]
    released = [
        " ".join(word for word in texts[i].split() if rng.random() < 0.5) if i % 2 == 0 else texts[2 * n + i]
        for i in range(n)
    ]
    return Game(members=tuple(texts[:n]), nonmembers=tuple(texts[n : 2 * n]), synthetic=tuple(released))


if __name__ == "__main__":
    arguments = [int(value) for value in sys.argv[1:]]
    main(arguments[0] if arguments else 1000, arguments[1] if len(arguments) > 1 else 10_000)
