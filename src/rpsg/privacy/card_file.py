"""A privacy card as a file: the page for people, checking that it follows from its lines, signing.

A check without the ledger sees whether the figures and words of a card follow from the lines on it. It
cannot see a line that was left out or changed together with its figures: for that give the run's ledger,
or demand a signature.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from rpsg.errors import ConfigError, PrivacyError, PrivateDataError, RpsgError
from rpsg.privacy.accounting import show
from rpsg.privacy.card import build_card, event_values
from rpsg.privacy.card_model import Card, CardLine
from rpsg.privacy.lines import LedgerLine
from rpsg.privacy.mechanisms import MECHANISMS
from rpsg.rundir import write_text
from rpsg.text import reveal

_SIGNATURE = "signature"
_ALGORITHM = "Ed25519"
_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|~])")


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    # A key that stands twice shows one value to a reader and another to the check.
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def to_json(card: Card) -> str:
    """Returns the card as JSON text.

    Raises:
        PrivateDataError: it is something else than a card.
    """
    _check_type(card)
    return json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def schema() -> dict[str, object]:
    """Returns the JSON schema of a card; a signed one has one more key, `signature`."""
    found = Card.model_json_schema()
    found["properties"][_SIGNATURE] = {
        "type": "object",
        "required": ["algorithm", "public_key", "value"],
        "properties": {name: {"type": "string"} for name in ("algorithm", "public_key", "value")},
    }
    return found


def render_markdown(card: Card) -> str:
    """Returns the card as a page for people.

    Raises:
        PrivateDataError: it is something else than a card.
    """
    _check_type(card)
    parts = [f"# Privacy card\n\n**{card.statement}**\n"]
    if card.choice is not None:
        parts.append(f"{card.choice.in_words} The draw: {card.choice.mechanism}.\n")
    parts.append(f"{card.attacker}\n")
    parts.append(
        f"- Method: {card.inputs.method}\n- Unit: {card.unit}\n- Released texts: {card.released_texts}\n"
        f"- Noise: {_noise(card)}\n"
        f"- Run: {card.inputs.run_id}\n"
    )
    if card.inputs.public_inputs:
        parts.append(f"- Public inputs: {escape(card.inputs.public_inputs)}\n")
    if card.figures:
        parts.append("## What holds for the released texts as a whole\n")
        parts.append("| relation | units that differ | epsilon | delta | accountant |\n|---|---|---|---|---|")
        for item in card.figures:
            epsilon = "none finite" if item.epsilon is None else show(item.epsilon)
            parts.append(
                f"| {item.relation} | {item.units_that_differ} | {epsilon} | {show(item.delta)} "
                f"| {item.accountant} |"
            )
        parts.append("")
    parts.append("## Every release of this run\n")
    parts.append("| line | what | mechanism | cost | note |\n|---|---|---|---|---|")
    parts += [
        f"| {line.line} | {escape(line.release)} | {line.mechanism} | {'; '.join(line.cost)} "
        f"| {escape(line.note)} |"
        for line in card.releases
    ]
    parts.append(
        "\n## Which model read what\n\n| task | model | runs | reads | sent to |\n|---|---|---|---|---|"
    )
    parts += [
        f"| {flow.task} | {escape(flow.model)} | {flow.trust} | {flow.reads} "
        f"| {', '.join(map(escape, flow.hosts)) or 'no server'} |"
        for flow in card.inputs.data_flow
    ]
    parts.append("\n## Not covered\n")
    parts += [f"- {item}" for item in card.not_covered]
    return "\n".join(parts) + "\n"


def _check_type(card: object) -> None:
    if not isinstance(card, Card):
        raise PrivateDataError(f"only a privacy card can be written here, not {type(card).__name__}")


def _noise(card: Card) -> str:
    if not card.secure_noise:
        return "fixed test noise, not private"
    # What rpsg-published draws is no such noise, and its card says where that comes from.
    return "secure source" if card.figures or card.choice else "none that a guarantee rests on"


def escape(text: str) -> str:
    """Makes a name safe in a Markdown line or cell: it can neither end the cell, format nor turn anything."""
    return _MARKDOWN.sub(r"\\\1", reveal(" ".join(text.split())))


# --- checking ------------------------------------------------------------------------------------


def read_card(path: Path) -> tuple[Card, dict[str, str] | None]:
    """Reads a card and its signature, if it has one.

    Raises:
        ConfigError: the file is missing or no card.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
        if not isinstance(values, dict):
            raise ValueError
        signature = values.pop(_SIGNATURE, None)
        return Card.model_validate_json(json.dumps(values), strict=True), signature
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; name a privacy_card.json") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path} is no privacy card of this version: {where}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is no JSON object; name a privacy_card.json") from None


