import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rpsg.errors import ConfigError, ModelUnavailable
from rpsg.llm import models
from rpsg.llm.catalogue import EMBEDDED
from rpsg.llm.convert import convert_gguf
from rpsg.llm.models import list_models, locate, resolve, sha256_of
from tiny_models import tiny_gpt2


@pytest.mark.parametrize("name", list(EMBEDDED))
def test_embedded_models_are_here_and_as_pinned(name: str) -> None:
    folder = locate(name)
    assert folder.is_dir()
    info = {item.name: item for item in list_models()}[name]
    assert info.available and len(info.sha256) == 64 and info.licence and info.trust == "local"


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = EMBEDDED["all-minilm-l6-v2"]
    wrong = replace(model, files={**model.files, "config.json": "0" * 64})
    monkeypatch.setitem(models.EMBEDDED, model.name, wrong)  # type: ignore[attr-defined]
    monkeypatch.setenv("RPSG_CACHE_DIR", str(tmp_path))
    with pytest.raises(ModelUnavailable, match=r"config\.json is not the expected one.*force-reinstall"):
        locate(model.name)


def test_a_hash_is_computed_once_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    pinned = {"weights.bin": sha256_of(file)}
    monkeypatch.setenv("RPSG_CACHE_DIR", str(tmp_path / "cache"))
    counted: list[Path] = []
    monkeypatch.setattr(models, "sha256_of", lambda path: (counted.append(path), sha256_of(path))[1])
    for _ in range(3):
        models._check(tmp_path, pinned, marker="m", fix="fix it")
    assert len(counted) == 1
    file.write_bytes(b"two")
    with pytest.raises(ModelUnavailable, match="fix it"):
        models._check(tmp_path, pinned, marker="m", fix="fix it")


def test_conversion_happens_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def save(_: Path, folder: Path) -> None:
        made.append(1)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr("rpsg.llm.convert._save", save)
    target = tmp_path / "cache" / "model"
    threads = [threading.Thread(target=convert_gguf, args=(tmp_path / "x.gguf", target)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert list(json.loads((target / "hashes.json").read_text())) == ["config.json"]
    assert [path.name for path in target.parent.iterdir() if path.is_dir()] == ["model"]


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path, folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rpsg.llm.convert._save", fail)
    with pytest.raises(ModelUnavailable, match=r"No space left on device.*RPSG_CACHE_DIR"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "cache" / "model")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    folder = tiny_gpt2(tmp_path)
    assert resolve("text", str(folder)) == folder


def test_a_folder_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match=r"no \*\.safetensors; other weight formats are not read"):
        resolve("text", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("smollm2", ConfigError, "did you mean 'smollm2-135m-instruct'"),
        ("all-minilm-l6-v2", ConfigError, "is for embedder, not for text"),
        ("/no/such/folder", ModelUnavailable, "there is no such folder"),
        ("./here", ModelUnavailable, "there is no such folder"),
        ("owner/mo del", ConfigError, "is not a Hugging Face name"),
    ],
)
def test_wrong_names(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve("text", name)


@pytest.mark.parametrize("offline", [True, False])
def test_without_the_hub_the_error_names_model_and_two_ways(
    offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, local_files_only: bool, **__: object) -> str:
        raise OSError if not local_files_only else FileNotFoundError

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if offline else "0")
    with pytest.raises(ModelUnavailable) as caught:
        resolve("text", "openai-community/gpt2")
    message = str(caught.value)
    assert "'openai-community/gpt2'" in message and "(1)" in message and "(2)" in message
    assert ("switched off" if offline else "cannot be reached (OSError)") in message


def test_a_cached_hub_model_needs_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_gpt2(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    assert resolve("text", "openai-community/gpt2") == folder
