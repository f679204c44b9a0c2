"""How should a vote's noisy counts rank candidates? The texts of one end-to-end run, ranked in several ways.

Runs one cell of a benchmark up to its vote (or goes on with such a run), and judges the texts that would be
released first: by chance, by the counts themselves, and by kernel herding of several widths. The vote's own
noise is in the run; nothing is drawn again, so all rows share it.

    python benchmarks/ranking.py benchmarks/configs/standard.yaml CELL DIR
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import numpy as np

from rpsg import end_to_end, registry
from rpsg.bench.check import split
from rpsg.bench.matrix import BenchConfig, Cell, cells_of
from rpsg.bench.vectors import KeptVectors
from rpsg.evaluate.metrics import chosen_metrics
from rpsg.evaluate.run import evaluate, prepare, sample_of
from rpsg.pipeline import load_corpus, run
from rpsg.plan_keys import KeysPlan
from rpsg.scores import TextSample
from rpsg.session import Session
from rpsg.stages import herding
from rpsg.text import is_usable
from rpsg.types import Candidate, FloatArray, PrivateCorpus

WIDTHS = (0.1, 0.2, 0.5, 1.0, 2.0)
FIGURES = ("frechet_distance", "mauve", "coverage", "recall", "self_bleu", "distinct_2", "next_word_accuracy")
DRAWS = 50


class VoteIsOver(Exception):
    """Ends the run: nothing is released, the run can go on."""


def main(config: Path, name: str, folder: Path) -> None:
    bench = BenchConfig.load(config)
    cell = next(cell for cell in cells_of(bench) if cell.name == name)
    given, held_out = split(bench, load_corpus(cell.run_config(folder)), cell.seed)
    texts, counts, vectors, noise = vote_of(cell, folder, given)
    embedder = KeptVectors(registry.embedder(cell.run_config(folder).models.embed), folder / "private/judged")
    rng = np.random.default_rng(0)
    ways = {"chance": rng.permutation(len(texts)), "counts": np.argsort(-counts, kind="stable")}
    for width in WIDTHS:
        herding.WIDTH = width
        ways[f"herding, {width}"] = np.asarray(herding.rank_by_herding(counts.tolist(), vectors, noise=noise))
    print(f"{len(texts)} candidates, {len(given)} private texts, {counts.sum():.0f} noisy votes")
    print(f"| ranked by | {' | '.join(FIGURES)} |\n" + "|---" * (len(FIGURES) + 1) + "|")
    for way, order in ways.items():
        best = tuple(sorted(texts[i] for i in order[: bench.n]))
        samples = {
            "real": sample_of(given), "holdout": sample_of(held_out), "synthetic": TextSample(texts=best),
        }  # fmt: skip
        comparison, _ = prepare(samples, embedder=embedder, seed=cell.seed, repeats=DRAWS)
        scored = evaluate(comparison, chosen_metrics([], bench.language_model, compared=False)).scores
        values = {score.name: score.value for _, score in scored}
        print(f"| {way} | {' | '.join(f'{values[figure]:.3g}' for figure in FIGURES)} |", flush=True)


def vote_of(
    cell: Cell, folder: Path, given: PrivateCorpus
) -> tuple[list[str], herding.Reals, FloatArray, float]:
    """Returns the candidates that could be released, their noisy counts, their vectors and the noise."""
    seen: list[tuple[list[float], FloatArray, float]] = []
    written: list[str] = []
    hold = end_to_end.vote_in_rounds

    def keep(counts: Sequence[float], vectors: FloatArray, *, noise: float) -> list[int]:
        seen.append((list(counts), vectors, noise))
        return herding.rank_by_herding(counts, vectors, noise=noise)

    def stop(
        session: Session, corpus: PrivateCorpus, candidates: Sequence[Candidate], planned: KeysPlan
    ) -> list[Candidate]:
        hold(session, corpus, candidates, planned)
        written.extend(item.text for item in candidates if is_usable(item.text))
        raise VoteIsOver

    with (
        patch.object(end_to_end, "rank_by_herding", keep),
        patch.object(end_to_end, "vote_in_rounds", stop),
        suppress(VoteIsOver),
    ):
        run(cell.run_config(folder), given)
    ((counts, vectors, noise),) = seen
    return written, np.asarray(counts), vectors, noise


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
