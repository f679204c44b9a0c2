"""DP-SGD: sampling, clipping, noise and accounting of the training; a run with a tiny model."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

from rpsg import registry
from rpsg.config import RunConfig
from rpsg.errors import BudgetExceeded, ConfigError, PrivacyError
from rpsg.llm.local import LocalTextModel
from rpsg.llm.models import locate
from rpsg.method_config import DpsgdConfig
from rpsg.methods import dpsgd
from rpsg.methods.dpsgd_train import Trainee
from rpsg.pipeline import plan_releases, plan_tasks, run, statement_of
from rpsg.plan_calls import usual_seconds
from rpsg.privacy.accounting import compose, gaussian_epsilon
from rpsg.privacy.budget import Budget
from rpsg.privacy.card_file import check_card, read_card
from rpsg.privacy.events import REPLACE, SampledGaussianEvent
from rpsg.privacy.gradients import GRADIENT_STEPS, SampledGradients, calibrate_training, clip_gradient
from rpsg.privacy.ledger import Ledger, Limit, read_run
from rpsg.privacy.noise import FixedNoise, IntArray, SecureNoise
from rpsg.privacy.training import Training
from rpsg.types import FloatArray, Message, PrivateCorpus, PrivateRecord, Progress
from test_pipeline import Stop
from test_pipeline import config as base_config
from tiny_models import WORDS, tiny_gpt2, tiny_llama

CODE = (Message(role="user", content="help me"),)
SMALL = DpsgdConfig(layers=2, rank=4, max_tokens=24)


# --- accounting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "steps"), [(4.0, 10), (9.5, 100)])
def test_without_sampling_epsilon_is_the_closed_form(noise: float, steps: int) -> None:
    events = SampledGradients(noise_multiplier=noise, sampling_rate=1.0, n_steps=steps).events
    assert compose(events, 1e-6).epsilon == pytest.approx(
        gaussian_epsilon(math.sqrt(steps) / noise, 1e-6), rel=1e-3
    )


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps"), [(1, 0.06, 25), (8, 0.1, 10), (4, 0.02, 200), (0.05, 0.5, 500)]
)
def test_noise_is_the_least_that_holds(epsilon: float, rate: float, steps: int) -> None:
    found = calibrate_training(epsilon, 1e-6, sampling_rate=rate, n_steps=steps)
    assert compose(found.events, 1e-6).epsilon <= epsilon
    less = replace(found, noise_multiplier=found.noise_multiplier * 0.998)
    assert compose(less.events, 1e-6).epsilon > epsilon


def test_noise_agrees_with_opacus() -> None:
    accountants = pytest.importorskip("opacus.accountants", reason="opacus is a development dependency")
    accountant = accountants.PRVAccountant()
    accountant.history = [(1.1, 0.05, 100)]
    theirs = accountant.get_epsilon(delta=1e-5, eps_error=0.005)
    ours = compose(
        SampledGradients(noise_multiplier=1.1, sampling_rate=0.05, n_steps=100).events, 1e-5
    ).epsilon
    assert theirs == pytest.approx(ours, abs=0.01)


def test_groups_and_replacement_cost_more() -> None:
    events = SampledGradients(noise_multiplier=2.0, sampling_rate=0.05, n_steps=50).events
    one, five = compose(events, 1e-6), compose(events, 1e-6, group=5)
    assert one.epsilon < five.epsilon < 5 * compose(events, 1e-12).epsilon
    replaced = compose(events, 1e-6, relation=REPLACE)
    assert one.epsilon < replaced.epsilon < math.inf and replaced.accountant == "group privacy"
    # Without sampling a group's sum moves by its size, and a replaced unit's by at most twice as much.
    whole = SampledGradients(noise_multiplier=40.0, sampling_rate=1.0, n_steps=4).events
    assert compose(whole, 1e-6, group=5).epsilon == pytest.approx(
        gaussian_epsilon(5 * 2 / 40, 1e-6), rel=1e-2
    )
    assert compose(whole, 1e-6, relation=REPLACE).epsilon >= gaussian_epsilon(2 * 2 / 40, 1e-6)


# --- one step ------------------------------------------------------------------------------------


def test_a_gradient_is_clipped_in_whole_steps() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        size = int(rng.integers(1, 50))
        gradient = (rng.normal(size=size) * 10 ** rng.uniform(-4, 4)).astype(np.float32)
        steps = clip_gradient(gradient)
        assert int((steps**2).sum()) <= GRADIENT_STEPS**2
        norm = float(np.linalg.norm(gradient.astype(np.float64)))
        expected = gradient / max(1.0, norm)
        assert np.abs(steps / GRADIENT_STEPS - expected).max() <= 2.1 / GRADIENT_STEPS
    assert clip_gradient(np.asarray([math.nan, math.inf, 0.5], dtype=np.float32)).tolist() == [
        0,
        0,
        GRADIENT_STEPS // 2,
    ]


def test_noise_of_a_step_has_the_planned_scale() -> None:
    step = SampledGradients(noise_multiplier=0.8, sampling_rate=0.1, n_steps=3)
    drawn = step.draw_sum([], 4000, SecureNoise())
    assert kstest(drawn / 0.8, "norm").pvalue > 1e-4
    for wrong in (2 / 3, 3 / 2):
        assert kstest(drawn / (0.8 * wrong), "norm").pvalue < 1e-6


def test_samples_are_poisson() -> None:
    """Each unit on its own with the rate: sizes are binomial, and so is how often a unit is drawn."""
    noise, step = SecureNoise(), SampledGradients(noise_multiplier=1.0, sampling_rate=0.07, n_steps=1)
    samples = [step.draw_units(500, noise) for _ in range(400)]
    sizes = np.asarray([len(sample) for sample in samples])
    low, high = binom.ppf([1e-6, 1 - 1e-6], 500, 0.07)
    assert low <= sizes.min() and sizes.max() <= high and len(set(sizes.tolist())) > 10
    assert sizes.mean() == pytest.approx(35, abs=5 * math.sqrt(500 * 0.07 * 0.93 / 400))
    assert sizes.var() == pytest.approx(500 * 0.07 * 0.93, rel=0.4)
    counts = np.bincount(np.concatenate([np.asarray(sample) for sample in samples]), minlength=500)
    low, high = binom.ppf([1e-7, 1 - 1e-7], 400, 0.07)
    assert low <= counts.min() and counts.max() <= high
    # The same source twice gives other samples: no seed decides.
    assert samples[0] != samples[1]


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_gradient_is_that_of_the_loss(tmp_path: Path, make: object) -> None:
    trainee = Trainee.load(make(tmp_path), SMALL, seed=1, threads=1)  # type: ignore[operator]
    example = trainee.encode(CODE, "the river told the town because help never asked .")
    rng = np.random.default_rng(0)
    start = (0.05 * rng.normal(size=trainee.size)).astype(np.float32)
    trainee.set_weights(start)
    gradient = trainee.gradient(example)
    assert gradient.shape == (trainee.size,)
    direction = (rng.normal(size=trainee.size) / math.sqrt(trainee.size)).astype(np.float32)
    losses = []
    for sign in (1, -1):
        trainee.set_weights(start + sign * np.float32(1e-2) * direction)
        losses.append(trainee.loss([example]))
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(float(gradient @ direction), rel=0.05, abs=1e-4)


def test_a_gradient_does_not_depend_on_what_else_is_computed(tmp_path: Path) -> None:
    trainee = Trainee.load(tiny_llama(tmp_path), SMALL, seed=1, threads=1)
    one, other = (trainee.encode(CODE, text) for text in ("the river told the town .", "help " * 20))
    alone = trainee.gradient(one)
    trainee.gradient(other)
    assert (trainee.gradient(one) == alone).all()


def test_gradients_side_by_side_are_the_bytes_of_each_alone() -> None:
    """Of the model that is trained: a tiny one's matrices are too small for torch to share them out."""
    trainee = Trainee.load(locate("smollm2-135m-instruct"), SMALL, seed=1, threads=3)
    texts = [
        f"The {name} told us about the river. " * n for n, name in enumerate(("town", "nurse", "boy"), 1)
    ]
    examples = [trainee.encode(CODE, text) for text in texts] * 2
    try:
        beside = [gradient.tobytes() for gradient in trainee.gradients(examples)]
        # Also when not all are asked for, as when a run is stopped.
        unfinished = trainee.gradients(examples)
        next(unfinished)
        unfinished.close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert beside == [trainee.gradient(example).tobytes() for example in examples]
    assert len(set(beside)) == len(texts)