def check_card(
    path: Path,
    *,
    ledger: tuple[Sequence[LedgerLine], Mapping[str, object] | None] | None = None,
    public_key: str | None = None,
) -> list[str]:
    """Builds a card again from its inputs and lines and compares.

    Args:
        path: a privacy_card.json; the page privacy_card.md beside it is compared too.
        ledger: the lines of the run's ledger and the inputs that it attests; the card's must be these.
        public_key: hexadecimal; then the card must be signed by it.

    Returns:
        What does not hold, empty when all does.

    Raises:
        ConfigError: the file is missing or no card.
    """
    card, signature = read_card(path)
    problems = _check_signature(card, signature, public_key)
    if (
        signature is not None
        and not problems
        and path.read_text(encoding="utf-8") != _with_signature(card, signature)
    ):
        problems.append("signature: the file is not written as it was signed")
    lines = _lines_of(card, problems)
    if problems:
        return problems
    try:
        rebuilt = build_card(card.inputs, lines)
    except RpsgError as error:
        return [f"the card does not follow from its lines: {error}"]
    problems += _differences(card, rebuilt)
    if ledger is not None:
        problems += _compare(card, *ledger)
    page = path.with_suffix(".md")
    if page.exists() and page.read_text(encoding="utf-8") != render_markdown(card):
        problems.append(f"{page.name}: the page does not say what the card says")
    return problems


def _compare(card: Card, lines: Sequence[LedgerLine], attested: Mapping[str, object] | None) -> list[str]:
    problems = []
    if card.inputs.model_dump(mode="json") != attested:
        problems.append("inputs: the card was computed from something else than the run")
    if [_plain(line) for line in lines] != [_plain(line) for line in _lines_of(card, [])]:
        problems.append("releases: the card's lines are not the ledger's")
    return problems


def _plain(line: LedgerLine) -> str:
    return json.dumps(asdict(line), sort_keys=True, default=str)


def _lines_of(card: Card, problems: list[str]) -> list[LedgerLine]:
    lines = []
    for number, line in enumerate(card.releases, start=1):
        try:
            lines.append(_line_of(line))
        except (PrivacyError, KeyError, TypeError, ValueError, ArithmeticError):
            problems.append(f"releases: line {number} is none that a mechanism of this program makes")
    return lines


def _line_of(line: CardLine) -> LedgerLine:
    """Makes the mechanism anew from its parameters: its events must be those on the card.

    Raises:
        ValueError: they are not.
    """
    mechanism = MECHANISMS[line.mechanism](**line.parameters)
    if json.dumps([event_values(event) for event in mechanism.events]) != json.dumps(list(line.events)):
        raise ValueError(line.line)
    return LedgerLine(
        line_id=line.line,
        label=line.release,
        mechanism=line.mechanism,
        parameters=dict(line.parameters),
        events=mechanism.events,
        note=line.note,
        secure_noise=line.secure_noise,
    )


def _differences(card: Card, rebuilt: Card) -> list[str]:
    own, expected = card.model_dump(mode="json"), rebuilt.model_dump(mode="json")
    return [
        f"{name}: the card says something else than follows from its lines"
        for name in expected
        if own[name] != expected[name]
    ]


# --- signing -------------------------------------------------------------------------------------


def new_key(path: Path) -> str:
    """Writes a new signing key, readable by its owner only; returns the public key in hexadecimal.

    Raises:
        ConfigError: the file exists or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(key.private_bytes_raw().hex() + "\n", encoding="ascii")
    except FileExistsError:
        raise ConfigError(f"{path} exists; a key is never overwritten, choose another name") from None
    except OSError as error:
        raise ConfigError(f"cannot write the key {path}: {error.strerror}") from None
    return key.public_key().public_bytes_raw().hex()


def sign_card(path: Path, key_path: Path) -> str:
    """Signs a card in place, after checking it; returns the public key in hexadecimal.

    Raises:
        ConfigError: the card does not hold, its run contains canaries, or the key cannot be read.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    card, _ = read_card(path)
    if card.inputs.contains_canaries:
        raise ConfigError(
            f"{path} is the card of a run of data with planted canaries, which is not to be published, so it "
            "is not signed; sign the card of a run without them"
        )
    problems = check_card(path)
    if problems:
        raise ConfigError(f"{path} is not signed, because it does not hold: {'; '.join(problems)}")
    try:
        key = Ed25519PrivateKey.from_private_bytes(
            bytes.fromhex(key_path.read_text(encoding="ascii").strip())
        )
    except OSError as error:
        raise ConfigError(
            f"cannot read the key {key_path}: {error.strerror}; make one with: rpsg card keygen"
        ) from None
    except ValueError:
        raise ConfigError(f"{key_path} is no key of rpsg card keygen") from None
    public = key.public_key().public_bytes_raw().hex()
    signature = {"algorithm": _ALGORITHM, "public_key": public, "value": key.sign(_signed_bytes(card)).hex()}
    write_text(path, _with_signature(card, signature))
    return public


def _with_signature(card: Card, signature: object) -> str:
    values = {**card.model_dump(mode="json"), _SIGNATURE: signature}
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _signed_bytes(card: Card) -> bytes:
    return json.dumps(card.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


def _check_signature(card: Card, signature: object, public_key: str | None) -> list[str]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if signature is None:
        return ["signature: the card is not signed"] if public_key else []
    try:
        values = cast("Mapping[str, str]", signature)
        if set(values) != {"algorithm", "public_key", "value"} or values["value"] != values["value"].lower():
            raise ValueError
        if values["algorithm"] != _ALGORITHM:
            return [f"signature: only {_ALGORITHM} is known"]
        own = values["public_key"]
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(own)).verify(
            bytes.fromhex(values["value"]), _signed_bytes(card)
        )
    except (InvalidSignature, ValueError, KeyError, TypeError, AttributeError):
        return ["signature: the card was changed after it was signed"]
    if public_key and own != public_key.strip().lower():
        return ["signature: the card was signed by another key"]
    return []
