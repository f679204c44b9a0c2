"""What is wrong with a settings file, in the words of such a file."""

import difflib
import re
from typing import get_args

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
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown configuration key {name!r}; {hint}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = (
        str(error["msg"]).replace("valid tuple", "list").replace("valid dictionary", "mapping (key: value)")
    )
    given = error.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
    near = difflib.get_close_matches(str(given).lower(), re.findall(r"'([^']+)'", message), n=1)
    hint = f"; did you mean {near[0]!r}?" if near and error["type"] == "literal_error" else ""
    return f"{name}: {message[0].lower()}{message[1:]}{shown}{hint}"


def _known_keys(path: tuple[object, ...], section: type[BaseModel]) -> list[str]:
    for part in path:
        found = section.model_fields.get(str(part))
        annotation = found.annotation if found else None
        choices = [annotation, *get_args(annotation)]
        inner = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        section = inner[0]
    return list(section.model_fields)
