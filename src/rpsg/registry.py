"""From a name in a configuration to a model object.

Factories are named, not imported: a model's libraries load when it is used. Other packages add
models through entry points of the group `rpsg.models`, named `kind:name`.
"""

import difflib
import importlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import cast

from rpsg.endpoints import NO_SERVERS, EndpointConfig, Serving, find_endpoint, split_name
from rpsg.errors import ConfigError
from rpsg.scores import Metric
from rpsg.types import Device, Embedder, PiiDetector, SentimentModel, Summariser, TextModel

ENTRY_POINTS = "rpsg.models"
PRESIDIO = "presidio-en"
BUILT_IN: dict[str, str] = {
    "text:fake": "rpsg.llm.fake:FakeTextModel",
    "embedder:hash": "rpsg.llm.fake:HashEmbedder",
    "sentiment:vader": "rpsg.llm.sentiment:VaderSentiment",
}


def text_model(
    name: str,
    *,
    device: Device = "cpu",
    dtype: str = "auto",
    threads: int | None = None,
    serving: Serving = NO_SERVERS,
) -> TextModel:
    """Loads a model that writes: an embedded one, a Hugging Face name, a folder, or one on a server.

    Args:
        name: what the configuration says; `<endpoint>:<model>` is on a server.
        device: that a model of transformers in this process computes on.
        dtype: of the weights of a model in this process.
        threads: of a model in this process.
        serving: the configuration's servers.

    Raises:
        ModelUnavailable: its files are not there.
        ConfigError: the name or its endpoint is unknown.
    """
    own = _find("text", name)
    if own is not None:
        return cast("TextModel", own())
    endpoint = find_endpoint(name, serving.endpoints)
    if endpoint is not None:
        connect = _load("rpsg.llm.openai:OpenAITextModel")
        allowed = serving.remote_content
        return cast("TextModel", connect(name, endpoint, serving.calling, allowed=allowed))
    if _is_gguf(name):
        path = Path(split_name(name)[1]).expanduser()
        return cast(
            "TextModel",
            _load("rpsg.llm.llamacpp:LlamaCppTextModel.load")(path, name=path.name, threads=threads),
        )
    name = name.removeprefix("local:")
    load = _load("rpsg.llm.local:LocalTextModel.load")
    folder = _resolve("text", name)
    return cast("TextModel", load(folder, name=_shown(name), device=device, dtype=dtype, threads=threads))


def summariser(name: str, *, max_tokens: int, device: Device = "cpu") -> Summariser:
    """Loads an encoder-decoder summariser whose summaries have at most `max_tokens`."""
    own = _find("summariser", name)
    if own is not None:
        return cast("Summariser", own())
    settings = _load("rpsg.llm.seq2seq:BeamSettings.of_length")(max_tokens)
    load = _load("rpsg.llm.seq2seq:Seq2SeqSummariser.load")
    folder = _resolve("summariser", name)
    return cast("Summariser", load(folder, name=_shown(name), settings=settings, device=device))


def is_summariser(name: str) -> bool:
    """Tells whether a name stands for an encoder-decoder model rather than a causal one."""
    if _find("summariser", name) is not None:
        return True
    if _find("text", name) is not None or split_name(name)[0] not in {"", "local"} or _is_gguf(name):
        return False
    name = name.removeprefix("local:")
    settings = json.loads((_resolve("text", name) / "config.json").read_text(encoding="utf-8"))
    return bool(settings.get("is_encoder_decoder", False))


def embedder(name: str, *, device: Device = "cpu", serving: Serving = NO_SERVERS) -> Embedder:
    """Loads a sentence embedder."""
    own = _find("embedder", name)
    if own is not None:
        return cast("Embedder", own())
    endpoint = find_endpoint(name, serving.endpoints)
    if endpoint is not None:
        return cast(
            "Embedder", _load("rpsg.llm.openai_embed:OpenAIEmbedder")(name, endpoint, serving.calling)
        )
    name = name.removeprefix("local:")
    load = _load("rpsg.llm.embed:TransformerEmbedder.load")
    return cast("Embedder", load(_resolve("embedder", name), name=_shown(name), device=device))


def sentiment_model(name: str, *, device: Device = "cpu") -> SentimentModel:
    """Loads a sentiment classifier."""
    own = _find("sentiment", name)
    if own is not None:
        return cast("SentimentModel", own())
    name = name.removeprefix("local:")
    load = _load("rpsg.llm.sentiment:TransformerSentiment.load")
    return cast("SentimentModel", load(_resolve("sentiment", name), name=_shown(name), device=device))


def pii_detector(name: str, *, device: Device = "cpu") -> PiiDetector:
    """Loads a detector of personal details; a token classifier finds what it finds beside the embedded one.

    Raises:
        ConfigError: the name is not known.
        ModelUnavailable: its files are not there.
    """
    own = _find("pii", name)
    if own is not None:
        return cast("PiiDetector", own())
    is_model = "/" in name or Path(name).is_dir()
    if name != PRESIDIO and not is_model:
        known = [key.partition(":")[2] for key in _known() if key.startswith("pii:")]
        near = difflib.get_close_matches(name, [PRESIDIO, *known], n=1, cutoff=0.0)
        raise ConfigError(f"models.pii: {name!r} is not known; did you mean {near[0]!r}?")
    embedded = cast("PiiDetector", _load("rpsg.llm.pii:PresidioDetector")(_resolve("pii", "en-core-web-sm")))
    if not is_model:
        return embedded
    load = _load("rpsg.llm.pii_classifier:ClassifierPii.load")
    return cast("PiiDetector", load(_resolve("pii", name), name=_shown(name), base=embedded, device=device))


def model_folder(kind: str, name: str) -> Path:
    """Returns the folder with a model's files.

    Raises:
        ModelUnavailable: they are not there.
    """
    return _resolve(kind, name)


def check_name(kind: str, name: str, endpoints: Mapping[str, EndpointConfig]) -> None:
    """Looks for a model without loading it; one of the Hugging Face hub is taken to be there.

    Raises:
        ConfigError: the name is unknown.
        ModelUnavailable: its files are not there.
    """
    own = name.removeprefix("local:")
    if f"{kind}:{name}" in _known() or find_endpoint(name, endpoints) is not None or _is_gguf(name):
        return
    is_of_hub = own.count("/") == 1 and not own.startswith((".", "/", "~"))
    if not is_of_hub or Path(own).is_dir():
        _resolve(kind, own)


def metrics() -> list[Metric]:
    """Returns the metrics of other packages: entry points named `metric:<name>`."""
    return [
        cast("Metric", _load(target)()) for name, target in _known().items() if name.startswith("metric:")
    ]


@cache
def _known() -> dict[str, str]:
    found = {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return {**found, **BUILT_IN}


def _find(kind: str, name: str) -> Callable[..., object] | None:
    target = _known().get(f"{kind}:{name}")
    return _load(target) if target else None


def _load(target: str) -> Callable[..., object]:
    module, _, path = target.partition(":")
    found: object = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return cast("Callable[..., object]", found)


def _is_gguf(name: str) -> bool:
    return split_name(name)[0] == "llamacpp" or name.lower().endswith(".gguf")


def _resolve(kind: str, name: str) -> Path:
    return cast("Path", _load("rpsg.llm.models:resolve")(kind, name))


def _shown(name: str) -> str:
    # A model's name is released with the privacy card; where it lay on this machine is nobody's business.
    return name if name.count("/") == 1 and not Path(name).is_dir() else Path(name).name
