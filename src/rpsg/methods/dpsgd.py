"""DP-SGD fine-tuning (Yue et al., ACL 2023, arXiv 2210.14348) on one page: count, train, write, release.

Theorem. Class counts are a Gaussian sum of sensitivity 1, a training step is one over a Poisson sample (see
`SampledGradients`); both are composed through privacy loss distributions. What the trained model writes is
post-processing, any number of texts. Sampling rate, steps and clipping norm are public and fixed in advance;
sample and noise come from the package's own secure source. A unit with several records gives one of them a
step.

Opacus would draw its noise from torch's generator, and compute gradients in batches, where the last bits of
one depend on the others: a sensitivity that is not proved. Tests compare with it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rpsg import registry
from rpsg.config import RunConfig
from rpsg.end_to_end import judge_by_halves, refine_ranked
from rpsg.endpoints import find_endpoint
from rpsg.errors import ConfigError
from rpsg.llm.meter import CHARACTERS_PER_TOKEN
from rpsg.llm.prompting import load_prompt
from rpsg.llm.wrappers import StagedTextModel
from rpsg.methods import common
from rpsg.methods.dpsgd_state import keep_state, read_state
from rpsg.plan import Plan, PlannedLine
from rpsg.plan_calls import TRAIN, PlannedCalls, plan_task, prompt_tokens, reply_tokens
from rpsg.privacy.accounting import compose, gaussian_mu, round_up
from rpsg.privacy.events import PrivacyEvent
from rpsg.privacy.gradients import SampledGradients, calibrate_training
from rpsg.privacy.mechanisms import GaussianSum
from rpsg.privacy.noise import NoiseSource
from rpsg.privacy.training import Training
from rpsg.release import publish
from rpsg.result import RunResult
from rpsg.session import Session, open_session
from rpsg.stages.keys import OTHER
from rpsg.stages.variants import tidy
from rpsg.types import (
    Candidate,
    FloatArray,
    Labels,
    Message,
    PrivateCorpus,
    PrivateRecord,
    Progress,
    TextRequest,
)

if TYPE_CHECKING:
    from rpsg.methods.dpsgd_train import PrivateExample, Trainee

_TRAINING = "training"
_NOTE = "fine-tunes the writing model; everything it writes afterwards follows from these noisy sums"
_WRITTEN = "written by a model that was fine-tuned with noise"
_TOKENS_PER_WORD = 1.45


@dataclass(frozen=True, slots=True, kw_only=True)
class DpsgdPlan:
    """What a run releases.

    Attributes:
        n: texts wanted.
        labels: the classes; one without labels where there are no label columns.
        classes: counts the private texts of each class; None with one class.
        training: all steps.
    """

    n: int
    labels: tuple[Labels, ...]
    classes: GaussianSum | None
    training: SampledGradients

    def events(self) -> list[PrivacyEvent]:
        """Returns what the run costs."""
        counted = self.classes.events if self.classes is not None else ()
        return [*counted, *self.training.events]


def run(
    config: RunConfig,
    corpus: PrivateCorpus,
    *,
    on_progress: Callable[[Progress], None],
    noise: NoiseSource | None,
) -> RunResult:
    """Fine-tunes the writing model with noise and lets it write; see `pipeline.run`."""
    planned = solve(config, corpus)
    load_prompt(config.write.prompt, "control")
    check_model(config)
    folder = common.begin(config, corpus)
    with open_session(config, folder, on_progress, noise=noise) as session:
        notes = common.charge(session, corpus, planned.events())
        session.public_inputs = f"control codes of labels{common.declared_in_words(config)}"
        sizes = common.count_classes(session, corpus, planned.labels, planned.classes, n=planned.n)
        notes += _train(session, corpus, planned)
        wanted = [labels for labels, size in zip(planned.labels, sizes, strict=True) for _ in range(size)]
        write = partial(_write, session, session.load_writer(str(folder.model)), wanted)
        first = write(math.ceil(config.dpsgd.oversample * planned.n), "first")
        accepted = refine_ranked(session, first, write)
        texts = common.release(session, accepted, reason=_WRITTEN)
        result = publish(session, corpus, common.sizes_of(planned.n), texts, notes=notes)
        return judge_by_halves(session, corpus, result)


# --- reads private text, gives out noisy sums of gradients ---------------------------------------------


def _train(session: Session, corpus: PrivateCorpus, planned: DpsgdPlan) -> list[str]:
    """Trains to the end and writes the model; goes on from the last committed step.

    The model is written anew each time, from the weights of the last step: those are hashed in the ledger.
    """
    settings, folder = session.config.dpsgd, session.folder
    training = Training.begin(session.ledger, _TRAINING, planned.training, note=_NOTE)
    trainee = _load(session)
    encoded = _encode(session, corpus, trainee)
    state = read_state(folder, trainee.size, training.n_done, training.state)
    session.tell(_TRAINING, training.n_done, settings.steps)
    while training.n_done < settings.steps:
        number = training.n_done + 1
        trainee.set_weights(state.weights)
        noisy = training.draw(len(encoded), encoded.gradients(number), trainee.size)
        state.step(noisy, number, settings.learning_rate)
        training.commit(keep_state(folder, state, number))
        session.tell(_TRAINING, number, settings.steps)
    trainee.set_weights(state.weights)
    trainee.save(folder.model)
    return encoded.notes


def _load(session: Session) -> "Trainee":
    from rpsg.methods.dpsgd_train import Trainee

    config = session.config
    return Trainee.load(
        registry.model_folder("text", config.models.write.removeprefix("local:")),
        config.dpsgd,
        seed=session.streams.key("dpsgd adapters"),
        threads=config.generation.threads,
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _PrivateExamples:
    """The texts of each unit as tokens, and their gradients.

    Attributes:
        trainee: the model in training.
        units: names of the units.
        examples: texts of each.
        session: for public randomness and the clipping norm.
    """

    trainee: "Trainee"
    units: Sequence[str]
    examples: Sequence[Sequence["PrivateExample"]]
    session: Session

    def __len__(self) -> int:
        return len(self.units)

    def gradients(self, number: int) -> Callable[[list[int]], Iterator[FloatArray]]:
        """Returns what yields one gradient for each sampled unit of a step, in units of the clipping norm.

        Which of its texts a unit gives is public randomness and a function of that unit alone.
        """
        clip, streams = self.session.config.dpsgd.clip_norm, self.session.streams

        def of(sampled: list[int]) -> Iterator[FloatArray]:
            examples = []
            for index in sampled:
                own = self.examples[index]
                examples.append(own[streams.key("dpsgd text", self.units[index], number) % len(own)])
            for gradient in self.trainee.gradients(examples):
                yield gradient / clip

        return of

    @property
    def notes(self) -> list[str]:
        """Says how many texts are longer than what is read of them; for the operator only."""
        n_cut = sum(example.is_cut for own in self.examples for example in own)
        if not n_cut:
            return []
        n, most = sum(len(own) for own in self.examples), self.session.config.dpsgd.max_tokens
        return [
            f"read from your data: of {n_cut} of {n} texts the model was trained on the first {most} tokens "
            "only, or on what its context holds; dpsgd.max_tokens raises the first"
        ]


def _encode(session: Session, corpus: PrivateCorpus, trainee: "Trainee") -> _PrivateExamples:
    labels = common.labels_of(session.config, corpus)
    own = {record.record_id: item for record, item in zip(corpus.records, labels, strict=True)}
    units: dict[str, list[PrivateRecord]] = {}
    for record in corpus.records:
        units.setdefault(record.unit_id, []).append(record)
    return _PrivateExamples(
        trainee=trainee,
        units=tuple(units),
        examples=[
            [trainee.encode(control_code(session.config, own[item.record_id]), item.text) for item in records]
            for records in units.values()
        ],
        session=session,
    )


# --- reads ledger outputs and public inputs only ------------------------------------------------------


def control_code(config: RunConfig, labels: Labels) -> tuple[Message, ...]:
    """Returns the prompt that stands for a class, in training and in writing."""
    named = " ".join(f"{name}: {value}." for name, value in labels.items() if value != OTHER)
    return load_prompt(config.write.prompt, "control").fill({"labels": named})


def _write(
    session: Session, writer: StagedTextModel, wanted: Sequence[Labels], n: int, round_name: str
) -> list[Candidate]:
    """Lets the trained model write `n` texts, classes in the shares wanted and in random order."""
    config = session.config
    order = session.streams.get("dpsgd order", round_name)
    drawn = [wanted[i] for i in _spread(len(wanted), n, order.permutation(len(wanted)).tolist())]
    requests = [
        TextRequest(
            messages=control_code(config, labels),
            content="released",
            max_tokens=min(int(config.write.max_length * _TOKENS_PER_WORD), config.dpsgd.max_tokens),
            temperature=config.write.temperature,
            top_k=config.write.top_k,
            top_p=config.write.top_p,
            seed=session.streams.key("dpsgd write", round_name, i),
        )
        for i, labels in enumerate(drawn)
    ]
    names = [f"{round_name}/{i}" for i in range(n)]
    replies = writer.at(f"write, {round_name}").complete(requests)
    session.counts["candidates written"] += n
    return [
        Candidate(variant_id=name, record_id=name, text=tidy(reply.text), labels=own)
        for name, own, reply in zip(names, drawn, replies, strict=True)
    ]


def _spread(size: int, n: int, order: list[int]) -> list[int]:
    """Returns `n` places in a list of this size: each as often as another, the rest by a random order."""
    return [order[i % size] for i in range(n)]


# --- in advance ----------------------------------------------------------------------------------------


def check_model(config: RunConfig) -> None:
    """Refuses a model whose weights are not on this machine: they are trained on private text.

    Raises:
        ConfigError: it is on a server, is quantised, or is none.
    """
    name = config.models.write
    if find_endpoint(name, config.endpoints) is not None or name.startswith("llamacpp:") or name == "fake":
        raise ConfigError(
            "models.write: method: dpsgd trains the writing model, so its weights must be on this machine; "
            f"name an embedded model, a folder or a Hugging Face model (given: {name!r})"
        )


def solve(config: RunConfig, corpus: PrivateCorpus) -> DpsgdPlan:
    """Solves one budget for class counts and training, from public settings alone.

    Raises:
        ConfigError: n is missing, or declared labels make too many classes.
        PrivacyError: no noise in range makes the run (epsilon, delta)-DP.
    """
    settings, labels = config.dpsgd, common.classes_of(config, corpus)
    if config.epsilon is None:
        raise ConfigError("method: dpsgd needs epsilon")
    classes = None
    if len(labels) > 1:
        mu = gaussian_mu(config.epsilon, config.delta)
        classes = GaussianSum(
            noise_multiplier=1 / (mu * math.sqrt(settings.class_share)), n_items=len(labels)
        )
    training = calibrate_training(
        config.epsilon,
        config.delta,
        sampling_rate=settings.sampling_rate,
        n_steps=settings.steps,
        beside=classes.events if classes is not None else (),
    )
    return DpsgdPlan(n=common.texts_wanted(config, corpus), labels=labels, classes=classes, training=training)


def plan(config: RunConfig, corpus: PrivateCorpus) -> Plan:
    """Computes sizes; refuses a model that cannot be trained and prompts that are missing."""
    check_model(config)
    load_prompt(config.write.prompt, "control")
    return common.sizes_of(solve(config, corpus).n)


def plan_releases(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedLine]:
    """Lists class counts, training and texts."""
    planned, bound = solve(config, corpus), config.n_units_bound or 1
    step = planned.training
    lines = []
    if planned.classes is not None:
        sigma = planned.classes.noise_multiplier
        each = bound / planned.classes.n_items
        lines.append(
            PlannedLine(
                release="classes",
                cost=f"sigma {sigma:.3f}",
                signal=f"at most {each:.1f} people a class on average, noise {sigma:.2f}",
            )
        )
    sampled = step.sampling_rate * bound
    lines.append(
        PlannedLine(
            release=_TRAINING,
            cost=f"sigma {step.noise_multiplier:.3f}, {step.n_steps} steps at rate {step.sampling_rate:g}",
            signal=f"at most {sampled:.0f} people a step on average, noise {step.noise_multiplier:.2f}",
            warning=""
            if sampled >= 8 * step.noise_multiplier
            else "fewer than 8 people a step for each unit of noise: little will be learnt; raise epsilon or "
            "dpsgd.sampling_rate, lower dpsgd.steps, or bring more people",
        )
    )
    whole = compose(planned.events(), config.delta)
    cost = f"nothing more; all of it: epsilon {round_up(whole.epsilon, 3):g}, delta {config.delta:g}"
    return [
        *lines,
        PlannedLine(release="texts", cost=cost, signal=f"{planned.n} texts, written by the trained model"),
    ]


def plan_tasks(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedCalls]:
    """Estimates what is read for training, a call being one person's gradient, and what is written."""
    planned, model = solve(config, corpus), config.models.write
    step, control = planned.training, prompt_tokens(config, "control")
    n_gradients = round(step.n_steps * step.sampling_rate * (config.n_units_bound or 1))
    lengths = [min(len(r.text) / CHARACTERS_PER_TOKEN, config.dpsgd.max_tokens) for r in corpus.records]
    read = control + int(sum(lengths) / len(lengths))
    text = reply_tokens((config.write.min_length + config.write.max_length) / 2, config)
    return [
        plan_task(TRAIN, model, n_gradients, read, 0),
        plan_task("write", model, math.ceil(config.dpsgd.oversample * planned.n), control, text),
    ]


def statement_of(config: RunConfig, corpus: PrivateCorpus) -> str:
    """Returns what a run may say of its privacy."""
    return common.statement_of(config, corpus, solve(config, corpus).events())


def describe(config: RunConfig, corpus: PrivateCorpus, plan: Plan) -> list[str]:
    """Says what a run would do."""
    step = solve(config, corpus).training
    return [
        f"{plan.n_wanted} synthetic texts wanted; everything that is released is decided in advance",
        f"{step.n_steps} steps of training with noise of {step.noise_multiplier:.2f}, each on a sample of "
        f"{step.sampling_rate:.0%} of the people",
        f"models: {config.models.write} is trained and writes, {config.models.embed} embeds",
    ]
