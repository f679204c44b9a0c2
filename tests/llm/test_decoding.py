import gc
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaMLP

from rpsg.llm import decoding, kernels
from rpsg.llm.decoding import Decoder
from rpsg.llm.kernels import pack_linear_layers, packed_kinds, use_slot_attention
from rpsg.llm.sampling import Job, sample
from rpsg.llm.slot_cache import SlotCache
from tiny_models import tiny_gpt2, tiny_llama, tiny_phi4, tiny_phi4_mini

NO_STOPS: frozenset[int] = frozenset()


@pytest.fixture(
    scope="module", params=[tiny_llama, tiny_gpt2, tiny_phi4, tiny_phi4_mini], ids=lambda make: make.__name__
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = request.param(tmp_path_factory.mktemp("model"))
    return path


def load(folder: Path, *, ours: bool = True) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if ours:
        use_slot_attention(model)
    return model


def prompts(n: int, *, shared: int = 0, longest: int = 20) -> list[list[int]]:
    rng = np.random.default_rng(n)
    begin = rng.integers(4, 40, shared).tolist()
    return [begin + rng.integers(4, 40, int(rng.integers(1, longest))).tolist() for _ in range(n)]


def job(prompt: list[int], *, seed: int = 0, temperature: float = 0.0, n: int = 12) -> Job:
    return Job(
        prompt=prompt, max_tokens=n, temperature=temperature, top_k=0, top_p=1.0, stops=NO_STOPS, seed=seed
    )


def greedy(model: PreTrainedModel, prompt: list[int], n: int) -> list[int]:
    ids = torch.tensor([prompt])
    for _ in range(n):
        with torch.inference_mode():
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize("shared", [0, 25], ids=["apart", "shared-beginning"])
@pytest.mark.parametrize("n_slots", [3, 64])
def test_greedy_equals_the_plain_forward_pass(folder: Path, shared: int, n_slots: int) -> None:
    given = prompts(11, shared=shared)
    jobs = [job(prompt, n=5 + i % 9) for i, prompt in enumerate(given)]
    Decoder(load(folder), n_slots=n_slots).run(jobs)
    model = load(folder, ours=False)
    for i, (prompt, done) in enumerate(zip(given, jobs, strict=True)):
        assert done.written == greedy(model, prompt, 5 + i % 9)


def test_what_all_prompts_begin_with_is_kept_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[SlotCache] = []

    class Seen(SlotCache):
        def __init__(self, *given: object, **options: object) -> None:
            super().__init__(*given, **options)  # type: ignore[arg-type]
            caches.append(self)

    monkeypatch.setattr(decoding, "SlotCache", Seen)
    for shared in (0, 40):
        jobs = [job(prompt, n=4) for prompt in prompts(6, shared=shared, longest=9)]
        Decoder(load(folder), n_slots=6).run(jobs)
    apart, together = caches
    # Room for the prompts' own tokens and the reply only.
    assert (apart.start, together.start) == (0, 40) and together.most == apart.most == 32


def test_a_cache_goes_without_the_garbage_collector(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[weakref.ref[SlotCache]] = []

    class Seen(SlotCache):
        def __init__(self, *given: object, **options: object) -> None:
            super().__init__(*given, **options)  # type: ignore[arg-type]
            caches.append(weakref.ref(self))

    monkeypatch.setattr(decoding, "SlotCache", Seen)
    gc.disable()
    try:
        Decoder(load(folder), n_slots=4).run([job(prompt, n=4) for prompt in prompts(6)])
        assert [cache() for cache in caches] == [None]
    finally:
        gc.enable()


def test_a_model_that_takes_no_options_keeps_the_beginning_in_every_slot(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "passes_on_options", lambda _: False)
    given = prompts(6, shared=40, longest=9)
    jobs = [job(prompt, n=4) for prompt in given]
    Decoder(load(folder), n_slots=6).run(jobs)
    plain = load(folder, ours=False)
    assert [done.written for done in jobs] == [greedy(plain, prompt, 4) for prompt in given]


def test_equal_prompts_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [prompt for prompt in prompts(5, longest=9) for _ in range(4)]
    model = load(folder)
    read: list[int] = []
    forward = model.forward

    def counted(*, input_ids: torch.Tensor, **options: object) -> object:
        read.append(input_ids.numel() if input_ids.shape[1] > 1 else 0)
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(model, "forward", counted)
    jobs = [job(prompt, n=6) for prompt in given]
    Decoder(model, n_slots=32).run(jobs)
    assert sum(read) <= 5 * 9
    plain = load(folder, ours=False)
    assert [done.written for done in jobs] == [greedy(plain, prompt, 6) for prompt in given]


def test_the_cache_grows_and_shrinks(folder: Path) -> None:
    given = [prompt * 3 for prompt in prompts(3, longest=9)] + [[5], [6, 7], [8]]
    lengths = [60 - len(prompt) for prompt in given[:3]] + [4, 5, 6]
    jobs = [job(prompt, n=n) for prompt, n in zip(given, lengths, strict=True)]
    Decoder(load(folder), n_slots=2).run(jobs)
    model = load(folder, ours=False)
    for prompt, done, n in zip(given, jobs, lengths, strict=True):
        assert done.written == greedy(model, prompt, n)


def test_keys_and_values_stay_within_their_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[SlotCache] = []

    class Seen(SlotCache):
        def __init__(self, *given: object, **options: object) -> None:
            super().__init__(*given, **options)  # type: ignore[arg-type]
            caches.append(self)

    def taken(n_bytes: int) -> tuple[int, int, list[list[int]]]:
        monkeypatch.setattr(decoding, "_CACHE_BYTES", n_bytes)
        jobs = [job(prompt, n=64 - len(prompt)) for prompt in prompts(8)]
        Decoder(load(folder), n_slots=6).run(jobs)
        cache = caches.pop()
        rooms = [room for layer in cache.slot_layers for room in (layer._key_room, layer._value_room)]
        return cache.n_slots, sum(room.nbytes for room in rooms), [item.written for item in jobs]

    monkeypatch.setattr(decoding, "SlotCache", Seen)
    n_slots, all_bytes, texts = taken(1 << 30)
    assert n_slots == 6
    n_slots, n_bytes, again = taken(all_bytes // 2)
    assert (n_slots, n_bytes) == (3, all_bytes // 2) and again == texts
    # One text at a time is written whatever it takes.
    assert taken(1)[0] == 1


def test_own_attention_is_in_use_where_it_may(folder: Path) -> None:
    assert load(folder).config._attn_implementation == "rpsg"
    other = load(folder, ours=False)
    other.config.sliding_window = 8
    use_slot_attention(other)
    assert other.config._attn_implementation == "sdpa"


def test_a_sample_depends_on_its_seed_only(folder: Path) -> None:
    given = prompts(6)
    runs = []
    for n_slots in (2, 6):
        jobs = [job(prompt, seed=i, temperature=1.0) for i, prompt in enumerate(given)]
        Decoder(load(folder), n_slots=n_slots).run(jobs)
        runs.append([done.written for done in jobs])
    assert runs[0] == runs[1]
    other = [job(given[0], seed=seed, temperature=1.0) for seed in range(8)]
    Decoder(load(folder), n_slots=8).run(other)
    assert len({tuple(done.written) for done in other}) > 1


def test_a_stop_token_ends_a_sequence_and_is_not_written(folder: Path) -> None:
    prompt = [9, 10, 11]
    free = greedy(load(folder, ours=False), prompt, 10)
    stop = free[4]
    first = free.index(stop)
    one = Job(
        prompt=prompt, max_tokens=10, temperature=0, top_k=0, top_p=1.0, stops=frozenset({stop}), seed=0
    )
    Decoder(load(folder), n_slots=1).run([one])
    assert one.stopped and one.written == free[:first]


def test_nothing_to_do(folder: Path) -> None:
    model = load(folder)
    with patch.object(model, "forward", side_effect=AssertionError("the model was called")) as forward:
        Decoder(model, n_slots=1).run([])
    assert not forward.called


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_weights_in_another_layout_compute_the_same(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.Linear(96, 32, bias=False)).to(kind)
    states = torch.randn(5, 64).to(kind)
    with torch.inference_mode():
        expected = layer(states).float()
        pack_linear_layers(layer, 8)
        # A processor without instructions for bfloat16 keeps the library's layers for it.
        assert ("Packed" in repr(layer)) == (kind in packed_kinds())
        assert torch.allclose(layer(states).float(), expected, atol=0.02 if kind == torch.bfloat16 else 1e-5)


def gated(activation: str) -> LlamaMLP:
    config = LlamaConfig(hidden_size=64, intermediate_size=96, hidden_act=activation)
    torch.manual_seed(0)
    return LlamaMLP(config)


@pytest.mark.parametrize(("activation", "is_fused"), [("silu", True), ("swish", True), ("gelu", False)])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_gate_is_applied_where_its_product_is_summed(
    activation: str, is_fused: bool, kind: torch.dtype
) -> None:
    module = gated(activation).to(kind)
    states = torch.randn(5, 64).to(kind)
    with torch.inference_mode():
        expected = module(states).float()
        pack_linear_layers(module, 8)
        assert isinstance(module.act_fn, torch.nn.Identity) == (is_fused and kind in packed_kinds())
        assert torch.allclose(module(states).float(), expected, atol=0.002)
        assert expected.abs().max() > 0.02


def test_a_gate_whose_layers_cannot_be_packed_keeps_its_activation() -> None:
    module = gated("silu").double()
    states = torch.randn(5, 64).double()
    with torch.inference_mode():
        expected = module(states)
        pack_linear_layers(module, 8)
        assert torch.equal(module(states), expected)


@pytest.mark.parametrize(("short", "is_own"), [(0, False), (36, False), (37, True)])
def test_prompts_are_read_alike_with_either_attention(
    folder: Path, short: int, is_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(kernels, "sdpa_attention_forward", counting(calls, kernels.sdpa_attention_forward))
    monkeypatch.setattr(decoding, "_SHORT", short)
    given = prompts(5, shared=20)
    jobs = [job(prompt, n=4) for prompt in given]
    model = load(folder)
    Decoder(model, n_slots=3).run(jobs)
    # The shared beginning is read by the library's attention; the longest prompt has 37 tokens with it.
    n_layers = model.config.num_hidden_layers
    assert (len(calls) == n_layers) == is_own
    plain = load(folder, ours=False)
    assert [done.written for done in jobs] == [greedy(plain, prompt, 4) for prompt in given]


def counting(calls: list[str], function: Callable[..., object]) -> Callable[..., object]:
    def counted(*given: object, **options: object) -> object:
        calls.append("called")
        return function(*given, **options)

    return counted


def law(logits: list[float], *, temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """Top-k, then top-p, as defined."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])[: top_k or None]
    weights = np.exp(np.asarray([logits[i] for i in order]) / temperature)
    shares = weights / weights.sum()
    kept = [i for i in range(len(order)) if shares[:i].sum() < top_p]
    total = shares[kept].sum()
    return {order[i]: float(shares[i] / total) for i in kept}


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8), (1.0, 4, 0.9)]
)
@pytest.mark.parametrize("vocabulary", [12, 64 * 20], ids=["small", "in-blocks"])
def test_sampling_follows_its_law(temperature: float, top_k: int, top_p: float, vocabulary: int) -> None:
    rng = np.random.default_rng(1)
    logits = np.full(vocabulary, -30.0)
    places = rng.permutation(vocabulary)[:12]
    logits[places] = rng.normal(size=12)
    n = 6000
    jobs = [
        Job(
            prompt=[1],
            max_tokens=1,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stops=NO_STOPS,
            seed=i,
        )
        for i in range(n)
    ]
    rows = torch.tensor(logits, dtype=torch.float32).expand(n, -1).contiguous()
    drawn = Counter(sample(rows, jobs).tolist())
    expected = law(logits.tolist(), temperature=temperature, top_k=top_k, top_p=top_p)
    expected = {token: chance for token, chance in expected.items() if chance > 1e-6}
    assert set(drawn) <= set(expected)
    observed = [drawn[token] for token in expected]
    chances = np.asarray(list(expected.values()))
    assert stats.chisquare(observed, chances / chances.sum() * n).pvalue > 1e-4


def test_greedy_rows_and_sampled_rows_share_a_batch() -> None:
    logits = torch.randn(2, 50)
    jobs = [job([1]), job([1], temperature=1.0)]
    assert int(sample(logits, jobs)[0]) == int(logits[0].argmax())
