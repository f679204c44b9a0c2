"""RUPTA (Yang et al., ACL 2025, arXiv 2407.11770) on one page: look for giveaways, generalise, look again.

Each private text is rewritten by a local model. A privacy evaluator (the model, and the detector of personal
details) names what gives somebody away; a utility evaluator asks whether the text still speaks of its
subject; an optimiser puts privacy first: as long as there are giveaways they are generalised, then the
subject is made clear again. Nothing of this bounds what a text reveals, and the card says so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from rpsg import data
from rpsg.config import RunConfig
from rpsg.end_to_end import public_refinery
from rpsg.judging import judge
from rpsg.llm.prompting import PromptName, load_prompt
from rpsg.llm.wrappers import require_local
from rpsg.methods import common
from rpsg.plan import Plan, PlannedLine, make_plan, split_pool
from rpsg.plan_calls import PlannedCalls, plan_task, prompt_tokens, reply_tokens
from rpsg.privacy.noise import NoiseSource
from rpsg.privacy.plain import NonPrivateTexts
from rpsg.release import publish
from rpsg.result import RunResult
from rpsg.session import Session, open_session
from rpsg.stages.variants import tidy
from rpsg.text import is_usable, words_of
from rpsg.types import (
    FloatArray,
    PrivateCorpus,
    PrivateRecord,
    PrivateVariant,
    Progress,
    Rejection,
    SyntheticText,
    TextRequest,
)

_NOTE = "rewrites of private texts; nothing bounds what their wording reveals"
_PROMPTS: tuple[PromptName, ...] = ("giveaways", "generalise", "restore")
_TOKENS_PER_WORD = 1.45
_LIST_TOKENS = 80
_LEAST_AT_ONCE = 8
_NOTHING = "none"
# A telephone, file or account number, however it is written.
_LONG_NUMBER = re.compile(r"\d(?:[ ./-]?\d){4,}")


def run(
    config: RunConfig,
    corpus: PrivateCorpus,
    *,
    on_progress: Callable[[Progress], None],
    noise: NoiseSource | None,
) -> RunResult:
    """Rewrites private texts until nothing in them gives anybody away; see `pipeline.run`."""
    sizes = plan(config, corpus)
    pool, holdout = split_pool(config, corpus)
    folder = common.begin(config, corpus)
    with open_session(config, folder, on_progress, noise=noise) as session:
        require_local(session.models.writer.name, session.models.writer.trust, task="rewriting private texts")
        notes = common.charge(session, corpus, [])
        by_id = {record.record_id: record for record in pool.records}
        queue = [by_id[name] for name in data.sample_seeds(pool, session.streams.get("seeds"))]
        is_useful = _utility(session, holdout.records)
        accepted: list[PrivateVariant] = []
        refinery = public_refinery(session)
        while queue and len(accepted) < sizes.n_wanted:
            missing = sizes.n_wanted - len(accepted)
            n_next = max(_LEAST_AT_ONCE, missing)
            part, queue = queue[:n_next], queue[n_next:]
            session.counts["batches"] += 1
            more, rejected = refinery.refine(_rewrite_all(session, part, is_useful))
            session.reject(rejected)
            accepted += more
        session.counts["texts accepted"] = len(accepted)
        released = session.ledger.release(
            "texts", NonPrivateTexts(reason="rewritten private texts"), accepted[: sizes.n_wanted], note=_NOTE
        )
        texts = cast("tuple[SyntheticText, ...]", released)
        result = publish(session, corpus, sizes, texts, notes=notes)
        return judge(session, result, real=pool.records, holdout=holdout.records)


@dataclass(slots=True, kw_only=True, repr=False)
class _PrivateRewrite:
    """One private text on its way.

    Attributes:
        record: the text as it was.
        text: the newest rewrite; at first the text itself, which is never released.
        tries: rewrites that were usable texts, each with its number of giveaways and whether it is useful.
        is_done: whether the last one is safe and useful.
    """

    record: PrivateRecord
    text: str
    tries: list[tuple[int, bool, str]] = field(default_factory=list)
    is_done: bool = False

    @property
    def best(self) -> str | None:
        """The rewrite with fewest giveaways, of these a useful one, of these the newest; None without one."""
        if not self.tries:
            return None
        return min(reversed(self.tries), key=lambda found: (found[0], not found[1]))[2]


def _rewrite_all(
    session: Session,
    records: Sequence[PrivateRecord],
    is_useful: Callable[[PrivateRecord, FloatArray], bool],
) -> list[PrivateVariant]:
    """Rewrites texts, all of them a round together; those without a usable rewrite are rejected."""
    private_items = [_PrivateRewrite(record=record, text=record.text) for record in records]
    batch = f"batch {session.counts['batches']:.0f}"
    for number in range(session.config.rupta.rounds + 1):
        active = [item for item in private_items if not item.is_done]
        if not active:
            break
        found = _find_giveaways(session, active, f"{batch}, round {number}")
        vectors = session.models.embedder.embed([item.text for item in active])
        useful = [is_useful(item.record, vector) for item, vector in zip(active, vectors, strict=True)]
        for item, giveaways, fits in zip(active, found, useful, strict=True):
            # The text itself is no rewrite, however harmless it looks, nor is what a model repeats of it.
            if number and not _repeats(item) and is_usable(item.text):
                item.tries.append((len(giveaways), fits, item.text))
                item.is_done = not giveaways and fits
        if number < session.config.rupta.rounds:
            _edit(session, active, found, f"{batch}, round {number + 1}")
    return _collect(session, private_items)


def _repeats(private_item: _PrivateRewrite) -> bool:
    """Tells whether the newest rewrite is the text, a piece of it, or holds all of it, word for word."""
    texts = (private_item.text, private_item.record.text)
    own, whole = (f" {' '.join(words_of(_straight(text)))} " for text in texts)
    return own in whole or whole in own


def _straight(text: str) -> str:
    return text.replace("\u2019", "'").replace("\u2018", "'")


def _collect(session: Session, private_items: Sequence[_PrivateRewrite]) -> list[PrivateVariant]:
    session.counts["texts without giveaways"] += sum(item.is_done for item in private_items)
    variants = []
    for item in private_items:
        name, text = item.record.record_id, item.best
        if text is None:
            session.reject(
                [Rejection(item_id=name, record_id=name, stage="rewrite", reason="no usable rewrite")]
            )
            continue
        variants.append(
            PrivateVariant(variant_id=f"{name}/rupta", record_id=name, text=text, labels=item.record.labels)
        )
    return variants


def _edit(
    session: Session, items: Sequence[_PrivateRewrite], found: Sequence[Sequence[str]], round_name: str
) -> None:
    """Privacy first: generalises what gives somebody away; where nothing does, makes the subject clear."""
    todo = [(item, giveaways) for item, giveaways in zip(items, found, strict=True) if not item.is_done]
    requests = []
    for item, giveaways in todo:
        shown = [text for _, _, text in item.tries[-session.config.rupta.memory :]]
        memory = "Not like this: " + " / ".join(shown) if shown and session.config.rupta.memory else ""
        values = {
            "memory": memory,
            "text": item.text,
            "giveaways": "; ".join(giveaways),
            "labels": " ".join(f"{name}: {value}." for name, value in item.record.labels.items()),
        }
        name: PromptName = "generalise" if giveaways or not item.tries else "restore"
        n_tokens = int(len(item.record.text.split()) * _TOKENS_PER_WORD) + 16
        requests.append(_ask(session, name, values, n_tokens, round_name, item.record.record_id))
    replies = session.models.writer.at(f"rewrite, {round_name}").complete(requests)
    for (item, _), reply in zip(todo, replies, strict=True):
        item.text = tidy(reply.text)


def _find_giveaways(session: Session, items: Sequence[_PrivateRewrite], round_name: str) -> list[list[str]]:
    """The privacy evaluator: what the model names and the text holds, the detector's finds, own numbers."""
    texts = [item.text for item in items]
    requests = [
        _ask(session, "giveaways", {"text": text}, _LIST_TOKENS, f"giveaways {round_name}", str(i))
        for i, text in enumerate(texts)
    ]
    judge_model = session.models.judge or session.models.writer
    replies = judge_model.at(f"giveaways, {round_name}").complete(requests)
    spans = session.models.pii.find(texts) if session.models.pii is not None else [[] for _ in texts]
    found = []
    for item, text, reply, own in zip(items, texts, replies, spans, strict=True):
        named = [line.strip(" -*.\t") for line in reply.text.splitlines()]
        named += [text[span.start : span.end] for span in own]
        # A small model overlooks them, and a detector knows some forms only.
        named += set(_LONG_NUMBER.findall(text)) & set(_LONG_NUMBER.findall(item.record.text))
        held = [name for name in named if name and name.lower() != _NOTHING and name.lower() in text.lower()]
        found.append(list(dict.fromkeys(held)))
    return found


