"""A folder that is written beside its place and then put there: whole or not at all."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_PREFIX, _BEFORE = ".release-", "-before"


def leftovers(root: Path) -> list[Path]:
    """Lists what processes that were killed left beside a release; with `copy` these are private texts."""
    return sorted(root.glob(f"{_PREFIX}*"))


def put_back(target: Path) -> None:
    """Puts back what stood in a folder's place, where a process was killed before the new one stood there."""
    before = [path for path in leftovers(target.parent) if path.name.endswith(_BEFORE)]
    if before and not target.exists():
        before[0].rename(target)


def write_folder(target: Path, fill: Callable[[Path], None], *, mode: int) -> None:
    """Writes a folder; what stood in its place, and what killed processes left beside it, goes.

    One process at a time may do so.

    Args:
        target: its place.
        fill: writes into the folder that it is given.
        mode: who may open it.
    """
    for left in leftovers(target.parent):
        remove_leftover(left)
    staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))
    staging.chmod(mode)
    try:
        fill(staging)
    except BaseException:
        remove_tree(staging)
        raise
    before = staging.with_name(f"{staging.name}{_BEFORE}")
    if target.exists():
        target.rename(before)
    staging.rename(target)
    if before.exists():
        remove_tree(before)


def remove_leftover(left: Path) -> None:
    """Removes what a killed process left. A link with such a name is not ours: what it points to stays."""
    if left.is_symlink() or not left.is_dir():
        left.unlink()
    else:
        shutil.rmtree(left)


def remove_tree(folder: Path) -> None:
    """Removes a folder with all that is in it; of a link to one, both."""
    if folder.is_symlink():
        shutil.rmtree(folder.resolve())
        folder.unlink()
    else:
        shutil.rmtree(folder)
