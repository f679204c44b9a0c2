"""What a run costs, from measurements at three sizes; checked on a fourth, then applied to large ones.

    python benchmarks/cost_model.py

Runs of `guarantee: end-to-end` with models that cost nothing (made-up sentences, hashed words): calls,
tokens, bytes and the processor seconds of all but models are measured. What models and votes take is
multiplied in from the rates that the options give; their defaults were measured elsewhere (docs/models.md,
docs/scale.md). Each figure is fitted as a + b records + c texts on three sizes.
"""

import argparse
import os
import platform
import random
import sqlite3
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from rpsg import pipeline
from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.privacy.noise import FixedNoise
from rpsg.types import PrivateCorpus, PrivateRecord, Progress

FITTED = ((2_000, 200), (4_000, 800), (8_000, 400))
CHECKED = (16_000, 1_600)
APPLIED = ((1_000_000, 10_000), (10_000_000, 100_000))
NAMES = ("model calls", "tokens read", "tokens written", "run folder, MB", "core seconds but models")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens-per-second", type=float, default=15_202, help="one GPU writes")
    parser.add_argument("--seconds-per-vector", type=float, default=0.04, help="one core embeds")
    parser.add_argument("--seconds-per-vote", type=float, default=6.2e-9, help="a record and a candidate")
    parser.add_argument(
        "--dollars", type=float, nargs=2, default=(0.15, 0.60), help="a million tokens: read, written"
    )
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores; one run a size", flush=True)
    measure(500, 50)  # loads what is loaded once
    measured, found = [measure(*size) for size in FITTED], measure(*CHECKED)
    weights = [fit([run[i] for run in measured]) for i in range(len(NAMES))]
    print(f"{'':28}" + "".join(f"{f'{n:,} records, {m:,} texts':>28}" for n, m in (*FITTED, CHECKED)))
    for i, name in enumerate(NAMES):
        shown = "".join(f"{run[i]:>28,.1f}" for run in (*measured, found))
        said = predict(weights[i], *CHECKED)
        print(f"{name:28}{shown}   predicted {said:,.1f} ({said / found[i] - 1:+.1%})")
    for n_records, n_texts in APPLIED:
        calls, read, written, megabytes, seconds = (predict(item, n_records, n_texts) for item in weights)
        gpu = written / options.tokens_per_second / 3600
        embed = n_records * options.seconds_per_vector / 3600
        votes = n_records * 2 * n_texts * options.seconds_per_vote / 3600
        money = (read * options.dollars[0] + written * options.dollars[1]) / 1e6
        print(
            f"{n_records:,} records, {n_texts:,} texts: {calls:,.0f} calls, {read / 1e6:,.1f} M tokens read, "
            f"{written / 1e6:,.1f} M written = {gpu:.2f} GPU hours or {money:,.2f} dollars; embedding "
            f"{embed:,.0f} core hours; a vote {votes:.2f} core hours; all else {seconds / 3600:,.2f}; run "
            f"folder {megabytes / 1000:,.1f} GB"
        )


def measure(n_records: int, n_texts: int) -> list[float]:
    rng = random.Random(0)
    words = sorted(
        {
            word
            for record in read_corpus(sample_path("posts_train.jsonl")).records
            for word in record.text.split()
        }
    )
    records = tuple(
        PrivateRecord(record_id=str(i), unit_id=str(i), text=" ".join(rng.choices(words, k=90)), labels={})
        for i in range(n_records)
    )
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig.parse(
            {
                "guarantee": "end-to-end", "epsilon": 4, "n": n_texts, "n_units_bound": 900_000,
                "models": {"write": "fake", "embed": "hash", "sentiment": None},
                "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}, "refill_rounds": 0},
                "evaluate": {"enabled": False}, "output": {"folder": f"{folder}/run"},
            }
        )  # fmt: skip
        corpus = PrivateCorpus(records=records)
        began = time.process_time()

        def note(step: Progress) -> None:
            counts["written"] += step.n_new

        pipeline.run(config, corpus, noise=FixedNoise(0), on_progress=note)
        seconds = time.process_time() - began
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
        with sqlite3.connect(f"{folder}/run/private/calls.sqlite") as db:
            (n_calls,) = db.execute("SELECT SUM(json_array_length(replies)) FROM chunks").fetchone()
            (read,) = db.execute(
                "SELECT SUM(json_extract(reply.value, '$[0].n_prompt_tokens')) "
                "FROM chunks, json_each(replies) AS reply"
            ).fetchone()
    return [float(n_calls), float(read), float(counts["written"]), size, seconds]


def fit(values: list[float]) -> np.ndarray:
    return np.linalg.solve(np.array([(1.0, n, m) for n, m in FITTED]), np.array(values))


def predict(weights: np.ndarray, n_records: int, n_texts: int) -> float:
    return float(weights @ (1.0, n_records, n_texts))


if __name__ == "__main__":
    main()
