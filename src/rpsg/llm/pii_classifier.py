"""Personal details found by a token classifier as well, such as bigcode/starpii: what either finds counts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rpsg.errors import ModelUnavailable
from rpsg.llm.pii import PII_TYPES, merge_spans
from rpsg.llm.quiet import quiet_transformers
from rpsg.types import Device, PiiDetector, PiiSpan, Trust

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SCHEME = ("B-", "I-", "E-", "L-", "S-", "U-")
_TYPES = {
    "NAME": "PERSON", "PER": "PERSON", "IP_ADDRESS": "IP", "KEY": "ID", "PASSWORD": "ID", "LOC": "LOCATION",
    "GPE": "LOCATION", "ORGANIZATION": "ORG", "PHONE_NUMBER": "PHONE", "EMAIL_ADDRESS": "EMAIL",
    **{kind: kind for kind in PII_TYPES},
}  # fmt: skip
# Neighbouring windows share so many tokens, so that a name at an edge is seen whole once.
_STRIDE = 32
_MOST_TOKENS = 512


class ClassifierPii:
    """A token classifier beside another detector.

    Args:
        name: the classifier's name.
        model: a token classification model.
        tokenizer: its tokenizer, which must know where in the text a token stands.
        base: the other detector.
    """

    trust: Trust = "local"

    def __init__(
        self, name: str, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", base: PiiDetector
    ) -> None:
        self.name = f"{base.name} and {name}"
        self._model = model
        self._tokenizer = tokenizer
        self._base = base
        labels = (model.config.id2label or {}).items()
        self._types = {int(number): _type_of(str(label)) for number, label in labels}
        positions = int(getattr(model.config, "max_position_embeddings", _MOST_TOKENS))
        # RoBERTa counts positions from its padding index + 1.
        self._window = min(_MOST_TOKENS, positions - 2)

    @classmethod
    def load(cls, path: Path, *, name: str, base: PiiDetector, device: Device = "cpu") -> Self:
        """Loads a classifier from a folder.

        Raises:
            ModelUnavailable: none of its labels is a kind of personal detail.
            ConfigError: there is no GPU.
            ModelError: it has too little memory.
        """
        import torch
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        from rpsg.llm.device import explain_full_memory, on_one, resolve_device

        device = resolve_device(device)
        with quiet_transformers(), explain_full_memory(name, lower="Use a smaller model"):
            model = AutoModelForTokenClassification.from_pretrained(
                path, dtype=torch.float32, device_map=on_one(device), local_files_only=True
            ).eval()
        found = cls(name, model, AutoTokenizer.from_pretrained(path, local_files_only=True), base)
        if not any(found._types.values()):
            raise ModelUnavailable(
                f"models.pii: none of the labels of {name!r} is a kind of personal detail that is known here "
                f"({', '.join(sorted(_TYPES))})"
            )
        return found

    def find(self, texts: Sequence[str]) -> list[list[PiiSpan]]:
        """Returns the spans of each text, sorted and not overlapping."""
        others = self._base.find(texts)
        return [
            merge_spans(text, [*spans, *self._find_one(text)])
            for text, spans in zip(texts, others, strict=True)
        ]

    def _find_one(self, text: str) -> Iterator[PiiSpan]:
        import torch

        pieces = self._tokenizer(
            [text],
            truncation=True,
            max_length=self._window,
            stride=min(_STRIDE, self._window // 4),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for ids, places in zip(pieces["input_ids"], pieces["offset_mapping"], strict=True):
            with torch.inference_mode():
                window = torch.tensor([ids], device=self._model.device)
                chances = self._model(input_ids=window).logits[0].softmax(-1)
            scores, numbers = chances.max(-1)
            yield from _join(text, places, [self._types[n] for n in numbers.tolist()], scores.tolist())


def _type_of(label: str) -> str | None:
    return _TYPES.get(label.upper().removeprefix(next((s for s in _SCHEME if label.startswith(s)), "")))


def _join(
    text: str, places: Sequence[tuple[int, int]], types: Sequence[str | None], scores: Sequence[float]
) -> Iterator[PiiSpan]:
    """Joins neighbouring tokens of one type; a blank between them does not part them."""
    start, end, kind, score = 0, 0, None, 1.0
    for (begins, ends), this, sure in zip(places, types, scores, strict=True):
        if begins == ends:
            continue
        if this is not None and this == kind and not text[end:begins].strip():
            end, score = ends, min(score, sure)
            continue
        if kind is not None:
            yield PiiSpan(start=start, end=end, type=kind, score=score)
        start, end, kind, score = begins, ends, this, sure
    if kind is not None:
        yield PiiSpan(start=start, end=end, type=kind, score=score)
