"""`rpsg release`, `push`: apply a review, pack, upload."""

from typing import Annotated

import typer

from rpsg.commands.runs import RunFolder

DespiteLeak = Annotated[
    bool, typer.Option("--despite-leak", help="Let texts out that an audit found a leak in.")
]


def release(
    folder: RunFolder,
    pack: Annotated[bool, typer.Option("--pack", help="Write a zip of all that may leave.")] = False,
    review: Annotated[bool, typer.Option(help="Apply the decisions of: rpsg review.")] = True,
    end_guarantee: Annotated[
        bool, typer.Option("--end-guarantee", help="Apply them although that ends the guarantee.")
    ] = False,
    despite_leak: DespiteLeak = False,
) -> None:
    """Take rejected texts out of a release, and pack it."""
    from rpsg.errors import ConfigError
    from rpsg.pack import pack_release
    from rpsg.release import check_publishable
    from rpsg.report.page import write_reports
    from rpsg.reviewed import apply_review
    from rpsg.rundir import RunDir

    if despite_leak and not pack:
        raise ConfigError("--despite-leak is about what --pack writes; add --pack, or leave it out")
    if not review:
        check_publishable(RunDir.open(folder))
    else:
        applied = apply_review(folder, end_guarantee=end_guarantee)
        typer.echo(f"{applied.n_kept} texts in the release, {applied.n_rejected} kept out by review.")
        if applied.changed:
            typer.echo("The card was written anew: sign and pack it again, if it was.")
            typer.echo(f"Privacy: {applied.statement}")
    write_reports(folder)
    if pack:
        typer.echo(f"Wrote {pack_release(folder, despite_leak=despite_leak)}")


def push(
    folder: RunFolder,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The data set on the hub.")],
    token_env: Annotated[
        str, typer.Option(help="NAME of the environment variable with the access token.")
    ] = "HF_TOKEN",
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see a data set that is made now.")
    ] = False,
    review: Annotated[bool, typer.Option(help="Refuse while rejected texts are in it.")] = True,
    despite_leak: DespiteLeak = False,
) -> None:
    """Upload a release, and nothing else, to the Hugging Face Hub."""
    from rpsg.hub import push_release

    where = push_release(
        folder, repo, token_env=token_env, visible=public, review=review, despite_leak=despite_leak
    )
    typer.echo(f"Pushed to {where}")
