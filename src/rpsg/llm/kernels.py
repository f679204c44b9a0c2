"""What computes faster than the library's own way: short attention; on a processor packed weights, gates."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import SiLUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rpsg.types import Device

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    shared_prefix: "SharedPrefix | None" = None,
    **options: object,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Short attention as two products a key head; all else goes to the library's kernel.

    The library's kernel works through each query head's keys on its own, and three heads may share
    them; it took half of a step's time. Only the decoder passes a mask that is added to the scores.

    Args:
        shared_prefix: keys and values that stand before every row's own, kept once for all rows.
    """
    if attention_mask is None or not attention_mask.is_floating_point():
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **cast("dict[str, Any]", options)
        )
    rows, heads, length, width = query.shape
    groups = heads // key.shape[1]
    queries = query.reshape(rows, key.shape[1], groups * length, width)
    products = queries @ key.transpose(2, 3)
    scale = width**-0.5 if scaling is None else scaling
    scores = torch.add(
        attention_mask[:, :, None], products.view(rows, -1, groups, length, key.shape[2]), alpha=scale
    )
    if shared_prefix is None:
        mixed = scores.softmax(-1).to(value.dtype).flatten(2, 3) @ value
    else:
        before = shared_prefix.scores(cast("int", module.layer_idx), queries) * scale
        whole = torch.cat([before, scores.flatten(2, 3)], -1).softmax(-1).to(value.dtype)
        size = before.shape[-1]
        mixed = whole[..., size:] @ value
        mixed += shared_prefix.mix(cast("int", module.layer_idx), whole[..., :size])
    return mixed.view(rows, heads, length, -1).transpose(1, 2).contiguous(), None


class SharedPrefix:
    """Keys and values of the tokens that all prompts begin with: kept and multiplied once for all rows.

    Args:
        states: keys and values of each layer, shape (1, key heads, tokens, width).
    """

    def __init__(self, states: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._keys = [keys[0].transpose(1, 2).contiguous() for keys, _ in states]
        self._values = [values[0].contiguous() for _, values in states]

    def __len__(self) -> int:
        return self._values[0].shape[1]

    def scores(self, layer: int, queries: torch.Tensor) -> torch.Tensor:
        """Returns queries times keys, shape (rows, key heads, queries, tokens)."""
        return _by_head(queries, self._keys[layer])

    def mix(self, layer: int, weights: torch.Tensor) -> torch.Tensor:
        """Returns weights times values, shape (rows, key heads, queries, width)."""
        return _by_head(weights, self._values[layer])


def _by_head(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    # (rows, heads, n, a) times (heads, a, b): one matrix product a head, whatever the number of rows.
    rows, heads, n, _ = left.shape
    product = left.transpose(0, 1).reshape(heads, rows * n, -1) @ right
    return product.view(heads, rows, n, -1).transpose(0, 1)


AttentionInterface.register("rpsg", _attend)
AttentionMaskInterface.register("rpsg", sdpa_mask)
# What `_attend` does not compute; a model with one of these keeps the library's attention.
_OTHER_ATTENTION = ("sliding_window", "attn_logit_softcapping", "use_sliding_window", "layer_types")


def use_slot_attention(model: "PreTrainedModel") -> None:
    """Lets a model attend with `_attend`, where its attention is the plain one."""
    plain = not any(getattr(model.config, name, None) for name in _OTHER_ATTENTION)
    if plain and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("rpsg")


def passes_on_options(model: "PreTrainedModel") -> bool:
    """Tells whether a model hands options that it does not know down to its attention, as most do."""
    parts = dict(model.named_modules())
    attention = [
        name for name, part in parts.items() if hasattr(part, "layer_idx") and hasattr(part, "scaling")
    ]
    if not attention:
        return False
    steps = attention[0].split(".")
    path = [parts[".".join(steps[:depth])] for depth in range(len(steps) + 1)]
    return all(
        any(
            option.kind is option.VAR_KEYWORD
            for option in inspect.signature(part.forward).parameters.values()
        )
        for part in path
        if not isinstance(part, nn.ModuleList)
    )


class _PackedLinear(nn.Module):
    """A linear layer whose weight is laid out once for the processor's matrix kernel.

    An activation is applied to the sums before they are rounded and written.
    """

    def __init__(self, linear: nn.Linear, batch: int, activation: Literal["none", "swish"] = "none") -> None:
        super().__init__()
        self._bias = linear.bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), batch)
        self._activation = activation

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            states, self._weight, self._bias, self._activation, [], ""
        )
        return result


def pack_linear_layers(model: "PreTrainedModel", batch: int) -> None:
    """Repacks linear layers in place, those whose number format the processor has a matrix kernel for."""
    kinds = packed_kinds()
    for module in list(model.modules()):
        is_gated = _is_gated(module)
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child.weight.dtype in kinds:
                is_gate = is_gated and name == "gate_proj"
                setattr(module, name, _PackedLinear(child, batch, "swish" if is_gate else "none"))
                if is_gate:
                    module.act_fn = nn.Identity()


def best_dtype(device: Device = "cpu") -> torch.dtype:
    """Returns the number format in which this machine's processor, or its GPU, is fastest."""
    if device == "cuda":
        has_half = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_half else torch.float32
    has_half = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_half else torch.float32


def packed_kinds() -> frozenset[torch.dtype]:
    """Returns the number formats in which this processor multiplies packed weights."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return frozenset()
    # Without the instructions for it, packing bfloat16 raises.
    has_half = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return frozenset({torch.float32, torch.bfloat16} if has_half else {torch.float32})


# The parts of a feed-forward module that computes down(act(gate(x)) * up(x)), as most models name them.
_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def _is_gated(module: nn.Module) -> bool:
    parts = dict(module.named_children())
    return parts.keys() == _GATED and isinstance(parts["act_fn"], nn.SiLU | SiLUActivation)
