"""Options that several commands have."""

from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
MaxCost = Annotated[
    float | None, typer.Option(help="Stop before the models' calls cost more US dollars than this.")
]
MaxTokens = Annotated[int | None, typer.Option(help="Stop before the models' calls use more tokens.")]
MaxSeconds = Annotated[float | None, typer.Option(help="Begin no call after so many seconds.")]
OutsideBudget = Annotated[
    bool, typer.Option("--outside-budget", help="Run although the data's budget cannot be charged.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Refuse every network socket.")]
