"""Tokens per second of our decoding loop against the library's own `generate`, in one process.

Same weights, prompts, lengths and sampling; prompts are included. The two take turns, so that what
else the machine does falls on both. Prints the ratio with a 95 % interval over the rounds.

    python benchmarks/generation.py [rounds]
"""

import platform
import statistics
import sys
import time

import torch
from scipy.stats import t as student
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpsg.data import read_corpus, sample_path
from rpsg.llm.decoding import Decoder
from rpsg.llm.kernels import best_dtype, pack_linear_layers, use_slot_attention
from rpsg.llm.local import N_SLOTS
from rpsg.llm.models import locate
from rpsg.llm.sampling import Job

N_PROMPTS, N_WORDS, N_NEW = 128, 62, 100
TEMPERATURE, TOP_K, TOP_P = 1.0, 50, 0.95


def main(rounds: int) -> None:
    folder = locate("smollm2-135m-instruct")
    # The number format that a run on this processor uses; the same on both sides.
    kind = best_dtype()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, local_files_only=True)
    mine = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, local_files_only=True)
    use_slot_attention(mine)
    pack_linear_layers(mine, N_SLOTS)
    prompts = make_prompts(tokenizer)
    lengths = [len(prompt) for prompt in prompts]
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {kind}; "
        f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens "
        f"(mean {statistics.mean(lengths):.0f}), "
        f"{N_NEW} new tokens each"
    )
    ours_decoder = Decoder(mine, n_slots=N_SLOTS)
    run_ours(ours_decoder, prompts[:4])
    run_library(theirs, prompts[:4])
    ratios = []
    for number in range(rounds):
        order = ("ours", "library") if number % 2 == 0 else ("library", "ours")
        seconds = {}
        for name in order:
            began = time.perf_counter()
            if name == "ours":
                run_ours(ours_decoder, prompts)
            else:
                run_library(theirs, prompts)
            seconds[name] = time.perf_counter() - began
        speeds = {name: len(prompts) * N_NEW / value for name, value in seconds.items()}
        ratios.append(speeds["ours"] / speeds["library"])
        print(
            f"round {number + 1}: ours {speeds['ours']:.0f} tok/s, library {speeds['library']:.0f} tok/s, "
            f"ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"ratio {interval(ratios)}")


def make_prompts(tokenizer: object) -> list[list[int]]:
    texts = [record.text for record in read_corpus(sample_path("posts_train.jsonl")).records]
    prompts = []
    for text in texts[:N_PROMPTS]:
        words = " ".join(text.split()[:N_WORDS])
        turns = [
            {"role": "system", "content": "You summarise posts."},
            {"role": "user", "content": f"{words}\n\nSummarise."},
        ]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        prompts.append(tokenizer(rendered, add_special_tokens=False)["input_ids"])
    # A few words differ at the start, so that no prompt can share its beginning with all others.
    return [[*tokenizer(str(i), add_special_tokens=False)["input_ids"], *p] for i, p in enumerate(prompts)]


def run_ours(decoder: Decoder, prompts: list[list[int]]) -> None:
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
    decoder.run(jobs)
    assert all(len(job.written) == N_NEW for job in jobs)


@torch.inference_mode()
def run_library(model: object, prompts: list[list[int]]) -> None:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=TOP_K,
        top_p=TOP_P,
        min_new_tokens=N_NEW,
        max_new_tokens=N_NEW,
        pad_token_id=0,
    )
    assert output.shape == (len(prompts), width + N_NEW)


def interval(ratios: list[float]) -> str:
    mean = statistics.mean(ratios)
    if len(ratios) < 2:
        return f"{mean:.2f} (one round: no interval)"
    half = student.ppf(0.975, len(ratios) - 1) * statistics.stdev(ratios) / len(ratios) ** 0.5
    return f"{mean:.2f} (95 % interval {mean - half:.2f} to {mean + half:.2f}, n = {len(ratios)} rounds)"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
