"""RPSG: realistic synthetic text from private text, with an honest privacy statement."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rpsg.config import RunConfig
    from rpsg.data import read_corpus
    from rpsg.errors import RpsgError
    from rpsg.pipeline import load_corpus, run
    from rpsg.report.page import write_reports
    from rpsg.result import RunResult
    from rpsg.types import PrivateCorpus, PrivateRecord, SyntheticText

__version__ = "0.1.0"
__all__ = [
    "PrivateCorpus",
    "PrivateRecord",
    "RpsgError",
    "RunConfig",
    "RunResult",
    "SyntheticText",
    "load_corpus",
    "read_corpus",
    "run",
    "write_reports",
]

# Names load when they are used, so that `rpsg --help` answers at once.
_HOMES = {
    "PrivateCorpus": "rpsg.types",
    "PrivateRecord": "rpsg.types",
    "RpsgError": "rpsg.errors",
    "RunConfig": "rpsg.config",
    "RunResult": "rpsg.result",
    "SyntheticText": "rpsg.types",
    "load_corpus": "rpsg.pipeline",
    "read_corpus": "rpsg.data",
    "run": "rpsg.pipeline",
    "write_reports": "rpsg.report.page",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'rpsg' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
