"""Reads YAML settings whose values mean what they look like."""

import re
from collections.abc import Hashable
from pathlib import Path

import yaml

from rpsg.errors import ConfigError


class _PlainLoader(yaml.SafeLoader):
    """YAML whose values mean what they look like.

    YAML 1.1 reads `yes` as true, `010` as 8 and `1:30` as 90, and takes the last of two equal keys.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Refuses a key that stands twice, and merge keys."""
        names = [str(key.value) for key, _ in node.value]
        twice = next((name for name in names if names.count(name) > 1 or name == "<<"), None)
        if twice is not None:
            raise ConfigError(
                f"line {node.start_mark.line + 1}: key {twice!r} stands twice or merges; write it once"
            )
        return super().construct_mapping(node, deep)


_PlainLoader.yaml_implicit_resolvers = {}
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])


def parse_yaml(text: str) -> object:
    """Parses YAML whose values mean what they look like."""
    found: object = yaml.load(text, Loader=_PlainLoader)
    return found


SettingName = str | tuple[str, ...]


def read_yaml(path: Path, *, example: str = "") -> dict[str, object]:
    """Reads a YAML mapping.

    Args:
        path: the file.
        example: where one to begin with stands; by default the command that writes a run's.

    Raises:
        ConfigError: the file is missing or not a YAML mapping.
    """
    known = example or "rpsg init"
    write_one = f"one to begin with is in {example}" if example else f"write one with: rpsg init {path}"
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file {path}; {write_one}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; name a configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ConfigError(f"{path} is not a YAML file{where}; compare it with: {known}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines; compare it with: {known}")
    return {str(key): value for key, value in values.items()}


def set_value(values: dict[str, object], name: SettingName, value: object) -> None:
    """Sets `a.b.c`, or the parts of such a name, in nested plain values, in place."""
    *parents, last = name.split(".") if isinstance(name, str) else name
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{parent} must hold `key: value` lines")
        values = inner
    values[last] = value
