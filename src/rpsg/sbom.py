"""A list of the software and models that made a release, in CycloneDX 1.6 JSON."""

import uuid
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_SPACE = uuid.UUID("8d1c6c9e-3a52-4f0c-9b63-5a3f0c4b8a11")
_LONGEST_LICENCE = 100


def build_sbom(*, run_id: str, models: Sequence[str]) -> dict[str, object]:
    """Lists this package, what it needs as installed here, and the models that were used."""
    found = sorted(_needed("rpsg").items())
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, run_id)}",
        "version": 1,
        "metadata": {
            "component": {"type": "data", "bom-ref": "release", "name": f"synthetic texts {run_id}"}
        },
        "components": [
            *(_library(name, item) for name, item in found),
            *(
                {"type": "machine-learning-model", "bom-ref": f"model:{name}", "name": name}
                for name in sorted(set(models))
            ),
        ],
    }


def _needed(root: str) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    waiting = [root]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            # An optional part that is not installed here, so it made nothing.
            continue
        needs = [Requirement(line) for line in found[name].requires or []]
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def _library(name: str, item: Distribution) -> dict[str, object]:
    purl = f"pkg:pypi/{name}@{item.version}"
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": item.version,
        "purl": purl,
    }
    fields = item.metadata.json
    expression, plain = fields.get("license_expression"), str(fields.get("license", ""))
    if expression:
        component["licenses"] = [{"expression": expression}]
    elif plain and len(plain) <= _LONGEST_LICENCE:
        component["licenses"] = [{"license": {"name": " ".join(plain.split())}}]
    return component
