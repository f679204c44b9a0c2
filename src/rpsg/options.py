"""What a person typed, as a configuration."""

import json
from pathlib import Path

from rpsg.config import RunConfig
from rpsg.errors import ConfigError
from rpsg.yaml_file import read_yaml, set_value


def build_config(source: Path, options: dict[str, object], settings: list[str]) -> RunConfig:
    """Builds the configuration of `rpsg run` from a file, `--set` pairs and options; later ones win.

    Raises:
        ConfigError: a value is not allowed, or a setting is not KEY=VALUE.
    """
    is_config = source.suffix in {".yaml", ".yml"}
    values = read_yaml(source) if is_config else {}
    if not is_config:
        set_value(values, "data.path", str(source))
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError(f"--set takes KEY=VALUE, for example vote.survive=0.8 (given: {setting!r})")
        set_value(values, name, json.loads(text) if text in {"true", "false", "null"} else text)
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
