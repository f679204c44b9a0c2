"""Model servers: where they are, whose they are, how they may be called.

A model is named `<endpoint>:<model>`, for example `openai:gpt-4o-mini` or `vllm:Qwen/Qwen2.5-7B-Instruct`.
Endpoints that many people have are known; others, and changes to these, stand in the configuration.
"""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from rpsg.bucket import BucketUrl
from rpsg.errors import ConfigError
from rpsg.types import Content, Trust

Count = Annotated[int, Field(ge=1)]
# One value may be written without a list.
Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]
# Names of models in this process may begin so.
LOCAL = "local"
IN_PROCESS = (LOCAL, "llamacpp")


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class EndpointConfig(Section):
    """A server that speaks the OpenAI interface."""

    api: Literal["openai", "azure"] = "openai"
    base_url: Names = Field((), description="several servers of the same model are used at once")
    api_key_env: Names = Field((), description="NAMES of environment variables with keys; none is fine")
    api_version: str | None = Field(None, description="Azure only")
    mode: Literal["live", "batch"] = Field(
        "live", description="batch: half the price where the server has it, an answer within a day"
    )
    trust: Trust = Field("remote", description="local: you trust it with private text")
    top_k: bool = Field(False, description="whether the server knows top_k")
    reasoning_tokens: Annotated[int, Field(ge=0)] = Field(
        0, description="room for a reasoning model's thoughts, which are not part of the text"
    )
    context_tokens: Count = 8192
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    patience_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        180.0, description="a run stops when no call has succeeded for so long"
    )

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            try:
                parts = urlsplit(url)
                port = parts.port
            except ValueError:
                raise ValueError("base_url is no address; for example http://127.0.0.1:8000/v1") from None
            if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
                raise ValueError(
                    "base_url must begin with http:// or https:// and name a host, for example "
                    "http://127.0.0.1:8000/v1"
                )
            if parts.username or parts.password or parts.query or parts.fragment:
                raise ValueError(
                    "base_url must hold no key, query or fragment: put the key into an environment variable "
                    "and name it in api_key_env"
                )
        return urls

    @field_validator("api_key_env")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
            # Not shown: it may be the key itself.
            raise ValueError("api_key_env must be the NAME of an environment variable, never a key")
        return names

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host names of the servers."""
        return tuple(dict.fromkeys(urlsplit(url).hostname or "" for url in self.base_url))

    def read_keys(self) -> list[str]:
        """Reads the keys from the environment; one empty key for a server that wants none.

        Raises:
            ConfigError: a variable is not set.
        """
        missing = [name for name in self.api_key_env if not os.environ.get(name)]
        if missing:
            raise ConfigError(
                f"the environment variable {name_of_variable(missing[0])} is not set; set it to the key of "
                "the model server"
            )
        keys = [os.environ[name] for name in self.api_key_env]
        odd = [name for name, key in zip(self.api_key_env, keys, strict=True) if not is_key(key)]
        if odd:
            raise ConfigError(f"{odd[0]} holds a space, a line end or another sign that no key has")
        return keys or [""]


def is_key(text: str) -> bool:
    """Tells whether a text can be a key; one that was read from a file often ends with a line end."""
    return text.isascii() and text.isprintable() and " " not in text


def name_of_variable(name: str) -> str:
    """Writes the name of a variable that is not set; one with small letters may be the key itself."""
    return name if name.upper() == name else "that you named"


class ExecutorConfig(Section):
    """Where models that are not on a server compute; the texts are the same. `executor: ray` is its kind."""

    kind: Literal["serial", "threads", "ray"] = "serial"
    workers: Count | None = Field(None, description="models side by side; default: as the cores allow")
    address: str = Field("", description="of a Ray cluster; empty: one of our own on this machine")
    storage: str = Field(
        "",
        description="where chunks lie while Ray computes them: s3://..., gs://...; empty: the run folder",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_storage(self) -> Self:
        if self.storage:
            BucketUrl.parse(self.storage)
        return self


class CallingConfig(Section):
    """How servers are called and when to stop. None of it changes a text, so it may differ on resume."""

    max_concurrency: Count = Field(64, description="most calls at once, a server and key")
    requests_per_minute: Count | None = Field(None, description="what your account allows")
    tokens_per_minute: Count | None = Field(None, description="what your account allows")
    max_cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="US dollars; no call begins that might go over it"
    )
    max_tokens: Count | None = Field(None, description="no call begins that might go over it")
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="no call begins after so long"
    )
    prices: str | None = Field(None, description="your own price table; see docs/models.md")


BUILT_IN: Mapping[str, EndpointConfig] = {
    "openai": EndpointConfig(base_url=("https://api.openai.com/v1",), api_key_env=("OPENAI_API_KEY",)),
    "azure": EndpointConfig(api="azure", api_key_env=("AZURE_OPENAI_API_KEY",), api_version="2024-10-21"),
    "deepseek": EndpointConfig(
        base_url=("https://api.deepseek.com/v1",), api_key_env=("DEEPSEEK_API_KEY",), reasoning_tokens=4096
    ),
    "vllm": EndpointConfig(base_url=("http://127.0.0.1:8000/v1",), top_k=True),
    "llama-server": EndpointConfig(base_url=("http://127.0.0.1:8080/v1",), top_k=True),
    "ollama": EndpointConfig(base_url=("http://127.0.0.1:11434/v1",)),
    "lmstudio": EndpointConfig(base_url=("http://127.0.0.1:1234/v1",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The servers of a configuration, and what a remote one may be sent.

    Attributes:
        endpoints: by name.
        calling: how they are called.
        remote_content: the kinds of content that may leave the machine.
    """

    endpoints: Mapping[str, EndpointConfig]
    calling: CallingConfig
    remote_content: frozenset[Content]


# What a remote model may read without being allowed to.
FREE: frozenset[Content] = frozenset({"public", "released"})
NO_SERVERS = Serving(endpoints={}, calling=CallingConfig(), remote_content=FREE)


def split_name(name: str) -> tuple[str, str]:
    """Splits a model's name into its endpoint, empty for one without, and the rest."""
    prefix, colon, rest = name.partition(":")
    return (prefix, rest) if colon else ("", name)


def find_endpoint(name: str, own: Mapping[str, EndpointConfig]) -> EndpointConfig | None:
    """Returns the endpoint that a model's name begins with; None for a model in this process.

    Settings of the user's own override those of a known endpoint. A known endpoint's key is not sent to a
    server that the user put in its place.

    Raises:
        ConfigError: the endpoint is unknown, or where it is was not said.
    """
    prefix, rest = split_name(name)
    if not prefix or prefix in IN_PROCESS:
        return None
    if prefix not in BUILT_IN and prefix not in own:
        known = sorted({*BUILT_IN, *own, *IN_PROCESS})
        near = difflib.get_close_matches(prefix, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(
            f"model {name!r}: there is no endpoint {prefix!r}; {hint}. A model that another package brings "
            "has a name without a colon"
        )
    if not rest:
        raise ConfigError(f"model {name!r}: write the model's name after the colon")
    base = BUILT_IN.get(prefix, EndpointConfig()).model_dump()
    given = own[prefix].model_dump(exclude_unset=True) if prefix in own else {}
    if "base_url" in given:
        base["api_key_env"] = ()
    endpoint = EndpointConfig(**{**base, **given})
    if not endpoint.base_url:
        raise ConfigError(f"endpoint {prefix!r}: set endpoints.{prefix}.base_url")
    return endpoint
