"""Quantised models in GGUF format, run by llama.cpp in this process (extra `llamacpp`)."""

import secrets
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from rpsg.errors import MissingExtra, ModelError, ModelUnavailable
from rpsg.llm.replies import clean, rejected
from rpsg.types import Completion, TextRequest, Trust

CONTEXT_TOKENS = 4096
# Sequences that are written together; each has the whole context to itself.
_AT_ONCE = 8
_SEEDS = 2**31


class LlamaCppTextModel:
    """A GGUF model.

    Replies are a function of the requests, but not to the last bit of what is written beside them: a run that
    was stopped goes on with the same texts where they were finished, and may differ in those that were not.
    """

    def __init__(self, name: str, server: Any, socket_folder: Path) -> None:  # noqa: ANN401 (no types)
        self.name = name
        self.trust: Trust = "local"
        self.context_tokens = CONTEXT_TOKENS
        self._server = server
        self._tidy = weakref.finalize(self, shutil.rmtree, socket_folder, ignore_errors=True)

    @classmethod
    def load(cls, path: Path, *, name: str, threads: int | None = None) -> Self:
        """Loads a model file.

        Args:
            path: a .gguf file.
            name: what to call the model.
            threads: processor threads; None leaves llama.cpp's choice.

        Raises:
            MissingExtra: xllamacpp is not installed.
            ModelUnavailable: the file is not there, or llama.cpp cannot load it.
        """
        try:
            import xllamacpp
        except ImportError:
            raise MissingExtra(
                f"{name} is a GGUF file, which llama.cpp runs; install it with: pip install 'rpsg[llamacpp]'"
            ) from None
        if not path.is_file():
            raise ModelUnavailable(f"there is no model file {path}")
        folder = Path(tempfile.mkdtemp(prefix="rpsg-llama-"))
        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_parallel = _AT_ONCE
        settings.n_ctx = _AT_ONCE * CONTEXT_TOKENS
        settings.verbosity = -1
        # The library serves HTTP beside its functions. Nobody else shall read what is being written: a socket
        # file in a folder of ours instead of a port, a key that nobody knows, and no page that shows prompts.
        settings.hostnames = [str(folder / "server.sock")]
        settings.api_keys = [secrets.token_hex(16)]
        settings.endpoint_slots = settings.endpoint_props = settings.endpoint_metrics = settings.ui = False
        if threads is not None:
            settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        try:
            server = xllamacpp.Server(settings)
            # A server that is taken down before its loop runs never ends. Once it has written, the loop runs.
            server.handle_completions({"prompt": "a", "max_tokens": 1, "temperature": 0.0})
            return cls(name, server, folder)
        except RuntimeError:
            shutil.rmtree(folder, ignore_errors=True)
            raise ModelUnavailable(f"llama.cpp cannot load {path}; is it a GGUF text model?") from None

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Returns one completion a request, in order; those without a usable reply say why."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._complete, requests))

    def close(self) -> None:
        """Gives the model's memory back and removes its socket."""
        self._server = None
        self._tidy()

    def _complete(self, request: TextRequest) -> Completion:
        begun = request.messages[-1].content if request.messages[-1].role == "assistant" else ""
        page = self._server.handle_chat_completions(
            {
                "messages": [asdict(message) for message in request.messages],
                "max_tokens": request.max_tokens,
                "temperature": request.temperature,
                "top_k": request.top_k,
                "top_p": request.top_p,
                "min_p": 0.0,
                "seed": request.seed % _SEEDS,
                "stop": list(request.stop),
            }
        )
        choices = page.get("choices") if isinstance(page, Mapping) else None
        if not choices:
            return self._refused(page)
        choice, usage = choices[0], page.get("usage", {})
        text = clean(choice["message"].get("content") or "")
        n_prompt, n_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not text.strip():
            return rejected("empty reply", n_prompt, n_tokens)
        return Completion(
            # It continues the begun reply, and gives it back whole.
            text=text if text.startswith(begun) else begun + text,
            n_prompt_tokens=n_prompt,
            n_tokens=n_tokens,
            finish="length" if choice.get("finish_reason") == "length" else "stop",
        )

    def _refused(self, page: object) -> Completion:
        error = page.get("error", page) if isinstance(page, Mapping) else {}
        if isinstance(error, Mapping) and error.get("type") == "exceed_context_size_error":
            return rejected("context too long")
        # The library's own words may quote the prompt.
        kind = error.get("type", "unknown error") if isinstance(error, Mapping) else "unknown error"
        raise ModelError(f"{self.name}: llama.cpp refused a request ({kind})")
