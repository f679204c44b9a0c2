"""What only a GPU can show. Skipped where torch sees none; `benchmarks/gpu.py` measures speed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertModel, PreTrainedModel

from rpsg.errors import ModelError, ModelUnavailable
from rpsg.llm.decoding import Decoder
from rpsg.llm.device import require_on_gpus, resolve_device
from rpsg.llm.embed import TransformerEmbedder
from rpsg.llm.gpu_search import pays
from rpsg.llm.kernels import use_slot_attention
from rpsg.llm.local import LocalTextModel
from rpsg.llm.sampling import Job
from rpsg.llm.sentiment import TransformerSentiment
from rpsg.llm.seq2seq import Seq2SeqSummariser
from rpsg.stages.vote import nearest
from rpsg.types import Device, Message, TextRequest
from tiny_models import (
    tiny_bart,
    tiny_bert,
    tiny_classifier,
    tiny_gpt2,
    tiny_llama,
    tiny_phi4,
    tiny_phi4_mini,
    tiny_t5,
    tiny_t5_encoder,
)

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no CUDA GPU on this machine"
)
BOTH: tuple[Device, Device] = ("cpu", "cuda")
TEXTS = ["the doctor said my dog felt terrible .", "his family lost the house and the money .", "a cat ."]


def prompts(n: int, *, shared: int) -> list[list[int]]:
    rng = np.random.default_rng(n)
    begin = rng.integers(4, 40, shared).tolist()
    return [begin + rng.integers(4, 40, int(rng.integers(1, 20))).tolist() for _ in range(n)]


def write(model: PreTrainedModel, given: list[list[int]], *, temperature: float) -> list[list[int]]:
    jobs = [
        Job(
            prompt=prompt,
            max_tokens=6 + i % 9,
            temperature=temperature,
            top_k=20,
            top_p=0.95,
            stops=frozenset(),
            seed=i,
        )
        for i, prompt in enumerate(given)
    ]
    Decoder(model, n_slots=5).run(jobs)
    return [job.written for job in jobs]


@pytest.mark.parametrize("own_attention", [True, False], ids=["own", "library"])
@pytest.mark.parametrize("shared", [0, 25], ids=["apart", "shared-beginning"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_phi4, tiny_phi4_mini])
def test_a_gpu_writes_the_tokens_of_a_processor_in_single_precision(
    make: Callable[[Path], Path], shared: int, own_attention: bool, tmp_path: Path
) -> None:
    folder = make(tmp_path)
    given = prompts(11, shared=shared)
    found = {}
    for device in BOTH:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        if own_attention:
            use_slot_attention(model)
        found[device] = [write(model, given, temperature=temperature) for temperature in (0.0, 1.0)]
    assert found["cuda"] == found["cpu"]


def test_layers_spread_by_accelerate_write_the_same_tokens(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    given = prompts(11, shared=25)
    places: dict[str, int | str] = {"model.layers.1": "cpu", "model.layers.0": 0}
    places |= dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), 0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map=places).eval()
    use_slot_attention(model)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert write(model, given, temperature=0.0) == write(plain, given, temperature=0.0)
    with pytest.raises(ModelUnavailable, match="does not fit on this machine's GPUs"):
        require_on_gpus("tiny", model)


def requests(n: int) -> list[TextRequest]:
    return [
        TextRequest(
            messages=(Message(role="user", content=f"the doctor {'felt ' * (i % 7)} terrible"),),
            content="public",
            max_tokens=60,
            seed=i,
        )
        for i in range(n)
    ]


def test_a_whole_model_on_a_gpu(tmp_path: Path) -> None:
    assert resolve_device("auto") == "cuda"
    folder = tiny_llama(tmp_path)
    asked = requests(40)
    model = LocalTextModel.load(folder, name="tiny", device="auto")
    weights = model._decoder._model
    assert {(item.device.type, item.dtype) for item in weights.parameters()} == {("cuda", torch.bfloat16)}
    assert not any("Packed" in type(part).__name__ for part in weights.modules())
    replies = model.complete(asked)
    assert replies == model.complete(asked)
    assert len({reply.text for reply in replies}) > 20
    assert {reply.finish for reply in replies} <= {"stop", "length"}
    (too_long,) = model.complete([TextRequest(messages=asked[0].messages, content="public", max_tokens=500)])
    assert too_long.reason == "context too long"
    # In single precision, a GPU and a processor differ in the last bits only.
    exact = [LocalTextModel.load(folder, name="t", device=item, dtype="float32") for item in BOTH]
    assert exact[0].complete(asked) == exact[1].complete(asked)


@pytest.mark.parametrize("make", [tiny_bert, tiny_t5_encoder])
def test_vectors(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make(tmp_path)
    texts = [*TEXTS, "dog " * 50, ""]
    on_cpu, on_gpu = (TransformerEmbedder.load(folder, name="t", device=item).embed(texts) for item in BOTH)
    assert np.allclose(on_gpu, on_cpu, atol=1e-4) and on_gpu.shape == on_cpu.shape
    again = TransformerEmbedder.load(folder, name="t", device="cuda")
    # Sensitivity is proved for vectors that are a function of one record.
    assert np.array_equal(again.embed(texts[:1]), again.embed(texts[:1]))


@pytest.mark.parametrize("make", [tiny_bart, tiny_t5])
def test_summaries(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make(tmp_path)
    found = [
        Seq2SeqSummariser.load(folder, name="t", device=item).summarise(
            TEXTS, n=3, seeds=[1, 2, 3], tones=[""] * 3
        )
        for item in BOTH
    ]
    assert found[0] == found[1]
    assert all(found[0])


def test_sentiment(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path)
    found = [TransformerSentiment.load(folder, name="t", device=item).classify(TEXTS) for item in BOTH]
    for one, other in zip(*found, strict=True):
        assert one.label == other.label and one.confidence == pytest.approx(other.confidence, abs=1e-4)


@contextmanager
def almost_no_memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-9)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_full_gpu_is_a_message(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    model = LocalTextModel.load(folder, name="tiny", device="cuda", dtype="float32")
    expected = model.complete(requests(2))
    with almost_no_memory(), pytest.raises(ModelError, match="memory is full") as full:
        model.complete(requests(128))
    for word in ("'tiny'", "generation.chunk_size", "generation.device: cpu", "GiB"):
        assert word in str(full.value)
    # Nothing is left behind that would keep the next call from working.
    assert model.complete(requests(2)) == expected
    big = tiny_bert(tmp_path / "bert")
    BertModel(
        BertConfig(vocab_size=20_000, hidden_size=512, num_attention_heads=8, num_hidden_layers=1)
    ).save_pretrained(big)
    with almost_no_memory(), pytest.raises(ModelError, match=r"memory is full.* Use a smaller model"):
        TransformerEmbedder.load(big, name="b", device="cuda")


def test_votes_on_a_gpu_are_those_on_a_processor() -> None:
    rng = np.random.default_rng(0)
    tables = (rng.standard_normal((n, 384)).astype(np.float32) for n in (30_000, 5_000))
    vectors, items = (table / np.linalg.norm(table, axis=1, keepdims=True) for table in tables)
    # Equal candidates, and pairs that single precision does not tell apart.
    items[1000:1500] = items[:500]
    items[2000:2500] = items[500:1000]
    items[2000:2500, :4] += np.float32(2.0**-15)
    vectors[:500] = items[500:1000]
    assert pays(len(vectors), len(items), "auto") and not pays(len(vectors), len(items), "cpu")
    on_cpu, on_gpu = (nearest(vectors, items, device=device) for device in BOTH)
    assert np.array_equal(on_cpu, on_gpu) and len(set(on_gpu)) > 4_000
    # Half precision, as vectors are kept on disk.
    half = vectors.astype(np.float16)
    assert np.array_equal(nearest(half, items, device="cuda"), nearest(half, items))
