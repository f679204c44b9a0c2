from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from rpsg import pipeline
from rpsg.config import RunConfig
from rpsg.data import sample_path
from rpsg.errors import ConfigError, ModelError, ModelUnavailable, RunDirError
from rpsg.llm.device import explain_full_memory, on_one, require_on_gpus, resolve_device, spread
from rpsg.loading import with_device
from rpsg.rundir import RunDir
from tiny_models import tiny_llama


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    card = SimpleNamespace(total_memory=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    return card


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu() -> None:
    assert (resolve_device("auto"), resolve_device("cpu")) == ("cpu", "cpu")
    with pytest.raises(ConfigError, match=r"set generation\.device: cpu"):
        resolve_device("cuda")


@pytest.mark.usefixtures("no_gpu")
def test_a_run_notes_the_device_it_began_on() -> None:
    config = RunConfig.parse({"generation": {"device": "auto"}})
    assert with_device(config).generation.device == "cpu"
    begun_on_a_gpu = RunConfig.parse({"generation": {"device": "cuda"}})
    with pytest.raises(ConfigError, match="goes on on such a machine only"):
        with_device(begun_on_a_gpu)


def test_a_run_goes_on_on_its_own_device_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = RunConfig.parse(
        {
            "data": {"path": str(sample_path("posts_test.jsonl"))},
            "models": {"abstract": "fake", "write": "fake", "embed": "hash", "sentiment": None},
            "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}, "refill_rounds": 0},
            "evaluate": {"enabled": False},
            "output": {"folder": str(tmp_path / "run")},
            "n": 3,
        }
    )
    corpus = pipeline.load_corpus(config)
    pipeline.run(config, corpus)
    assert RunDir.open(tmp_path / "run").read_config().generation.device == "cpu"
    pipeline.run(config, corpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RunDirError, match=r"generation\.device"):
        pipeline.run(config, corpus)


def test_with_gpus(two_gpus: SimpleNamespace, tmp_path: Path) -> None:
    assert (resolve_device("auto"), resolve_device("cpu")) == ("cuda", "cpu")
    folder = tiny_llama(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    size = sum(weights.numel() for weights in model.parameters()) * 2
    two_gpus.total_memory = size * 2
    assert spread(folder, "cuda", torch.bfloat16) == on_one("cuda") == {"": "cuda"}
    two_gpus.total_memory = size
    assert spread(folder, "cuda", torch.bfloat16) == "auto"
    assert spread(folder, "cpu", torch.bfloat16) is on_one("cpu") is None


def test_a_model_partly_in_the_processors_memory_is_refused(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path))
    model.hf_device_map = {"model": 0, "lm_head": 1}
    require_on_gpus("tiny", model)
    model.hf_device_map["lm_head"] = "cpu"
    with pytest.raises(ModelUnavailable, match="does not fit on this machine's GPUs"):
        require_on_gpus("tiny", model)


def test_a_full_gpu_is_a_message_that_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**28, 2**33))
    with (
        pytest.raises(ModelError, match=r"'m'.*0.2 of 8.0 GiB are left.*Lower this, or set") as full,
        explain_full_memory("m", lower="Lower this"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert full.value.__cause__ is None
    with pytest.raises(ZeroDivisionError), explain_full_memory("m", lower=""):
        _ = 1 / 0
