"""Packs what may leave: the release, its configuration, a software list, and one plain page."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from rpsg.errors import RunDirError
from rpsg.privacy.card_file import read_card
from rpsg.privacy.card_model import Card
from rpsg.release import IN_BUCKET, check_publishable, files_that_leave, find_changes, packed, write_readme
from rpsg.report.page import write_reports
from rpsg.report.sources import refuse_leak
from rpsg.rundir import RunDir
from rpsg.sbom import build_sbom

_LEFT_OUT = "(left out)"
# Where the private texts are, where runs and public material are kept, servers and the names of their keys.
_PRIVATE_SETTINGS = {
    "data": ("path",), "output": ("folder",), "keys": ("public",), "executor": ("address", "storage")
}  # fmt: skip
_PRIVATE_SECTIONS = ("endpoints", "calling")
# Every file has this date: when a release was made says how long the run took.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


def pack_release(folder: Path, *, despite_leak: bool = False) -> Path:
    """Writes `rpsg-<run id>.zip` into the run folder: the same release gives the same bytes.

    Args:
        folder: a finished run.
        despite_leak: also where an audit of these texts found a leak.

    Raises:
        RunDirError: there is no finished run, it holds planted canaries, its private part was removed,
            release/ is not as the run wrote it, or an audit found a leak.
    """
    run = RunDir.open(folder)
    check_publishable(run)
    problems = find_changes(run)
    if problems:
        raise RunDirError(
            f"{run.release} is not packed, because it does not hold: {'; '.join(problems)}. Texts are "
            f"written anew, as they were released, by: rpsg release {run.root}"
        )
    if not despite_leak:
        refuse_leak(run)
    # A page that was edited by hand would say what the release does not.
    write_reports(folder)
    write_readme(run)
    card, _ = read_card(run.release / "privacy_card.json")
    contents = {path.name: path.read_bytes() for path in files_that_leave(run)}
    models = [flow.model for flow in card.inputs.data_flow if flow.task != IN_BUCKET]
    sbom = build_sbom(run_id=run.run_id, models=[_without_path(name) for name in models])
    contents |= {
        "configuration.yaml": public_configuration(run.read_config().model_dump(mode="json")).encode(),
        "sbom.cdx.json": (json.dumps(sbom, indent=2) + "\n").encode(),
        "STATEMENT.md": plain_statement(card).encode(),
    }
    target = packed(run)
    _write_zip(target, f"rpsg-{run.run_id}", contents)
    return target


def _write_zip(target: Path, name: str, contents: Mapping[str, bytes]) -> None:
    part = target.with_suffix(".part")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            for file, content in sorted(contents.items()):
                item = zipfile.ZipInfo(f"{name}/{file}", date_time=_NO_DATE)
                item.compress_type, item.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(item, content)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunDirError(f"cannot write {target}: {error.strerror}") from None


def public_configuration(values: Mapping[str, object]) -> str:
    """Returns a configuration without paths, servers and names of keys."""
    kept = {name: value for name, value in values.items() if name not in _PRIVATE_SECTIONS}
    for section, names in _PRIVATE_SETTINGS.items():
        inner = kept.get(section)
        if isinstance(inner, dict):
            kept[section] = {name: value for name, value in inner.items() if name not in names}
    return yaml.safe_dump(_without_paths(kept), sort_keys=False, allow_unicode=True)


def _without_paths(value: object, name: str = "") -> object:
    if isinstance(value, dict):
        return {key: _without_paths(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(inner, name) for inner in value]
    # A prompt is a folder or the name of one of ours.
    if name == "prompt" and "/" in str(value):
        return _LEFT_OUT
    return _without_path(value) if isinstance(value, str) else value


def _without_path(name: str) -> str:
    # A word is never a path, whatever folders there are where this runs: the same bytes everywhere.
    place = name.removeprefix("llamacpp:")
    is_path = (
        place.startswith(("/", "~", ".", "local:"))
        or place.lower().endswith(".gguf")
        or "\\" in place
        or ("/" in place and os.path.exists(place))  # noqa: PTH110 (Path.exists fails for long names)
    )
    return _LEFT_OUT if is_path else name


# --- one plain page ------------------------------------------------------------------------------


def plain_statement(card: Card) -> str:
    """Returns one page on singling out, linkability and inference, which follows from the card."""
    holds = bool(card.figures) and card.secure_noise
    answers = _ANSWERS_BOUNDED if holds else _ANSWERS_OPEN
    return (
        f"# Plain statement\n\n{card.statement}\n\n"
        "What follows reads the privacy card in plain words. It certifies nothing: no person or body has "
        "examined these texts on its behalf. Whether they are anonymous under a law is for their owner to "
        "judge, with advice.\n\n"
        + "".join(
            f"## {heading}\n\n{question}\n\n{answer.format(attacker=card.attacker, unit=card.unit)}\n\n"
            for (heading, question), answer in zip(_QUESTIONS, answers, strict=True)
        )
        + "## Not covered\n\n"
        + "".join(f"- {item}\n" for item in card.not_covered)
    )


_QUESTIONS = (
    ("Singling out", "Can somebody find out from the texts that one person was in the private data?"),
    ("Linkability", "Can two records of one person be linked, in these texts or with other data?"),
    ("Inference", "Can somebody learn something about one person from the texts?"),
)
_ANSWERS_BOUNDED = (
    "{attacker} This is a bound by proof. The protected unit is {unit}.",
    "The same bound limits what any comparison with other data can add about one unit. Several releases "
    "from the same people add up: their owner keeps a data budget for that.",
    "What follows from one unit's presence is bounded as above. What is true of many people can be learnt, "
    "and then holds of a person whether or not that person was in the data. What a text states is no fact.",
)
_ANSWERS_OPEN = (
    "Nothing rules it out. {attacker}",
    "Nothing rules it out: a text may keep rare details of the private text that it began with.",
    "Nothing rules it out, for the same reason. The facts that a text states may be invented, or may not.",
)
