"""Which settings of a run changed since it began."""

from collections.abc import Mapping

from rpsg.config import RunConfig
from rpsg.endpoints import CallingConfig, ExecutorConfig


def changed_fields(old: RunConfig, new: RunConfig) -> list[str]:
    """Names the settings that differ and can change a text; what they are may be private."""
    old, new = _lasting(old), _lasting(new)
    left, right = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def _lasting(config: RunConfig) -> RunConfig:
    # A run folder may be moved, limits on calls raised, the work given to others, and a budget that was made
    # meanwhile passed over: none changes a text.
    output = config.output.model_copy(update={"folder": None})
    generation = config.generation
    if generation.device == "auto":
        # Not noted: begun by a version whose models all computed on the processor.
        generation = generation.model_copy(update={"device": "cpu"})
    where = {
        "output": output,
        "calling": CallingConfig(),
        "executor": ExecutorConfig(),
        "outside_budget": False,
    }
    return config.model_copy(update={**where, "generation": generation})


def _flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
