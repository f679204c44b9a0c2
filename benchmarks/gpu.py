"""Speed on a GPU: our decoding loop against the library's `generate`, embedding, and the exact vote.

Needs a CUDA GPU and no model files: a Llama of 1.1 billion random weights in bfloat16 and a BERT of the size
of MiniLM are made here, tokenizers from the sample texts. Same weights, prompts, lengths and sampling on both
sides, which take turns; prompts are included. Ends with an error where something that must be equal is not.

    PYTHONPATH=src python benchmarks/gpu.py [seconds for all, default 150]
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from scipy.stats import t as student
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rpsg.data import read_corpus, sample_path
from rpsg.llm.decoding import Decoder
from rpsg.llm.embed import TransformerEmbedder
from rpsg.llm.local import LocalTextModel
from rpsg.llm.sampling import Job
from rpsg.llm.surrogate import train_tokenizer
from rpsg.stages.vote import nearest
from rpsg.types import Message, TextRequest

BATCHES, N_WORDS, N_NEW = (32, 128, 512), 62, 100
TEMPERATURE, TOP_K, TOP_P = 1.0, 50, 0.95
MOST_ROUNDS = 5
VOTE_QUERIES, VOTE_ITEMS, DIMENSION = 1_000_000, 10_000, 384
FAILED: list[str] = []


def main(seconds: float) -> None:
    began = time.perf_counter()
    card = torch.cuda.get_device_properties(0)
    torch.set_num_threads(os.cpu_count() or 1)
    print(
        f"{card.name}, {card.total_memory / 2**30:.0f} GiB; {platform.machine()}, {torch.get_num_threads()} "
        f"threads; Python {platform.python_version()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}",
        flush=True,
    )
    texts = [record.text for record in read_corpus(sample_path("posts_train.jsonl")).records]
    tokenizer = train_tokenizer(texts, 8192)
    with tempfile.TemporaryDirectory() as folder:
        measure_generation(Path(folder), tokenizer, texts, until=began + 0.6 * seconds)
        measure_embedding(Path(folder), tokenizer, texts)
    measure_vote(until=began + seconds)
    print(f"{time.perf_counter() - began:.0f} s in all; must be equal and is not: {FAILED or 'nothing'}")
    sys.exit(1 if FAILED else 0)


def check(what: str, *, holds: bool) -> None:
    print(f"  {what}: {holds}", flush=True)
    if not holds:
        FAILED.append(what)


# --- generation ------------------------------------------------------------------------------------------


def measure_generation(base: Path, tokenizer: Tokenizer, texts: list[str], *, until: float) -> None:
    folder = make_llama(base / "llama", tokenizer)
    began = time.perf_counter()
    ours = LocalTextModel.load(folder, name="llama", device="cuda")
    print(f"loaded in {time.perf_counter() - began:.1f} s", flush=True)
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map={"": "cuda"}
    ).eval()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map={"": "cuda"}).eval()
    check_repeats(ours, texts)
    n_weights = sum(weights.numel() for weights in theirs.parameters())
    print(
        f"generation: {n_weights / 1e9:.2f} billion random weights, {theirs.dtype}; {N_NEW} new tokens a "
        f"prompt; temperature {TEMPERATURE}, top-k {TOP_K}, top-p {TOP_P}"
    )
    prompts = [ours._encode(" ".join(text.split()[:N_WORDS])) for text in texts]
    began = time.perf_counter()
    for number, n in enumerate(BATCHES, 1):
        part = [prompts[i % len(prompts)] for i in range(n)]
        # No prompt shares its beginning with all others.
        part = [[10 + i % 1000, *prompt] for i, prompt in enumerate(part)]
        runs = {
            "ours": lambda part=part, n=n: run_ours(ours._decoder._model, part, n),
            "ours, library's attention": lambda part=part, n=n: run_ours(plain, part, n),
            "library": lambda part=part: run_library(theirs, part),
        }
        compare(n, part, runs, until=began + (until - began) * number / len(BATCHES))


def compare(n: int, prompts: list[list[int]], runs: dict[str, Callable[[], None]], *, until: float) -> None:
    mean = statistics.mean(len(prompt) for prompt in prompts)
    print(f"  {n} prompts at once, mean {mean:.0f} tokens", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    memory: dict[str, float] = {}
    for number in range(MOST_ROUNDS + 1):
        names = list(runs) if number % 2 else list(reversed(runs))
        for name in names:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            began = time.perf_counter()
            runs[name]()
            torch.cuda.synchronize()
            # The first round warms up.
            if number:
                seconds[name].append(time.perf_counter() - began)
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**30
        if number >= 2 and time.perf_counter() > until:
            break
    for name, times in seconds.items():
        speeds = [n * N_NEW / value for value in times]
        ratios = [theirs / mine for theirs, mine in zip(seconds["library"], times, strict=True)]
        print(
            f"    {name}: {interval(speeds, 0)} tok/s, {interval(ratios, 2)} times the library's, "
            f"{memory[name]:.1f} GiB beside the weights",
            flush=True,
        )


def make_llama(folder: Path, tokenizer: Tokenizer) -> Path:
    """Saves a model with the shape of TinyLlama 1.1B and random weights."""
    save_tokenizer(folder, tokenizer, limit=2048)
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
        num_attention_heads=32, num_key_value_heads=4, max_position_embeddings=2048, bos_token_id=0,
        eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, tokenizer: Tokenizer, *, limit: int) -> None:
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<s>",
        model_max_length=limit,
    ).save_pretrained(folder)


def check_repeats(model: LocalTextModel, texts: list[str]) -> None:
    """A run that is done again on the same machine must write the same texts."""
    asked = [
        TextRequest(
            messages=(Message(role="user", content=" ".join(text.split()[: 20 + i])),),
            content="public",
            max_tokens=40 + i,
            seed=i,
        )
        for i, text in enumerate(texts[:64])
    ]
    first = model.complete(asked)
    check("64 prompts twice write the same texts", holds=first == model.complete(asked))
    check("they differ between prompts", holds=len({reply.text for reply in first}) > 60)


def run_ours(model: PreTrainedModel, prompts: list[list[int]], n_slots: int) -> None:
    jobs = [
        Job(
            prompt=prompt,
            max_tokens=N_NEW,
            temperature=TEMPERATURE,
            top_k=TOP_K,
            top_p=TOP_P,
            stops=frozenset(),
            seed=i,
        )
        for i, prompt in enumerate(prompts)
    ]
    Decoder(model, n_slots=n_slots).run(jobs)
    assert all(len(job.written) == N_NEW for job in jobs)


@torch.inference_mode()
def run_library(model: PreTrainedModel, prompts: list[list[int]]) -> None:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    output = model.generate(
        input_ids=ids.cuda(),
        attention_mask=mask.cuda(),
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=TOP_K,
        top_p=TOP_P,
        min_new_tokens=N_NEW,
        max_new_tokens=N_NEW,
        pad_token_id=0,
    )
    assert output.shape == (len(prompts), width + N_NEW)


# --- embedding -------------------------------------------------------------------------------------------


def measure_embedding(base: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    folder = base / "bert"
    save_tokenizer(folder, tokenizer, limit=256)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8192, hidden_size=DIMENSION, num_hidden_layers=6, num_attention_heads=12,
        intermediate_size=1536, max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    on_cpu, on_gpu = (TransformerEmbedder.load(folder, name="bert", device=item) for item in ("cpu", "cuda"))
    few, many = texts[:500], (texts * (8000 // len(texts) + 1))[:8000]
    on_cpu.embed(few[:32])
    on_gpu.embed(many[:512])
    slow, cpu_seconds = timed(lambda: on_cpu.embed(few))
    _, gpu_seconds = timed(lambda: on_gpu.embed(many))
    fast = on_gpu.embed(few)
    words = statistics.mean(len(text.split()) for text in few)
    cpu_speed, gpu_speed = len(few) / cpu_seconds, len(many) / gpu_seconds
    print(
        f"embedding: 6 layers of {DIMENSION}, float32, posts of {words:.0f} words on average: processor "
        f"{cpu_speed:.0f} texts/s (n = {len(few)}), GPU {gpu_speed:.0f} texts/s (n = {len(many)}), "
        f"{gpu_speed / cpu_speed:.1f} times; one run each"
    )
    print(f"  largest difference of a coordinate: {np.abs(slow - fast).max():.1e}")
    check("vectors agree to 1e-4", holds=bool(np.abs(slow - fast).max() < 1e-4))
    alone = np.concatenate([on_gpu.embed([text]) for text in few[:100]])
    again = np.concatenate([on_gpu.embed([text]) for text in few[99::-1]])[::-1]
    check("a text alone gets the same vector every time", holds=np.array_equal(alone, again))


# --- vote ------------------------------------------------------------------------------------------------


def measure_vote(*, until: float) -> None:
    rng = np.random.default_rng(0)
    queries, items = (unit(rng, n) for n in (VOTE_QUERIES, VOTE_ITEMS))
    # Ties, which the lowest index must win.
    items[5000:5050] = items[:50]
    nearest(queries[:20_000], items, device="cuda")
    found, gpu_seconds = timed(lambda: nearest(queries, items, device="cuda"))
    print(
        f"vote: {len(queries):,} x {DIMENSION} on {len(items):,} candidates: GPU {gpu_seconds:.2f} s",
        flush=True,
    )
    _, probe = timed(lambda: nearest(queries[:20_000], items))
    left = max(5.0, until - time.perf_counter())
    n = min(len(queries), int(20_000 * left / probe) // 10_000 * 10_000)
    expected, cpu_seconds = timed(lambda: nearest(queries[:n], items))
    ratio = cpu_seconds / n * len(queries) / gpu_seconds
    print(
        f"  processor {cpu_seconds:.1f} s for {n:,} of them, {ratio:.0f} times the GPU's time a query; "
        "one run each"
    )
    check(f"the {n:,} votes are the same", holds=np.array_equal(expected, found[:n]))


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.standard_normal((n, DIMENSION), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- figures ---------------------------------------------------------------------------------------------


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    torch.cuda.synchronize()
    began = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return result, time.perf_counter() - began


def interval(values: list[float], digits: int) -> str:
    mean = statistics.mean(values)
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    low, mid, high = (f"{value:.{digits}f}" for value in (mean - half, mean, mean + half))
    return f"{mid} (95 % interval {low} to {high}, n = {len(values)})"


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 150.0)
