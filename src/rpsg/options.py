"""What a person typed, as a configuration."""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from rpsg.config import RunConfig, merge
from rpsg.endpoints import IN_PROCESS, split_name
from rpsg.errors import ConfigError
from rpsg.yaml_file import SettingName, parse_yaml, read_yaml, set_value


def build_config(source: Path, options: Mapping[SettingName, object], settings: list[str]) -> RunConfig:
    """Builds the configuration of `rpsg run` from a file, `--set` pairs and options; later ones win.

    Raises:
        ConfigError: a value is not allowed, or a setting is not KEY=VALUE.
    """
    is_config = source.suffix in {".yaml", ".yml"}
    values = read_yaml(source) if is_config else {}
    if not is_config:
        set_value(values, "data.path", str(source))
    if isinstance(values.get("executor"), str):
        values["executor"] = {"kind": values["executor"]}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError(f"--set takes KEY=VALUE, for example vote.survive=0.8 (given: {setting!r})")
        value = _value_of(key, text)
        if isinstance(value, Mapping) and "." not in key:
            # The other settings of the section stay: of data the file, for one.
            values = merge(values, {key: value})
        else:
            set_value(values, key, value)
    for name, value in options.items():
        if value is not None and value != []:
            set_value(values, name, value)
    config = RunConfig.parse(values)
    if config.data.path is None:
        return config
    # A run may be resumed from another folder.
    where = config.data.model_copy(update={"path": str(Path(config.data.path).resolve())})
    keys = config.keys
    if keys.public is not None:
        keys = keys.model_copy(update={"public": str(Path(keys.public).resolve())})
    return config.model_copy(update={"data": where, "keys": keys})


def _value_of(key: str, text: str) -> object:
    if not text.startswith(("[", "{")):
        return json.loads(text) if text in {"true", "false", "null"} else text
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {key}: write a list as [a, b] and a mapping as {{name: [a, b]}}") from None


def model_options(
    model: str | None, *, base_url: list[str] | None, api_key_env: list[str] | None, trust: str | None
) -> dict[SettingName, object]:
    """Turns `--model` and what is said of its server into settings: one model that summarises and writes.

    Raises:
        ConfigError: something is said of a server, but the model is on none.
    """
    given = {"base_url": base_url or None, "api_key_env": api_key_env or None, "trust": trust}
    said = {name: value for name, value in given.items() if value is not None}
    endpoint, _ = split_name(model or "")
    if said and (not endpoint or endpoint in IN_PROCESS):
        names = ", ".join("--" + name.replace("_", "-") for name in said)
        raise ConfigError(f"{names}: name the server's model too, for example --model openai:NAME")
    settings: dict[SettingName, object] = {"models.abstract": model, "models.write": model}
    # Not one dotted name: an endpoint's own name may hold dots.
    return settings | {("endpoints", endpoint, name): value for name, value in said.items()}
