"""Sentence embeddings by encoder models in Hugging Face or sentence-transformers folders."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from rpsg.llm.quiet import quiet_transformers
from rpsg.types import Device, FloatArray, Trust

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pooling = Literal["mean", "cls"]
# Cosine of unrelated and of near-identical texts, measured on public text (docs/method.md).
COSINE_RANGES: dict[str, tuple[float, float]] = {
    "all-minilm-l6-v2": (0.1, 0.9),
    "sentence-transformers/all-MiniLM-L6-v2": (0.1, 0.9),
    "sentence-transformers/sentence-t5-base": (0.5, 1.0),
}
_BATCH = 32
_BATCH_GPU = 256


class TransformerEmbedder:
    """Maps each text on its own to a unit vector.

    A text longer than the model's window is embedded window by window and averaged, each window
    weighted by its tokens; nothing is cut silently.
    """

    trust: Trust = "local"

    def __init__(
        self,
        name: str,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        window: int,
        pooling: Pooling,
        projection: "torch.Tensor | None",
    ) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        self._window = window
        self._pooling = pooling
        self._projection = projection

    @classmethod
    def load(cls, path: Path, *, name: str, device: Device = "cpu") -> Self:
        """Loads an encoder such as MiniLM, or the encoder of a T5 such as sentence-t5, in float32.

        Raises:
            ConfigError: there is no GPU.
            ModelError: it has too little memory.
        """
        import torch
        from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel

        from rpsg.llm.device import explain_full_memory, on_one, resolve_device

        device = resolve_device(device)
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        kind = T5EncoderModel if config.model_type == "t5" else AutoModel
        with quiet_transformers(), explain_full_memory(name, lower="Use a smaller model"):
            model = kind.from_pretrained(
                path, dtype=torch.float32, device_map=on_one(device), local_files_only=True
            ).eval()
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        pooling = _read_json(path / "1_Pooling" / "config.json")
        limit = _read_json(path / "sentence_bert_config.json").get("max_seq_length")
        positions = getattr(config, "max_position_embeddings", 512)
        return cls(
            name,
            model,
            tokenizer,
            window=int(limit) if isinstance(limit, int) else min(int(positions), 512),
            pooling="cls" if pooling.get("pooling_mode_cls_token") else "mean",
            projection=_read_projection(path / "2_Dense", device),
        )

    @property
    def cosine_range(self) -> tuple[float, float]:
        """Public constants of this embedder; (0, 1) where they were not measured."""
        return COSINE_RANGES.get(self.name, (0.0, 1.0))

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Returns unit vectors, shape (len(texts), dimension).

        Raises:
            ModelError: the GPU's memory is full.
        """
        import torch

        from rpsg.llm.device import explain_full_memory

        if not texts:
            return np.empty((0, int(self._model.config.hidden_size)), dtype=np.float32)
        cut = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=self._window,
            return_overflowing_tokens=True,
            padding=False,
        )
        windows, owners = cut["input_ids"], cut["overflow_to_sample_mapping"]
        order = sorted(range(len(windows)), key=lambda i: len(windows[i]))
        sums: dict[int, torch.Tensor] = {}
        step = _BATCH if self._model.device.type == "cpu" else _BATCH_GPU
        with torch.inference_mode(), explain_full_memory(self.name, lower="Use a smaller models.embed"):
            for start in range(0, len(order), step):
                part = order[start : start + step]
                for index, vector in zip(part, self._encode([windows[i] for i in part]), strict=True):
                    weighted = vector * len(windows[index])
                    owner = owners[index]
                    sums[owner] = sums[owner] + weighted if owner in sums else weighted
        table = torch.stack([sums[i] for i in range(len(texts))])
        vectors: FloatArray = torch.nn.functional.normalize(table, dim=1).numpy()
        return vectors

    def _encode(self, windows: Sequence[Sequence[int]]) -> "torch.Tensor":
        import torch

        width = max(len(window) for window in windows)
        ids = torch.zeros(len(windows), width, dtype=torch.long)
        mask = torch.zeros(len(windows), width, dtype=torch.long)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = torch.tensor(window)
            mask[row, : len(window)] = 1
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        if self._pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = mask[..., None].to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        if self._projection is not None:
            pooled = pooled @ self._projection.T
        return torch.nn.functional.normalize(pooled, dim=1).cpu()


def _read_json(path: Path) -> dict[str, object]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _read_projection(folder: Path, device: Device) -> "torch.Tensor | None":
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    from safetensors.torch import load_file

    tensor: torch.Tensor = load_file(weights, device=device)["linear.weight"]
    return tensor
