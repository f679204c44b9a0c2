"""Time and memory at size, each beside this machine's own limit measured in the same run.

    python benchmarks/scale.py votes --rows 1000000 --candidates 10000
    python benchmarks/scale.py read --megabytes 5000
    python benchmarks/scale.py start
    python benchmarks/scale.py run --records 20000 --texts 100 --writer fake

Data are made in a temporary folder and removed. `--threads` sets BLAS and torch threads (default: all cores).
Peak memory is the resident set of the whole process, libraries included.
"""

import argparse
import csv
import functools
import json
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from threadpoolctl import threadpool_limits

from rpsg import data, end_to_end, pipeline, session
from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.llm.embed import TransformerEmbedder
from rpsg.llm.fake import HashEmbedder
from rpsg.privacy.ledger import Ledger
from rpsg.session import Session
from rpsg.stages import vote
from rpsg.stages.refine import Refinery
from rpsg.vectors import BLOCK, VectorStore

DIMENSION = 384
BRUTE_FORCE = 500
PARTS = 10
FIT_ROWS = 40_000
SHOWN_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    commands = parser.add_subparsers(dest="command", required=True)
    votes = commands.add_parser("votes")
    votes.add_argument("--rows", type=int, default=50_000)
    votes.add_argument("--candidates", type=int, default=10_000)
    read = commands.add_parser("read")
    read.add_argument("--megabytes", type=int, default=500)
    read.add_argument("--file", type=Path, help="a csv with columns text and topic, made before")
    commands.add_parser("start")
    whole = commands.add_parser("run")
    whole.add_argument("--records", type=int, default=2_000)
    whole.add_argument("--texts", type=int, default=100)
    whole.add_argument("--writer", default="fake", help="fake costs nothing: what is left is the rest")
    whole.add_argument("--embedder", default="all-minilm-l6-v2")
    whole.add_argument("--sentences", type=int, nargs=2, default=(4, 12), help="fewest and most of a text")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads, numpy {np.__version__}, "
        f"load {os.getloadavg()[0]:.1f}; {memory()}"
    )
    with threadpool_limits(options.threads), tempfile.TemporaryDirectory() as folder:
        if options.command == "votes":
            measure_votes(options.rows, options.candidates, Path(folder))
        elif options.command == "read":
            measure_reading(options.file or write_csv(options.megabytes, Path(folder)))
        elif options.command == "start":
            measure_start(Path(folder))
        else:
            measure_run(options, Path(folder))


def memory() -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"peak memory {peak:.2f} GiB"


# --- votes -----------------------------------------------------------------------------------------


