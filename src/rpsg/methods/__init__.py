"""What RPSG is compared with: methods with the same ledger, models, run folder and scores.

A method is a module of this package with the functions of `Method`. `public` has none of its own: it is an
end-to-end run with epsilon 0.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from rpsg.config import RunConfig
from rpsg.method_config import MethodName
from rpsg.plan import Plan, PlannedLine
from rpsg.plan_calls import PlannedCalls
from rpsg.privacy.noise import NoiseSource
from rpsg.result import RunResult
from rpsg.types import PrivateCorpus, Progress

_HOMES: Mapping[MethodName, str] = {
    "augpe": "rpsg.methods.augpe",
    "dpsgd": "rpsg.methods.dpsgd",
    "rupta": "rpsg.methods.rupta",
    "copy": "rpsg.methods.copying",
}


class Method(Protocol):
    """What the pipeline asks of a method; see the functions of these names in `rpsg.pipeline`."""

    def run(
        self,
        config: RunConfig,
        corpus: PrivateCorpus,
        *,
        on_progress: Callable[[Progress], None],
        noise: NoiseSource | None,
    ) -> RunResult:
        """Runs it, or goes on with a run that was stopped."""

    def plan(self, config: RunConfig, corpus: PrivateCorpus) -> Plan:
        """Computes sizes; refuses what cannot be run."""

    def plan_releases(self, config: RunConfig, corpus: PrivateCorpus) -> list[PlannedLine]:
        """Lists the ledger in advance."""

    def plan_tasks(self, config: RunConfig, corpus: PrivateCorpus) -> list[PlannedCalls]:
        """Lists the calls of language models, without prices."""

    def statement_of(self, config: RunConfig, corpus: PrivateCorpus) -> str:
        """Returns what a run may say of its privacy."""

    def describe(self, config: RunConfig, corpus: PrivateCorpus, plan: Plan) -> list[str]:
        """Says in words what a run would do."""


def find_method(config: RunConfig) -> Method | None:
    """Returns the method of a run; None for RPSG and what is an end-to-end run of it."""
    home = _HOMES.get(config.method)
    return cast("Method", importlib.import_module(home)) if home else None