def test_gradients_agree_with_opacus(tmp_path: Path) -> None:
    opacus = pytest.importorskip("opacus", reason="opacus is a development dependency")
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 3, bias=False)
    x, y = torch.randn(5, 6), torch.randint(0, 3, (5,))
    model = opacus.GradSampleModule(torch.nn.Sequential(torch.nn.Identity(), layer), loss_reduction="sum")
    x.requires_grad_(True)
    torch.nn.functional.cross_entropy(model(x), y, reduction="sum").backward()
    theirs = layer.weight.grad_sample.flatten(1).numpy()
    factor = np.minimum(1.0, 0.5 / np.linalg.norm(theirs, axis=1))[:, None]
    ours = []
    for i in range(5):
        loss = torch.nn.functional.cross_entropy(
            torch.nn.functional.linear(x[i : i + 1], layer.weight), y[i : i + 1]
        )
        (gradient,) = torch.autograd.grad(loss, layer.weight)
        ours.append(clip_gradient(gradient.flatten().numpy() / np.float32(0.5)))
    assert np.abs(np.sum(ours, axis=0) * 0.5 / GRADIENT_STEPS - (theirs * factor).sum(axis=0)).max() < 1e-5


# --- the ledger ----------------------------------------------------------------------------------


def begun(path: Path, **changes: object) -> Training:
    step = SampledGradients(noise_multiplier=2.0, sampling_rate=0.1, n_steps=3)
    return Training.begin(Ledger.open(path, **changes), "training", step, note="")  # type: ignore[arg-type]