def measure_votes(n_rows: int, n_candidates: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    store = VectorStore(folder / "vectors", model="random")
    for start in range(0, n_rows, BLOCK):
        n = min(BLOCK, n_rows - start)
        names = [str(i) for i in range(start, start + n)]
        store.embed(names, lambda texts: unit_vectors(rng, len(texts)))
    candidates = unit_vectors(rng, n_candidates)
    every = np.arange(n_rows)
    print(f"votes of {n_rows:,} x {DIMENSION} float32 on disk on {n_candidates:,} candidates; {memory()}")
    found, seconds, rates = [], 0.0, []
    # The two take turns, so that what else the machine does falls on both.
    for part in np.array_split(every, PARTS):
        rates.append(gemm_rate())
        choices, spent = timed(functools.partial(vote.nearest, store, candidates, rows=part))
        found.append(choices)
        seconds += spent
    rates.append(gemm_rate())
    rate, limit = 2.0 * n_rows * n_candidates * DIMENSION / seconds / 1e9, float(np.mean(rates))
    print(
        f"{seconds:.1f} s, {rate:.1f} GFLOP/s; float32 matrix products in between {limit:.1f} GFLOP/s "
        f"({min(rates):.1f} to {max(rates):.1f}): share {rate / limit:.2f}; {memory()}"
    )
    sample = np.sort(rng.choice(every, size=min(BRUTE_FORCE, n_rows), replace=False))
    equal = np.array_equal(np.concatenate(found)[sample], brute_force(store[sample], candidates))
    print(f"equal to brute force on whole numbers, {len(sample)} rows: {equal}")
    few = every[:FIT_ROWS]
    fractions = (8, 4, 2, 1)
    print_fit("rows", [len(few) // i for i in fractions], lambda n: (few[:n], candidates), store)
    print_fit("candidates", [n_candidates // i for i in fractions], lambda n: (few, candidates[:n]), store)


def unit_vectors(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.standard_normal(size=(n, DIMENSION), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def gemm_rate() -> float:
    """Returns GFLOP/s of large square float32 products: this machine's own rate."""
    n = 3000
    left, right = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
    out = np.empty((n, n), np.float32)
    return (
        2 * n**3 / float(np.mean([timed(lambda: np.matmul(left, right, out=out))[1] for _ in range(4)])) / 1e9
    )


def brute_force(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    # Another way to the same: whole numbers, which do not round.
    whole = np.rint(items.astype(np.float64) * 2.0**15).astype(np.int64)
    rows = np.rint(queries.astype(np.float64) * 2.0**15).astype(np.int64)
    return np.asarray([int(np.argmax(whole @ row)) for row in rows])


def print_fit(name: str, sizes: list[int], choose: Callable[[int], tuple], store: VectorStore) -> None:
    seconds = []
    for n in sizes:
        rows, items = choose(n)
        seconds.append(timed(functools.partial(vote.nearest, store, items, rows=rows))[1])
    slope, power = np.polyfit(sizes, seconds, 1)[0], np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    fitted = np.polyval(np.polyfit(sizes, seconds, 1), sizes)
    residual = 1 - np.sum((seconds - fitted) ** 2) / np.sum((seconds - np.mean(seconds)) ** 2)
    shown = ", ".join(f"{n:,}: {value:.2f} s" for n, value in zip(sizes, seconds, strict=True))
    print(f"{name}: {shown}; {slope * 1e6:.1f} s a million, R2 {residual:.4f}, exponent {power:.2f}")


def timed(call: Callable[[], object]) -> tuple:
    began = time.perf_counter()
    value = call()
    return value, time.perf_counter() - began


# --- reading ---------------------------------------------------------------------------------------


def write_csv(megabytes: int, folder: Path) -> Path:
    path = folder / "texts.csv"
    n = 0
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "topic"])
        for text in recombined(random.Random(0)):
            writer.writerow([text, f"topic {n % 7}"])
            n += 1
            if n % 1000 == 0 and file.tell() > megabytes * 10**6:
                break
    return path


def measure_reading(path: Path) -> None:
    size = path.stat().st_size
    raw = min(timed(lambda: read_bytes(path))[1] for _ in range(2))
    parsed = timed(lambda: parse(path))[1]
    print(f"csv of {size / 1e9:.2f} GB; bytes alone {raw:.1f} s, csv module alone {parsed:.1f} s")
    corpus, seconds = timed(lambda: read_corpus(path, label_columns=("topic",)))
    print(f"read_corpus {seconds:.1f} s ({seconds / parsed:.1f} times csv alone); {memory()}")
    digest, seconds = timed(lambda: data.fingerprint(corpus))
    print(f"fingerprint {seconds:.1f} s; {len(corpus):,} records; {memory()}; {digest[:8]}")


def read_bytes(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


def parse(path: Path) -> None:
    with path.open(newline="") as file:
        for _ in csv.reader(file):
            pass


def recombined(rng: random.Random, fewest: int = 4, most: int = 12) -> Iterator[str]:
    """Yields new texts without end, of sentences of the sample texts."""
    texts = [record.text for record in read_corpus(sample_path("posts_train.jsonl")).records]
    sentences = [part for text in texts for part in re.split(r"(?<=[.!?])\s+", text) if len(part.split()) > 3]
    while True:
        yield " ".join(rng.choices(sentences, k=rng.randint(fewest, most)))


# --- start-up --------------------------------------------------------------------------------------


def measure_start(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(json.dumps({"data": {"path": str(sample_path("posts_train.jsonl"))}}))
    command = [sys.executable, "-m", "rpsg"]
    bare = best([sys.executable, "-c", "pass"])
    print(f"python alone: {bare}")
    print(f"rpsg --help, limit 0.5 s: {best([*command, '--help'])}")
    print(f"rpsg validate, limit 2 s: {best([*command, 'validate', str(path)])}")


def best(command: list[str]) -> str:
    found = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _, wall = timed(lambda: subprocess.run(command, check=True, capture_output=True))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append((wall, cpu))
    wall, cpu = (min(values) for values in zip(*found, strict=True))
    return f"{wall:.2f} s, of it {cpu:.2f} s of processor (best of {len(found)})"


# --- a whole run -----------------------------------------------------------------------------------


def measure_run(options: argparse.Namespace, folder: Path) -> None:
    path = folder / "texts.jsonl"
    rng = random.Random(0)
    with path.open("w") as file:
        for i, text in zip(range(options.records), recombined(rng, *options.sentences), strict=False):
            file.write(json.dumps({"text": text, "topic": ("rent", "work", "health")[i % 3]}) + "\n")
    config = RunConfig.parse(
        {
            "data": {"path": str(path), "label_columns": ["topic"]},
            "guarantee": "end-to-end",
            "epsilon": 8,
            "n": options.texts,
            "n_units_bound": options.records * 6 // 5,
            "models": {"write": options.writer, "embed": options.embedder},
            "output": {"folder": str(folder / "run")},
        }
    )
    print(f"end to end, {options.records:,} records, {options.texts} texts, writer {options.writer}")
    seconds: dict[str, float] = defaultdict(float)
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    with ExitStack() as patches:
        for name, owner, attribute, _ in WATCHED:
            patches.enter_context(watched(name, owner, attribute, seconds))
        _, total = timed(lambda: pipeline.run(config, pipeline.load_corpus(config)))
    rows = sorted(seconds.items(), key=lambda item: -item[1])
    in_models = sum(seconds[name] for name, _, _, is_model in WATCHED if is_model)
    in_models /= total - seconds["load models"]
    for name, value in [*rows, ("all", total), ("elsewhere", total - sum(seconds.values()))]:
        print(f"  {name:<28}{value:>9.2f} s {value / total:>7.1%}")
    print(f"in models, of the time after they were loaded: {in_models:.1%}; {memory()}")


# Each is timed without what others of these take within it; the second half is models.
WATCHED = (
    ("read", pipeline, "load_corpus", False),
    ("fingerprint", data, "fingerprint", False),
    ("charge the budget", end_to_end, "settle", False),
    ("load models", session, "load_models", False),
    ("keep embeddings", Session, "embed_records", False),
    ("keys", end_to_end, "extract_keys", False),
    ("votes", end_to_end, "cast_votes", False),
    ("noise and ledger", Ledger, "release", False),
    ("files of the release", end_to_end, "publish", False),
    ("scores", end_to_end, "judge", False),
    ("detect languages", pipeline, "detect_languages", True),
    ("topics of public texts", end_to_end, "build_topics", True),
    ("embedder", TransformerEmbedder, "embed", True),
    ("embedder without weights", HashEmbedder, "embed", True),
    ("sentiment", Session, "judge_tones", True),
    ("write", end_to_end, "write_public", True),
    ("likelihood filter", end_to_end, "_usual_texts", True),
    ("other filters", Refinery, "refine", True),
)


@contextmanager
def watched(name: str, owner: object, attribute: str, seconds: dict[str, float]) -> Iterator[None]:
    inner = getattr(owner, attribute)

    @functools.wraps(inner)
    def call(*args: object, **options: object) -> object:
        began, inside = time.perf_counter(), sum(seconds.values())
        try:
            return inner(*args, **options)
        finally:
            spent = time.perf_counter() - began
            seconds[name] += spent - (sum(seconds.values()) - inside)
            if spent > SHOWN_SECONDS:
                print(f"  {name}: {spent:.1f} s; {memory()}", flush=True)

    with mock.patch.object(owner, attribute, call):
        yield


if __name__ == "__main__":
    main()
