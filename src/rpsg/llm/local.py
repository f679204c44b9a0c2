"""Text generation by causal language models on this machine."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from rpsg.llm.quiet import quiet_transformers
from rpsg.llm.replies import rejected
from rpsg.types import Completion, Device, Message, TextRequest, Trust

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Sequences that are written at once, at most; `generation.chunk_size` may allow fewer.
N_SLOTS = 128
N_SLOTS_GPU = 512
# Ends a turn in chat formats whose tokenizer names another end of text.
_LOOKS_LIKE_CONTROL = re.compile(r"[<\[].+[>\]]$")
_FEWER_AT_ONCE = "Lower generation.chunk_size, the texts that are written at once"
_TURN_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>")


class LocalTextModel:
    """Any causal model of transformers, from a folder; chat template or plain completion.

    The same requests in the same order give the same bytes on one kind of machine with one device, dtype
    and thread count. Half-precision sums depend on which sequences share a batch, so a different
    list may not; a GPU sums in another order than a processor, so their texts differ.
    """

    trust: Trust = "local"
    # Told, while a list of requests is completed, how many are, and how many tokens are written.
    on_written: Callable[[int, int], None] | None = None

    def __init__(self, name: str, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        from rpsg.llm.decoding import Decoder

        self.name = name
        self._tokenizer = tokenizer
        self._decoder = Decoder(model, n_slots=N_SLOTS if model.device.type == "cpu" else N_SLOTS_GPU)
        config = model.config
        self._context = int(getattr(config, "max_position_embeddings", None) or config.n_positions)
        self._ends = _end_tokens(model, tokenizer)
        self._control = control_tokens(tokenizer)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        name: str,
        device: Device = "cpu",
        dtype: Literal["auto", "bfloat16", "float32"] = "auto",
        threads: int | None = None,
    ) -> Self:
        """Loads a model from a folder in Hugging Face format.

        Args:
            path: the folder.
            name: what to call the model.
            device: that computes. A model that one GPU is too small for is spread over all of them.
            dtype: of the weights; auto is bfloat16 where the device computes in it.
            threads: processor threads; None leaves torch's setting.

        Raises:
            ConfigError: there is no GPU.
            ModelError: it has too little memory.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from rpsg.llm.device import explain_full_memory, require_on_gpus, resolve_device, spread
        from rpsg.llm.kernels import best_dtype, pack_linear_layers, use_slot_attention

        if threads is not None:
            torch.set_num_threads(threads)
        device = resolve_device(device)
        kind = best_dtype(device) if dtype == "auto" else getattr(torch, dtype)
        with quiet_transformers(), explain_full_memory(name, lower="Use a smaller model"):
            places = spread(path, device, kind)
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=kind, device_map=places, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        use_slot_attention(model)
        if device == "cpu":
            pack_linear_layers(model, N_SLOTS)
        else:
            require_on_gpus(name, model)
        return cls(name, model, tokenizer)

    @property
    def context_tokens(self) -> int:
        """Prompt and reply together may have this many tokens."""
        return self._context

    def complete(self, requests: Sequence[TextRequest]) -> list[Completion]:
        """Returns one completion a request, in order; a prompt that does not fit gets a rejected one.

        Raises:
            ModelError: the GPU's memory is full.
        """
        from rpsg.llm.device import explain_full_memory
        from rpsg.llm.sampling import Job

        jobs = [
            Job(
                prompt=self._encode(self._render(request.messages)),
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_k=request.top_k,
                top_p=request.top_p,
                stops=self._ends,
                seed=request.seed,
            )
            for request in requests
        ]
        fits = [len(job.prompt) + job.max_tokens <= self._context for job in jobs]
        with explain_full_memory(self.name, lower=_FEWER_AT_ONCE):
            short = [job for job, is_short in zip(jobs, fits, strict=True) if is_short]
            self._decoder.run(short, self.on_written)
        return [
            self._completion(request, job.prompt, job.written, stopped=job.stopped)
            if is_short
            else rejected("context too long", 0, 0)
            for request, job, is_short in zip(requests, jobs, fits, strict=True)
        ]

    def _completion(
        self, request: TextRequest, prompt: list[int], written: list[int], *, stopped: bool
    ) -> Completion:
        text = str(self._tokenizer.decode(written, skip_special_tokens=True))
        cuts = [place for place in (text.find(stop) for stop in request.stop) if place >= 0]
        return Completion(
            text=_begun(request.messages) + (text[: min(cuts)] if cuts else text),
            n_prompt_tokens=len(prompt),
            n_tokens=len(written),
            finish="stop" if stopped or cuts else "length",
        )

    def _render(self, messages: Sequence[Message]) -> str:
        return render(self._tokenizer, messages, self._control)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids


def render(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], control: re.Pattern[str]
) -> str:
    """Returns a prompt as the model reads it: by its chat template, where it has one.

    Args:
        tokenizer: the model's.
        messages: the prompt; a last one by the assistant is continued.
        control: the model's control tokens.
    """
    begun = _begun(messages)
    turns = list(messages[:-1]) if begun else list(messages)
    if tokenizer.chat_template is None:
        return "\n\n".join([*(turn.content for turn in turns), begun])
    # A text must not speak for another turn: the tokenizer would read a control token in it as one.
    chat = [{"role": turn.role, "content": control.sub(" ", turn.content)} for turn in turns]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)) + begun


def _begun(messages: Sequence[Message]) -> str:
    return messages[-1].content if messages[-1].role == "assistant" else ""


def control_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    """Returns a pattern of what a tokenizer reads as the beginning or end of something."""
    added = tokenizer.added_tokens_decoder.values()
    marks = {token.content for token in added if token.special or _LOOKS_LIKE_CONTROL.match(token.content)}
    marks |= set(tokenizer.all_special_tokens)
    # Longest first: one may begin as another does.
    found = sorted((re.escape(mark) for mark in marks if len(mark) > 1), key=len, reverse=True)
    return re.compile("|".join(found) or r"(?!)")


def _end_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    ends = {tokenizer.eos_token_id}
    for config in (model.config, model.generation_config):
        given = getattr(config, "eos_token_id", None)
        ends |= set(given) if isinstance(given, list) else {given}
    known = tokenizer.get_vocab()
    ends |= {known.get(token) for token in _TURN_ENDS}
    return frozenset(token for token in ends if token is not None)