def nothing(units: list[int]) -> Iterator[FloatArray]:
    return iter([])


def test_the_whole_cost_is_on_the_ledger_before_the_first_step(tmp_path: Path) -> None:
    training = begun(tmp_path / "ledger")
    (line,) = training.ledger.lines()
    assert line.events == (SampledGaussianEvent(noise_multiplier=2.0, sampling_rate=0.1, count=3),)
    training.ledger.close()


def test_no_step_is_taken_that_was_not_paid_for(tmp_path: Path) -> None:
    training = begun(tmp_path / "ledger")
    for number in range(3):
        assert training.n_done == number
        training.draw(5, nothing, 4)
        training.commit(f"state {number}")
    with pytest.raises(PrivacyError, match="all 3 steps"):
        training.draw(5, nothing, 4)
    training.ledger.close()
    again = begun(tmp_path / "ledger")
    assert (again.n_done, again.state) == (3, "state 2") and len(again.ledger.lines()) == 1
    again.ledger.close()


def test_a_training_over_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match="Nothing was drawn"):
        begun(tmp_path / "ledger", limit=Limit(epsilon=0.1, delta=1e-6))


def test_another_training_of_the_same_name_is_refused(tmp_path: Path) -> None:
    training = begun(tmp_path / "ledger")
    more = replace(training.mechanism, n_steps=4)
    with pytest.raises(PrivacyError, match="other parameters"):
        Training.begin(training.ledger, "training", more, note="")
    with pytest.raises(PrivacyError, match="not drawn at once"):
        training.ledger.release("other", training.mechanism, None)
    training.ledger.close()


# --- runs ----------------------------------------------------------------------------------------


def sentence(i: int) -> str:
    rng = np.random.default_rng(i)
    words = [word for word in WORDS if word.isalpha()]
    return " ".join(words[int(k)] for k in rng.integers(len(words), size=18)) + " ."


