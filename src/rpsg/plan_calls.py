"""What a run would ask of its language models: calls, tokens, cost and time, estimated in advance."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rpsg.config import RunConfig
from rpsg.endpoints import find_endpoint
from rpsg.llm.meter import CHARACTERS_PER_TOKEN, PriceTable, load_prices
from rpsg.llm.prompting import PromptName, load_prompt
from rpsg.plan import Plan
from rpsg.plan_keys import plan_keys
from rpsg.types import PrivateCorpus

_TOKENS_PER_WORD = 1.4
_EMBEDDED_MODEL = "smollm2-135m-instruct"
# Of the demo as a whole, loading and filters included, on two quiet cores (64,226 tokens in 246 s).
EMBEDDED_TOKENS_PER_SECOND = 260
# Of training by DP-SGD on two quiet cores, single precision everywhere: 1,500 texts of 160 tokens in 894 s
TRAINED_TOKENS_PER_SECOND = 270
TRAIN = "train"
# Where the processor has no bfloat16 arithmetic a third of that.
_SLOWER = 3
_HALF_PRECISION = re.compile(r"\b(?:avx512_bf16|amx_tile)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCalls:
    """Calls of one task in a run's first round; texts that are rejected are asked for again, up to a bound.

    Attributes:
        task: what they do.
        model: the model's name.
        on_server: whether it is called over a network.
        n_calls: how many.
        n_prompt_tokens: read in all of them, estimated from characters.
        n_tokens: written in all of them, estimated from the lengths asked for.
        cost: US dollars; None where the price is unknown.
        price_confirmed: whether the price table says that the provider was seen to say so.
    """

    task: str
    model: str
    on_server: bool
    n_calls: int
    n_prompt_tokens: int
    n_tokens: int
    cost: float | None
    price_confirmed: bool = False


def plan_calls(config: RunConfig, corpus: PrivateCorpus, sizes: Plan) -> list[PlannedCalls]:
    """Estimates a run's calls of language models; an embedder's are not listed.

    Raises:
        ConfigError: the price table cannot be read, or a model's endpoint is unknown.
    """
    if config.guarantee == "end-to-end":
        tasks = _paid_tasks(config, corpus)
    else:
        tasks = _private_tasks(config, corpus, sizes)
    return price_tasks(tasks, config)


def price_tasks(tasks: Iterable[PlannedCalls], config: RunConfig) -> list[PlannedCalls]:
    """Returns the tasks that make calls, with what they cost on servers.

    Raises:
        ConfigError: the price table cannot be read, or a model's endpoint is unknown.
    """
    prices = load_prices(config.calling.prices)
    return [_priced(task, config, prices) for task in tasks if task.n_calls]


def shortest_seconds(config: RunConfig, calls: Iterable[PlannedCalls]) -> float | None:
    """Returns the least time that the account's limits per minute allow; None where none are known."""
    served = [task for task in calls if task.on_server]
    times = [
        60 * sum(amounts) / limit
        for limit, amounts in (
            (config.calling.requests_per_minute, [task.n_calls for task in served]),
            (config.calling.tokens_per_minute, [task.n_prompt_tokens + task.n_tokens for task in served]),
        )
        if limit is not None and served
    ]
    return max(times, default=None)


def usual_seconds(calls: Iterable[PlannedCalls]) -> float | None:
    """Returns about how long the embedded model takes on two cores; None where another writes too."""
    tasks = list(calls)
    if not tasks or any(task.model != _EMBEDDED_MODEL for task in tasks):
        return None
    writing = sum(task.n_tokens for task in tasks) / EMBEDDED_TOKENS_PER_SECOND
    training = sum(task.n_prompt_tokens for task in tasks if task.task == TRAIN) / TRAINED_TOKENS_PER_SECOND
    return training + (writing if has_half_precision() else _SLOWER * writing)


