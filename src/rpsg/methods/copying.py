"""`copy`: private texts, word for word. The control that an audit must catch."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from rpsg import data
from rpsg.config import RunConfig
from rpsg.judging import judge
from rpsg.methods.common import begin
from rpsg.plan import Plan, PlannedLine, make_plan, split_pool
from rpsg.plan_calls import PlannedCalls
from rpsg.privacy import budget
from rpsg.privacy.card_words import statement
from rpsg.privacy.noise import NoiseSource
from rpsg.privacy.plain import NonPrivateTexts
from rpsg.release import publish
from rpsg.result import RunResult
from rpsg.session import open_session
from rpsg.types import PrivateCorpus, PrivateVariant, Progress, SyntheticText

NOTE = "private texts, word for word: the control that an audit must catch"
_WARNING = "release/ holds private texts word for word. It is for audits on this machine; never publish it"


def run(
    config: RunConfig,
    corpus: PrivateCorpus,
    *,
    on_progress: Callable[[Progress], None],
    noise: NoiseSource | None,
) -> RunResult:
    """Copies as many private texts as are asked for; those held out are never copied."""
    pool, holdout = split_pool(config, corpus)
    sizes = plan(config, corpus)
    folder = begin(config, corpus)
    with open_session(config, folder, on_progress, noise=noise) as session:
        session.n_outside = budget.note_outside(corpus, folder.run_id)
        by_id = {record.record_id: record for record in pool.records}
        names = data.sample_seeds(pool, session.streams.get("seeds"))[: sizes.n_wanted]
        private_copies = [
            PrivateVariant(
                variant_id=f"{name}/copy", record_id=name, text=by_id[name].text, labels=by_id[name].labels
            )
            for name in names
        ]
        released = session.ledger.release(
            "texts", NonPrivateTexts(reason="copies of private texts"), private_copies, note=NOTE
        )
        texts = cast("tuple[SyntheticText, ...]", released)
        result = replace(publish(session, corpus, sizes, texts, notes=(_WARNING,)), are_copies=True)
        return judge(session, result, real=pool.records, holdout=holdout.records)


def plan(config: RunConfig, corpus: PrivateCorpus) -> Plan:
    """Computes sizes as RPSG does, so that both copy and write from the same records."""
    pool, holdout = split_pool(config, corpus)
    return make_plan(config, n_pool=len(pool), n_calibration=len(holdout))


def plan_releases(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedLine]:
    """Lists the one release."""
    n_wanted = plan(config, corpus).n_wanted
    return [
        PlannedLine(
            release="texts",
            cost="epsilon infinite: no noise",
            signal=f"{n_wanted} private texts, word for word",
            warning=_WARNING,
        )
    ]


def plan_tasks(config: RunConfig, corpus: PrivateCorpus) -> list[PlannedCalls]:
    """Lists nothing: no model writes."""
    del config, corpus
    return []


def statement_of(config: RunConfig, corpus: PrivateCorpus) -> str:
    """Says that nothing is protected."""
    return statement(
        guarantee=config.guarantee,
        epsilon=None,
        n_candidates=1,
        has_units=corpus.has_units,
        method=config.method,
    )


def describe(config: RunConfig, corpus: PrivateCorpus, plan: Plan) -> list[str]:
    """Says what a run would do."""
    del config, corpus
    return [
        f"{plan.n_records} records, {plan.n_calibration} of them held out and never copied",
        f"{plan.n_wanted} private texts copied word for word",
        f"warning: {_WARNING}",
    ]
