"""What a run is made of, and which of it changed since the run began."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from rpsg.config import RunConfig
from rpsg.endpoints import CallingConfig, ExecutorConfig


def changed_fields(old: RunConfig, new: RunConfig) -> list[str]:
    """Names the settings that differ and can change a text; what they are may be private."""
    old, new = _lasting(old), _lasting(new)
    left, right = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def made_of(config: RunConfig, *, fingerprint: str, public: str) -> dict[str, str]:
    """Returns digests of what a run is made of beside its settings.

    Counts drawn for texts of one prompt, or for the words of one public file, say nothing of another's.

    Args:
        config: of the run.
        fingerprint: SHA-256 of the private data.
        public: SHA-256 of the file of public topics and phrases; "" where none is used.
    """
    parts = {"fingerprint": fingerprint, "public": public}
    if prompts := prompts_digest(config):
        parts["prompts"] = prompts
    return parts


def other_part(began: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Says in words which part differs; "" if none does. A part that was not noted yet may be any."""
    names = {"prompts": "other prompt files", "public": "other public data", "fingerprint": "other data"}
    return next((what for name, what in names.items() if began.get(name, now.get(name)) != now.get(name)), "")


def prompts_digest(config: RunConfig) -> str:
    """Returns the SHA-256 of the user's own prompt files; "" where the package's are used."""
    own = {config.abstract.prompt, config.write.prompt}.difference(packaged_prompts())
    found = [path for name in sorted(own) for path in sorted(Path(name).glob("*.txt")) if path.is_file()]
    if not found:
        return ""
    digest = hashlib.sha256()
    for path in found:
        digest.update(
            f"{path.parent.name}/{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
        )
    return digest.hexdigest()


def packaged_prompts() -> list[str]:
    """Names the prompt folders that come with the package; any other name is a path."""
    return sorted(item.name for item in files("rpsg").joinpath("prompts").iterdir() if item.is_dir())


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
