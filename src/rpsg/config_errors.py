"""What is wrong with a settings file, in the words of such a file."""

import difflib
import re
from collections.abc import Mapping
from typing import get_args, get_origin

from pydantic import BaseModel


def explain(item: object, root: type[BaseModel]) -> str:
    """Says what is wrong with a value, and what to do, in the words of a settings file."""
    error = dict(item)  # type: ignore[call-overload]
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and "noise" in str(error["loc"][-1]):
        return f"unknown configuration key {name!r}; privacy noise is never seeded or set by hand"
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1], root)
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"; known here: {', '.join(sorted(known))}" if known else ""
        return f"unknown configuration key {name!r}" + (f"; did you mean {near[0]!r}?" if near else hint)
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] in {"model_type", "model_attributes_type"}:
        return f"{name}: must hold `key: value` lines"
    message = (
        str(error["msg"]).replace("valid tuple", "list").replace("valid dictionary", "mapping (key: value)")
    )
    given = error.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
    near = difflib.get_close_matches(str(given).lower(), re.findall(r"'([^']+)'", message), n=1)
    hint = f"; did you mean {near[0]!r}?" if near and error["type"] == "literal_error" else ""
    return f"{name}: {message[0].lower()}{message[1:]}{shown}{hint}"


def _known_keys(path: tuple[object, ...], section: type[BaseModel]) -> list[str]:
    is_named = False
    for part in path:
        if is_named:
            # The name that a user gave to one of several sections of a kind.
            is_named = False
            continue
        found = section.model_fields.get(str(part))
        annotation = found.annotation if found else None
        choices = [annotation, *get_args(annotation)]
        inner = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        section, is_named = inner[0], get_origin(annotation) is Mapping
    return list(section.model_fields)
