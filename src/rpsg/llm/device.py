"""Where models in this process compute: the processor or a GPU of NVIDIA's."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rpsg.errors import ConfigError, ModelError, ModelUnavailable
from rpsg.types import Device

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Of a GPU's memory; the rest is for the cache of keys and values.
_WEIGHTS_SHARE = 0.75
_GIB = 2.0**30


def resolve_device(wanted: Device) -> Device:
    """Returns `cpu` or `cuda`; `auto` is `cuda` where torch sees a GPU.

    Raises:
        ConfigError: `cuda` is wanted and there is none.
    """
    import torch

    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        why = (
            "torch sees no GPU" if torch.version.cuda else f"torch {torch.__version__} is built without CUDA"
        )
        raise ConfigError(
            f"generation.device: cuda, but {why} on this machine; set generation.device: cpu. A run that was "
            "begun on a GPU goes on on such a machine only, because its texts would be others elsewhere"
        )
    return "cpu"


def on_one(device: Device) -> dict[str, str] | None:
    """Returns what transformers calls a device map, of a model that stands on one device as a whole."""
    return None if device == "cpu" else {"": device}


def spread(path: Path, device: Device, kind: "torch.dtype") -> "str | dict[str, str] | None":
    """Returns a device map: one device, or all GPUs where one is too small. Not tried on several GPUs.

    Args:
        path: the model's folder.
        device: `cpu` or `cuda`.
        kind: number format that the weights are loaded in.
    """
    import torch

    if device == "cpu" or torch.cuda.device_count() < 2:
        return on_one(device)
    room = torch.cuda.get_device_properties(0).total_memory * _WEIGHTS_SHARE
    return "auto" if _bytes_in(path, kind) > room else on_one(device)


def _bytes_in(path: Path, kind: "torch.dtype") -> int:
    from safetensors import safe_open

    n_weights = 0
    for file in path.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names = tensors.keys()
            n_weights += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    return n_weights * kind.itemsize


def require_on_gpus(name: str, model: "PreTrainedModel") -> None:
    """Refuses a model of which a part was put into the processor's memory: a token would take seconds.

    Raises:
        ModelUnavailable: it does not fit on the GPUs.
    """
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    if places & {"cpu", "disk"}:
        raise ModelUnavailable(
            f"model {name!r} does not fit on this machine's GPUs; use a smaller or quantised one, or "
            "generation.device: cpu"
        )


@contextmanager
def explain_full_memory(name: str, *, lower: str) -> Iterator[None]:
    """Turns a full GPU into a message.

    Args:
        name: of the model.
        lower: what to do about it.

    Raises:
        ModelError: the GPU's memory is full.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        left, total = (size / _GIB for size in torch.cuda.mem_get_info())
        raise ModelError(
            f"model {name!r}: the GPU's memory is full ({left:.1f} of {total:.1f} GiB are left). {lower}, or "
            "set generation.device: cpu. A run with other settings is a new run; if something else used the "
            "GPU, stop that and resume this one"
        ) from None
