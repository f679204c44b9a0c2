"""Uploads a release to a data set hub, by the hub's own client."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rpsg.decisions import Trail, rejected_ids
from rpsg.endpoints import is_key, name_of_variable
from rpsg.errors import ConfigError, ModelUnavailable, RunDirError
from rpsg.release import check_publishable, files_that_leave, find_changes, write_readme
from rpsg.report.page import write_reports
from rpsg.report.sources import read_rows, refuse_leak
from rpsg.rundir import RunDir

if TYPE_CHECKING:
    from httpx2 import Response

TOKEN_ENV = "HF_TOKEN"
# Of silence, on either side, after which a hub is given up.
_SECONDS = 60.0


def push_release(
    folder: Path,
    repo: str,
    *,
    token_env: str = TOKEN_ENV,
    visible: bool = False,
    review: bool = True,
    despite_leak: bool = False,
) -> str:
    """Uploads the files that were written into release/, and nothing else, as one commit.

    Args:
        folder: a finished run.
        repo: OWNER/NAME of a data set; made if it is not there.
        token_env: name of the environment variable that holds the access token.
        visible: whether a data set that is made now can be seen by everybody.
        review: refuse while texts that a review rejected are in it.
        despite_leak: also where an audit of these texts found a leak.

    Returns:
        The address of the data set.

    Raises:
        RunDirError: there is no finished run, it holds planted canaries or rejected texts, release/ is not
            as the run wrote it, or an audit found a leak.
        ConfigError: the variable is not set, or the name is not OWNER/NAME.
        ModelUnavailable: the hub refused or does not answer.
    """
    run = RunDir.open(folder)
    check_publishable(run)
    problems = find_changes(run)
    if problems:
        raise RunDirError(
            f"{run.release} is not pushed, because it does not hold: {'; '.join(problems)}. Texts are "
            f"written anew, as they were released, by: rpsg release {run.root}"
        )
    if not despite_leak:
        refuse_leak(run)
    if review:
        _check_reviewed(run)
    # A page that was edited by hand would say what the release does not.
    write_reports(folder)
    write_readme(run)
    files = files_that_leave(run)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ConfigError(f"{repo!r}: name the data set as OWNER/NAME")
    token = os.environ.get(token_env)
    if not token:
        shown = name_of_variable(token_env)
        raise ConfigError(
            f"the environment variable {shown} is not set; put an access token of the hub into it"
        )
    if not is_key(token):
        raise ConfigError(f"{token_env} holds a space, a line end or another sign that no access token has")
    return _upload(run, repo, files, token=token, visible=visible)


def _check_reviewed(run: RunDir) -> None:
    out = rejected_ids(list(Trail(run.private / "review.jsonl").current().values()))
    n_rejected = sum(row["id"] in out for row in read_rows(run.release))
    if n_rejected:
        raise RunDirError(
            f"{n_rejected} texts that a review rejected are in {run.release}: take them out with: "
            f"rpsg release {run.root}, or add --no-review to push them too"
        )


def _upload(run: RunDir, repo: str, files: Sequence[Path], *, token: str, visible: bool) -> str:
    # Its client would ask the hub which agent runs it, and say so; read when it is first imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from httpx2 import HTTPError, Timeout
    from huggingface_hub import HfApi, get_session
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # Its client would follow an answer that names another host, and send the release there.
    session = get_session()
    session.event_hooks = {**session.event_hooks, "response": [_stay]}
    session.timeout = Timeout(_SECONDS)
    api = HfApi(token=token)
    try:
        address = api.create_repo(repo, repo_type="dataset", private=not visible, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=run.release,
            allow_patterns=[path.name for path in files],
            commit_message=f"Release of run {run.run_id}",
        )
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} is no name of a data set: {error}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise ModelUnavailable(f"the hub refused ({status}); check the token and the name {repo}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelUnavailable(
            f"the hub's answer was not understood ({type(error).__name__}): is it a hub, and HF_ENDPOINT "
            f"right? A release is one commit, so {repo} has all of it or nothing new: look there"
        ) from None
    except (HTTPError, OSError) as error:
        raise ModelUnavailable(
            f"the hub does not answer ({type(error).__name__}); a release is one commit, so {repo} has all "
            "of it or nothing new: look there, then push again"
        ) from None
    return str(address)


def _stay(response: "Response") -> None:
    if response.has_redirect_location:
        place = response.url.join(response.headers["location"])
        if place.netloc != response.url.netloc:
            raise ModelUnavailable(
                f"{response.url.host} sends the release on to {place.host}, and nothing was sent there; if "
                "that is the hub, name it in HF_ENDPOINT"
            )
