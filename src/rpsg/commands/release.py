"""`rpsg release`, `push`: apply a review, pack, upload."""

from typing import Annotated

import typer

from rpsg.commands.runs import RunFolder


def release(
    folder: RunFolder,
    pack: Annotated[bool, typer.Option("--pack", help="Write a zip of all that may leave.")] = False,
    review: Annotated[bool, typer.Option(help="Apply the decisions of: rpsg review.")] = True,
    end_guarantee: Annotated[
        bool, typer.Option("--end-guarantee", help="Apply them although that ends the guarantee.")
    ] = False,
) -> None:
    """Take rejected texts out of a release, and pack it."""
    from rpsg.pack import pack_release
    from rpsg.release import check_publishable
    from rpsg.report.page import write_reports
    from rpsg.reviewed import apply_review
    from rpsg.rundir import RunDir

    if not review:
        check_publishable(RunDir.open(folder))
    else:
        applied = apply_review(folder, end_guarantee=end_guarantee)
        typer.echo(f"{applied.n_kept} texts in the release, {applied.n_rejected} kept out by review.")
        if applied.changed:
            typer.echo("The card was written anew; a signature on it, and what was packed before, are gone.")
            typer.echo(f"Privacy: {applied.statement}")
    write_reports(folder)
    if pack:
        typer.echo(f"Wrote {pack_release(folder)}")


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
) -> None:
    """Upload a release, and nothing else, to the Hugging Face Hub."""
    from rpsg.hub import push_release

    where = push_release(folder, repo, token_env=token_env, visible=public, review=review)
    typer.echo(f"Pushed to {where}")
