"""What an executor costs beside the serial one, with the same single worker, in the same run.

    python benchmarks/executors.py --texts 2000 --prompts 128

Embeds texts one by one with the embedded embedder and writes with the embedded model. Threads and Ray with
one worker of one thread do what this process does alone, so what they take longer is their overhead. Models
are loaded before the clock starts; the executors take turns, so a machine that slows down slows all.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from rpsg.data import read_corpus, sample_path
from rpsg.endpoints import ExecutorConfig
from rpsg.executor import (
    ChunkedEmbedder,
    Executor,
    Spec,
    SpreadEmbedder,
    SpreadTextModel,
    ThreadExecutor,
)
from rpsg.executor_ray import RayExecutor
from rpsg.types import Message, TextRequest

CHUNK = 128
Work = Callable[[Any, Any], Any]
EMBED = Spec(kind="embedder", name="all-minilm-l6-v2", threads=1)
WRITE = Spec(kind="text", name="smollm2-135m-instruct", threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--parts", type=int, default=4, help="turns that each executor takes")
    options = parser.parse_args()
    posts = [record.text for record in read_corpus(sample_path("posts_train.jsonl")).records]
    texts = [f"{posts[i % len(posts)]} {i}" for i in range(options.texts)]
    requests = [request(text, seed) for seed, text in enumerate(texts[: options.prompts])]
    print(f"{platform.machine()}, {os.cpu_count()} cores, one worker of one thread", flush=True)
    with tempfile.TemporaryDirectory() as folder, closing(ThreadExecutor(1)) as threads:
        one = ExecutorConfig(kind="ray", workers=1)
        with closing(RayExecutor(one, Path(folder), threads=1)) as ray:
            embed = {"serial": ChunkedEmbedder(EMBED.load(), chunk_size=CHUNK)}  # type: ignore[arg-type]
            write: dict[str, Any] = {"serial": WRITE.load()}
            others: dict[str, Executor] = {"threads": threads, "ray": ray}
            for name, executor in others.items():
                embed[name] = SpreadEmbedder(executor, EMBED, chunk_size=CHUNK)  # type: ignore[assignment]
                write[name] = SpreadTextModel(executor, WRITE)
            step = max(1, len(texts) // options.parts)
            parts = [texts[start : start + step] for start in range(0, len(texts), step)]
            report(f"{len(texts)} texts embedded", embed, parts, lambda model, part: model.embed_singly(part))
            step = max(1, len(requests) // 2)
            prompts = [requests[start : start + step] for start in range(0, len(requests), step)]
            report(f"{len(requests)} texts written", write, prompts, lambda model, part: model.complete(part))


def request(text: str, seed: int) -> TextRequest:
    turn = Message(role="user", content=f"Write a post like this one:\n{text}")
    return TextRequest(messages=(turn,), content="public", max_tokens=100, seed=seed)


def report(what: str, models: dict[str, Any], parts: list[Any], work: Work) -> None:
    seconds = dict.fromkeys(models, 0.0)
    for model in models.values():
        work(model, parts[0][:2])
    for part in parts:
        results = []
        for name, model in models.items():
            began = time.perf_counter()
            results.append(work(model, part))
            seconds[name] += time.perf_counter() - began
        same = all(np.array_equal(np.asarray(results[0]), np.asarray(found)) for found in results[1:])
        assert same, f"{what}: results differ"
    shown = ", ".join(
        f"{name} {value:.1f} s ({value / seconds['serial'] - 1:+.1%})" for name, value in seconds.items()
    )
    print(f"{what}, {len(parts)} turns: {shown}; results equal", flush=True)


if __name__ == "__main__":
    main()