def _ask(
    session: Session, name: PromptName, values: Mapping[str, str], n_tokens: int, *key: str
) -> TextRequest:
    write = session.config.write
    prompt = load_prompt(write.prompt, name)
    filled = prompt.fill({gap: values.get(gap, "") for gap in prompt.fields})
    return TextRequest(
        # Without memory or labels their lines are empty.
        messages=tuple(replace(turn, content=turn.content.strip()) for turn in filled),
        content="private",
        max_tokens=n_tokens,
        temperature=0.0 if name == "giveaways" else write.temperature,
        top_k=write.top_k,
        top_p=write.top_p,
        seed=session.streams.key("rupta", name, *key),
    )


def _utility(
    session: Session, holdout: Sequence[PrivateRecord]
) -> Callable[[PrivateRecord, FloatArray], bool]:
    """The utility evaluator: is a text's first label still the nearest one, among those of held-out texts?

    Without labels: is the text nearer to the private one than half-way from unrelated to near-identical?
    """
    columns = sorted({key for record in holdout for key in record.labels})
    if not columns:
        low, high = session.models.embedder.cosine_range

        def is_near(record: PrivateRecord, vector: FloatArray) -> bool:
            own = session.vectors_of([record])[record.record_id]
            return float(own @ vector) >= (low + high) / 2

        return is_near
    vectors = session.vectors_of(holdout).values()
    values = [record.labels.get(columns[0], "") for record in holdout]
    centres = {
        value: np.mean([v for v, own in zip(vectors, values, strict=True) if own == value], axis=0)
        for value in sorted(set(values))
    }

    def keeps_label(record: PrivateRecord, vector: FloatArray) -> bool:
        true = record.labels.get(columns[0], "")
        return true not in centres or max(centres, key=lambda v: float(centres[v] @ vector)) == true

    return keeps_label