def has_half_precision() -> bool:
    """Tells whether this processor computes in bfloat16; yes where it does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return "flags" not in flags or _HALF_PRECISION.search(flags) is not None


def _private_tasks(config: RunConfig, corpus: PrivateCorpus, sizes: Plan) -> list[PlannedCalls]:
    words = [len(record.text.split()) for record in corpus.records]
    characters = [len(record.text) for record in corpus.records]
    mean_words, mean_characters = sum(words) / len(words), sum(characters) / len(characters)
    summary = config.abstract.max_tokens
    text = reply_tokens(mean_words, config)
    read = int(mean_characters / CHARACTERS_PER_TOKEN)
    n, drafts = sizes.n_seeds, config.write.n_drafts
    writer, summariser = config.models.write, config.models.abstract
    tasks = [
        plan_task(
            "summarise",
            summariser,
            n * config.abstract.n_samples,
            prompt_tokens(config, "abstract") + read,
            summary,
        ),
        plan_task(
            "write",
            writer,
            n * config.write.n_variants * drafts,
            prompt_tokens(config, "write") + summary,
            text,
        ),
    ]
    if config.write.rewrite:
        prompt = prompt_tokens(config, "rewrite") + summary + text
        tasks.append(plan_task("rewrite", writer, n * drafts, prompt, text))
    if config.models.sentiment and find_endpoint(config.models.sentiment, config.endpoints) is not None:
        n_judged = n * (1 + config.abstract.n_candidates)
        tasks.append(plan_task("sentiment", config.models.sentiment, n_judged, read, 1))
    return tasks


def _paid_tasks(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedCalls]:
    planned = plan_keys(config, has_labels=bool(corpus.label_columns))
    text = reply_tokens((config.write.min_length + config.write.max_length) / 2, config)
    writer, drafts, n = config.models.write, config.write.n_drafts, planned.n_candidates
    tasks = []
    if planned.material is None and planned.n_topics > 1:
        n_public = max(config.keys.n_public_texts, 4 * planned.n_topics)
        tasks.append(plan_task("public texts", writer, n_public, prompt_tokens(config, "public"), text))
    guided: PromptName = "keys" if planned.releases() else "public"
    each = drafts if guided == "keys" else 1
    tasks.append(plan_task("write", writer, n * each, prompt_tokens(config, guided), text))
    n_rounds = max(0, len(planned.votes) - 1)
    if n_rounds:
        prompt = prompt_tokens(config, "rewrite") + text
        tasks.append(plan_task("vary", writer, n_rounds * (n // 2) * drafts, prompt, text))
    sentiment = config.models.sentiment
    if sentiment and planned.releases() and find_endpoint(sentiment, config.endpoints) is not None:
        read = int(sum(len(record.text) for record in corpus.records) / len(corpus) / CHARACTERS_PER_TOKEN)
        tasks.append(plan_task("sentiment", sentiment, len(corpus), read, 1))
    return tasks


def plan_task(task: str, model: str, n_calls: int, n_prompt_tokens: int, n_tokens: int) -> PlannedCalls:
    """Returns a task of so many calls, each of which reads and writes so many tokens."""
    return PlannedCalls(
        task=task,
        model=model,
        on_server=False,
        n_calls=n_calls,
        n_prompt_tokens=n_calls * n_prompt_tokens,
        n_tokens=n_calls * n_tokens,
        cost=None,
    )


def _priced(task: PlannedCalls, config: RunConfig, prices: PriceTable) -> PlannedCalls:
    endpoint = find_endpoint(task.model, config.endpoints)
    if endpoint is None:
        return task
    # At most so long: a model that thinks little costs less.
    task = replace(task, n_tokens=task.n_tokens + task.n_calls * endpoint.reasoning_tokens)
    cost = prices.cost(task.model, task.n_prompt_tokens, task.n_tokens)
    confirmed = prices.is_confirmed(task.model)
    return replace(task, on_server=True, cost=cost, price_confirmed=confirmed)


def prompt_tokens(config: RunConfig, name: PromptName) -> int:
    """Returns the tokens of a prompt whose gaps are empty."""
    folder = config.abstract.prompt if name == "abstract" else config.write.prompt
    n_characters = sum(len(turn.content) for turn in load_prompt(folder, name).turns)
    return int(n_characters / CHARACTERS_PER_TOKEN)


def reply_tokens(n_words: float, config: RunConfig) -> int:
    """Returns the tokens of a text of so many words, within the lengths that are asked for."""
    asked = min(max(n_words, config.write.min_length), config.write.max_length)
    return int(asked * _TOKENS_PER_WORD)
