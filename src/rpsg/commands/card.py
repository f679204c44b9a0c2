"""`rpsg card`: check, sign and explain privacy cards."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rpsg.errors import ConfigError

app = typer.Typer(help="Privacy cards: check one, sign one.")


@app.command("check")
def card_check(
    card_file: Annotated[Path, typer.Argument(metavar="FILE", help="A privacy_card.json.")],
    ledger: Annotated[Path | None, typer.Option(metavar="RUN_FOLDER", help="Compare with this run.")] = None,
    public_key: Annotated[str | None, typer.Option(help="Demand a signature by this key (hex).")] = None,
) -> None:
    """Build a card again from its lines and say whether it holds."""
    from rpsg.privacy.card_file import check_card
    from rpsg.privacy.ledger import read_run
    from rpsg.rundir import RunDir

    run_ledger = read_run(RunDir.open(ledger).ledger) if ledger else None
    problems = check_card(card_file, ledger=run_ledger, public_key=public_key)
    if problems:
        raise ConfigError(f"{card_file} does not hold: {'; '.join(problems)}")
    typer.echo(f"{card_file} holds: its figures and words follow from its lines.")
    if not (ledger or public_key):
        typer.echo(
            "Not checked: whether a line was left out. For that: --ledger RUN_FOLDER or --public-key KEY."
        )


@app.command("keygen")
def card_keygen(
    key_file: Annotated[Path, typer.Argument(metavar="KEY_FILE", help="The file to write; keep it secret.")],
) -> None:
    """Make a signing key (Ed25519) and print its public key."""
    from rpsg.privacy.card_file import new_key

    typer.echo(f"Public key: {new_key(key_file)}")


@app.command("sign")
def card_sign(
    card_file: Annotated[Path, typer.Argument(metavar="FILE", help="A privacy_card.json.")],
    key: Annotated[Path, typer.Option(help="The key file of: rpsg card keygen.")],
) -> None:
    """Check a card and sign it in place; any later edit fails the check."""
    from rpsg.privacy.card_file import sign_card

    typer.echo(f"Signed {card_file}. Public key: {sign_card(card_file, key)}")


@app.command("schema")
def card_schema() -> None:
    """Print the JSON schema of a card."""
    from rpsg.privacy.card_file import schema

    typer.echo(json.dumps(schema(), indent=2))
