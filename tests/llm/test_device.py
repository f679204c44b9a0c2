from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from rpsg.config import RunConfig
from rpsg.errors import ConfigError, ModelError, ModelUnavailable
from rpsg.llm.device import explain_full_memory, on_one, require_on_gpus, resolve_device, spread
from rpsg.pipeline import with_device
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