def corpus(n: int, *, units: int | None = None) -> PrivateCorpus:
    return PrivateCorpus(
        records=tuple(
            PrivateRecord(
                record_id=f"r{i}",
                unit_id=f"u{i % units if units else i}",
                text=sentence(i),
                labels={"topic": ("rent", "debt")[i % 2]},
            )
            for i in range(n)
        ),
        label_columns=("topic",),
        has_units=units is not None,
    )


DATA = {"path": "unused", "label_columns": ["topic"], "label_values": {"topic": ["rent", "debt"]}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


def config(folder: Path, model: Path, **changes: object) -> RunConfig:
    values = base_config(folder).model_dump(mode="json", exclude_unset=True)
    del values["guarantee"]
    settings: dict[str, object] = {
        "method": "dpsgd", "n": 6, "epsilon": 8, "n_units_bound": 100, "data": DATA,
        "models": {"abstract": "fake", "write": str(model), "embed": "hash", "sentiment": None},
        "dpsgd": {"steps": 3, "sampling_rate": 0.2, "layers": 1, "rank": 2, "max_tokens": 24,
                  "oversample": 3},
        "generation": {"threads": 1},
    }  # fmt: skip
    return RunConfig.parse({**values, **settings, **changes})


def test_a_run_and_its_card(tmp_path: Path, model: Path) -> None:
    settings = config(tmp_path / "run", model)
    result = run(settings, corpus(40))
    card, _ = read_card(result.folder / "release/privacy_card.json")
    lines, attested = read_run(tmp_path / "run/private/ledger.sqlite")
    assert [line.label for line in lines] == ["classes", "training", "texts"]
    assert [line.mechanism for line in lines] == ["GaussianSum", "SampledGradients", "PaidTexts"]
    planned = dpsgd.solve(settings, corpus(40))
    assert [event for line in lines for event in line.events] == planned.events()
    assert compose(planned.events(), 1e-6).epsilon == pytest.approx(8, rel=0.01)
    assert card.figures[0].epsilon is not None and card.figures[0].epsilon <= 8
    assert card.figures[0].accountant == "privacy loss distribution" and card.secure_noise
    assert card.statement == result.statement == statement_of(settings, corpus(40))
    assert check_card(result.folder / "release/privacy_card.json", ledger=(lines, attested)) == []
    assert {flow.task: flow.reads for flow in card.inputs.data_flow} == {
        "write": "private texts, to be trained on; then control codes of labels"
    }
    assert len(result.texts) > 0 and {item.labels["topic"] for item in result.texts} <= {
        "rent",
        "debt",
        "other",
    }
    assert run(settings, corpus(40)).texts == result.texts
    # What it was trained on is nowhere outside private/.
    outside = [p for p in result.folder.rglob("*") if p.is_file() and "private" not in p.parts]
    assert not any(sentence(i) in path.read_text() for path in outside for i in range(40))


def test_weights_move_and_the_model_learns(tmp_path: Path, model: Path) -> None:
    """At a large epsilon the trained model finds the private texts likelier than before, and writes words."""
    texts = PrivateCorpus(
        records=tuple(
            PrivateRecord(record_id=f"r{i}", unit_id=f"u{i}", text="the river told the town because help .")
            for i in range(60)
        )
    )
    dials = {
        "steps": 12,
        "sampling_rate": 0.5,
        "layers": 2,
        "rank": 4,
        "max_tokens": 24,
        "learning_rate": 0.1,
    }
    settings = config(tmp_path / "run", model, epsilon=200, data={}, dpsgd=dials)
    run(settings, texts)
    before = Trainee.load(model, DpsgdConfig(layers=2), seed=1, threads=1)
    after = Trainee.load(tmp_path / "run/private/model", DpsgdConfig(layers=2), seed=1, threads=1)
    code = dpsgd.control_code(settings, {})
    losses = [trainee.loss([trainee.encode(code, texts.records[0].text)]) for trainee in (before, after)]
    assert losses[1] < 0.9 * losses[0]


def test_the_saved_model_is_the_trained_one(tmp_path: Path, model: Path) -> None:
    trainee = Trainee.load(model, SMALL, seed=1, threads=1)
    example = trainee.encode(CODE, sentence(3))
    untrained = trainee.loss([example])
    trainee.set_weights((0.3 * np.random.default_rng(0).normal(size=trainee.size)).astype(np.float32))
    trained = trainee.loss([example])
    trainee.save(tmp_path / "saved")
    again = Trainee.load(tmp_path / "saved", SMALL, seed=2, threads=1)
    assert again.loss([again.encode(CODE, sentence(3))]) == pytest.approx(trained, rel=1e-4)
    assert abs(trained - untrained) > 1e-3
    # The text model reads prompts as the training did.
    loaded = LocalTextModel.load(tmp_path / "saved", name="saved", dtype="float32", threads=1)
    assert list(example.ids[: example.n_code]) == loaded._encode(loaded._render(CODE))


def stop_after(step: int) -> object:
    def on_progress(progress: Progress) -> None:
        if progress.stage == "training" and progress.done == step:
            raise Stop

    return on_progress


@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_stopped_training_goes_on(tmp_path: Path, model: Path, step: int) -> None:
    settings = config(tmp_path / "run", model)
    with pytest.raises(Stop):
        run(settings, corpus(40), on_progress=stop_after(step))  # type: ignore[arg-type]
    states = {path.name for path in (tmp_path / "run/private").glob("training-*")}
    assert states == {f"training-{number}.safetensors" for number in (step - 1, step) if number > 0}
    seen: list[int] = []
    run(settings, corpus(40), on_progress=lambda p: seen.append(p.done) if p.stage == "training" else None)
    assert seen[0] == step and seen[-1] == 3
    with Ledger.open(tmp_path / "run/private/ledger.sqlite") as ledger:
        assert ledger.last_step("training")[0] == 3


def test_a_step_that_was_not_committed_is_drawn_anew(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between draw and commit: the next try draws sample and noise again, and no step twice."""
    drawn: list[IntArray] = []

    class Watched(FixedNoise):
        def gaussian(self, values: IntArray, std: float) -> IntArray:
            drawn.append(super().gaussian(values, std) - values)
            return values + drawn[-1]

    settings = config(tmp_path / "run", model, data={})
    noise = Watched(1)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "commit", lambda *_: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            run(settings, corpus(40), noise=noise)
    assert len(drawn) == 1
    run(settings, corpus(40), noise=noise)
    assert len(drawn) == 4
    assert not any((drawn[0] == other).all() for other in drawn[1:])


def test_a_changed_model_is_written_anew(tmp_path: Path, model: Path) -> None:
    """Only committed weights write: a finished model that was changed since does not."""
    settings = config(tmp_path / "run", model)
    run(settings, corpus(40))
    weights = tmp_path / "run/private/model/model.safetensors"
    trained = weights.read_bytes()
    weights.write_bytes((model / "model.safetensors").read_bytes())
    assert weights.read_bytes() != trained
    run(settings, corpus(40))
    assert weights.read_bytes() == trained


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_weights_that_are_not_the_committed_ones_are_refused(
    tmp_path: Path, model: Path, damage: str
) -> None:
    settings = config(tmp_path / "run", model)
    with pytest.raises(Stop):
        run(settings, corpus(40), on_progress=stop_after(2))  # type: ignore[arg-type]
    path = tmp_path / "run/private/training-2.safetensors"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes((tmp_path / "run/private/training-1.safetensors").read_bytes())
    with pytest.raises(PrivacyError, match="a step is never drawn twice"):
        run(settings, corpus(40))


def test_a_person_gives_one_text_a_step(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[int, int]] = []
    draw = Training.draw

    def watched(self: Training, n_units: int, gradients: object, size: int) -> FloatArray:
        def of(units: list[int]) -> Iterator[FloatArray]:
            found = list(gradients(units))  # type: ignore[operator]
            counted.append((len(units), len(found)))
            return iter(found)

        assert n_units == 10
        return draw(self, n_units, of, size)

    monkeypatch.setattr(Training, "draw", watched)
    run(config(tmp_path / "run", model), corpus(60, units=10))
    assert len(counted) == 3 and all(one == other for one, other in counted)


def test_fixed_noise_is_called_not_private(tmp_path: Path, model: Path) -> None:
    result = run(config(tmp_path / "run", model), corpus(40), noise=FixedNoise(1))
    assert result.statement.startswith("Not private")


def test_long_texts_are_counted(tmp_path: Path, model: Path) -> None:
    dials = {"steps": 1, "sampling_rate": 0.1, "layers": 1, "rank": 1, "max_tokens": 8}
    result = run(config(tmp_path / "run", model, dpsgd=dials), corpus(40))
    assert any(
        "of 40 of 40 texts the model was trained on the first 8 tokens" in note for note in result.notes
    )


def test_texts_longer_than_the_model_reads_are_cut(tmp_path: Path) -> None:
    # Else one long private text would stop the run, and tell that it is there.
    texts = corpus(20)
    long = [replace(item, text=" ".join([item.text] * 20)) for item in texts.records]
    settings = config(tmp_path / "run", tiny_gpt2(tmp_path / "model"))
    values = {"max_tokens": 5000, "sampling_rate": 1.0}
    settings = settings.model_copy(update={"dpsgd": settings.dpsgd.model_copy(update=values)})
    result = run(settings, replace(texts, records=tuple(long)))
    assert any("of 20 of 20 texts" in note for note in result.notes)
    with pytest.raises(ConfigError, match="control code alone"):
        run(
            config(tmp_path / "other", tiny_gpt2(tmp_path / "small", positions=4)),
            texts,
        )


def test_plan_says_noise_and_signal(tmp_path: Path, model: Path) -> None:
    lines = {line.release: line for line in plan_releases(config(tmp_path / "run", model), corpus(40))}
    assert list(lines) == ["classes", "training", "texts"]
    assert (
        "3 steps at rate 0.2" in lines["training"].cost
        and "little will be learnt" not in lines["training"].warning
    )
    tight = plan_releases(config(tmp_path / "run", model, epsilon=0.5), corpus(40))
    assert "little will be learnt" in tight[1].warning
    training, writing = plan_tasks(config(tmp_path / "run", model), corpus(40))
    assert (training.n_calls, training.n_tokens, writing.n_calls) == (60, 0, 18)
    embedded = [replace(task, model="smollm2-135m-instruct") for task in (training, writing)]
    alone = usual_seconds(embedded[1:])
    assert usual_seconds(embedded) == pytest.approx(alone + training.n_prompt_tokens / 270)


def test_models_that_cannot_be_trained_here_are_refused(tmp_path: Path, model: Path) -> None:
    for name in ("fake", "llamacpp:model.gguf", "openai:gpt"):
        models = {"abstract": "fake", "write": name, "embed": "hash", "sentiment": None}
        endpoints = {"openai": {"base_url": "https://api.example.com/v1", "trust": "local"}}
        with pytest.raises(ConfigError, match="weights must be on this machine"):
            run(config(tmp_path / "run", model, models=models, endpoints=endpoints), corpus(40))
    assert not (tmp_path / "run").exists()


def test_a_training_cannot_be_charged_to_a_budget(tmp_path: Path, model: Path) -> None:
    Budget.create(corpus(40), name="posts", epsilon=10, delta=1e-6).close()
    with pytest.raises(PrivacyError, match="cannot be charged to a data budget"):
        run(config(tmp_path / "run", model), corpus(40))
    assert (
        "Outside the data budget"
        in run(config(tmp_path / "b", model, outside_budget=True), corpus(40)).statement
    )


def test_model_folder_is_found() -> None:
    assert json.loads((registry.model_folder("text", "smollm2-135m-instruct") / "config.json").read_text())