# --- in advance --------------------------------------------------------------------------------------


def plan(config: RunConfig, corpus: PrivateCorpus) -> Plan:
    """Computes sizes as RPSG does; refuses prompts that are missing."""
    for name in _PROMPTS:
        load_prompt(config.write.prompt, name)
    pool, holdout = split_pool(config, corpus)
    return make_plan(config, n_pool=len(pool), n_calibration=len(holdout))


def plan_releases(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedLine]:
    """Lists the one release."""
    n_wanted = plan(config, corpus).n_wanted
    cost = "epsilon infinite: no noise"
    return [PlannedLine(release="texts", cost=cost, signal=f"{n_wanted} rewrites of private texts")]


def plan_tasks(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedCalls]:
    """Estimates the most calls: rounds that are not needed are not made."""
    # Texts are rewritten eight or more at a time.
    n, rounds = max(_LEAST_AT_ONCE, plan(config, corpus).n_wanted), config.rupta.rounds
    words = sum(len(record.text.split()) for record in corpus.records) / len(corpus)
    text, writer = reply_tokens(words, config), config.models.write
    reads = {name: prompt_tokens(config, name) + text for name in ("giveaways", "generalise")}
    return [
        plan_task(
            "find giveaways",
            config.models.judge or writer,
            n * (rounds + 1),
            reads["giveaways"],
            _LIST_TOKENS,
        ),
        plan_task("rewrite", writer, n * rounds, reads["generalise"], text),
    ]


def statement_of(config: RunConfig, corpus: PrivateCorpus) -> str:
    """Says that nothing is guaranteed."""
    return common.statement_of(config, corpus, [])


def describe(config: RunConfig, corpus: PrivateCorpus, plan: Plan) -> list[str]:
    """Says what a run would do."""
    del corpus
    return [
        f"{plan.n_records} records, {plan.n_calibration} of them held out and never rewritten",
        f"{plan.n_wanted} private texts rewritten, each at most {config.rupta.rounds} times",
        f"models: {config.models.write} reads private texts and rewrites them, "
        f"{config.models.judge or config.models.write} looks for giveaways, {config.models.embed} embeds",
    ]
