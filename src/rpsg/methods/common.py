"""What methods that read private texts do alike: begin, charge, count classes, release."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from rpsg import data
from rpsg.audit.canary_mark import holds_canaries
from rpsg.config import RunConfig
from rpsg.end_to_end import release_paid, settle
from rpsg.errors import ConfigError
from rpsg.plan import DEFAULT_SHARE, Plan
from rpsg.privacy import budget
from rpsg.privacy.card import promise
from rpsg.privacy.card_words import statement
from rpsg.privacy.events import PrivacyEvent
from rpsg.privacy.mechanisms import GaussianSum, PrivateRows
from rpsg.privacy.plain import NonPrivate, NonPrivateTexts
from rpsg.rundir import RunDir
from rpsg.session import Session
from rpsg.stages.keys import declared_labels, label_choices
from rpsg.stages.vote import class_name
from rpsg.types import Candidate, Labels, PrivateCorpus, PrivateVariant, SyntheticText

_MOST_CLASSES = 1000

# --- in advance --------------------------------------------------------------------------------------


def texts_wanted(config: RunConfig, corpus: PrivateCorpus) -> int:
    """Returns how many texts a run writes; only without a guarantee may that depend on the data.

    Raises:
        ConfigError: n is missing.
    """
    if config.n is not None:
        return config.n
    if config.guarantee != "none":
        raise ConfigError(f"method: {config.method} needs n, the number of texts wanted")
    return max(1, math.floor(DEFAULT_SHARE * len(corpus)))


def classes_of(config: RunConfig, corpus: PrivateCorpus) -> tuple[Labels, ...]:
    """Returns every combination of declared labels; one without labels where there are no label columns.

    Raises:
        ConfigError: there are too many.
    """
    found = tuple(label_choices(config.data.label_values if corpus.label_columns else {}))
    if len(found) > _MOST_CLASSES:
        raise ConfigError(
            f"data.label_values: {len(found):,} combinations of declared labels, at most {_MOST_CLASSES:,} "
            "can be told apart; declare fewer values or columns"
        )
    return found


def sizes_of(n: int) -> Plan:
    """Returns the sizes of a run of which only the number of texts is fixed."""
    return Plan(n_records=0, n_calibration=0, n_pool=0, n_wanted=n, n_seeds=0, filters_on=False)


def statement_of(config: RunConfig, corpus: PrivateCorpus, events: Sequence[PrivacyEvent]) -> str:
    """Returns what a run may say of its privacy."""
    if config.guarantee == "none":
        return statement(
            guarantee="none",
            epsilon=None,
            n_candidates=1,
            has_units=corpus.has_units,
            method=config.method,
        )
    return promise(
        config.epsilon,
        config.delta,
        events,
        has_units=corpus.has_units,
        outside_budget=config.outside_budget,
        method=config.method,
    )


def declared_in_words(config: RunConfig) -> str:
    """Names the declared labels, for the card."""
    values = sorted(config.data.label_values.items())
    declared = ", ".join(f"{name} ({len(found)})" for name, found in values)
    return f"; label values declared: {declared}" if declared else ""


# --- the run -----------------------------------------------------------------------------------------


def begin(config: RunConfig, corpus: PrivateCorpus) -> RunDir:
    """Makes the run folder, or opens the one that the same configuration and data began.

    Raises:
        BudgetExceeded: there is no guarantee, and the data have a budget.
        RunDirError: the folder holds something else.
    """
    if config.guarantee != "end-to-end" and not config.outside_budget:
        budget.refuse_uncharged(corpus)
    return RunDir.create(
        Path(str(config.output.folder)),
        config,
        fingerprint=data.fingerprint(corpus),
        contains_canaries=holds_canaries(config, corpus),
    )


def charge(session: Session, corpus: PrivateCorpus, events: Sequence[PrivacyEvent]) -> list[str]:
    """Charges the run to the budgets of its data before anything is drawn; returns notes for the operator."""
    if session.config.guarantee == "none":
        session.n_outside = budget.note_outside(corpus, session.folder.run_id)
        return []
    return settle(session, corpus, events)


def labels_of(config: RunConfig, corpus: PrivateCorpus) -> list[Labels]:
    """Returns each record's declared labels. Private."""
    values = config.data.label_values if corpus.label_columns else {}
    return [declared_labels(record.labels, values) if values else {} for record in corpus.records]


def count_classes(
    session: Session,
    corpus: PrivateCorpus,
    labels: Sequence[Labels],
    mechanism: GaussianSum | None,
    *,
    n: int,
) -> list[int]:
    """Returns how many of `n` texts each class gets, in proportion to its noisy number of units."""
    if len(labels) == 1:
        return [n]
    place = {class_name(item): i for i, item in enumerate(labels)}
    items = [place[class_name(item)] for item in labels_of(session.config, corpus)]
    names = {unit: i for i, unit in enumerate(dict.fromkeys(record.unit_id for record in corpus.records))}
    private_rows = PrivateRows(
        units=np.asarray([names[record.unit_id] for record in corpus.records], dtype=np.int64),
        items=np.asarray(items, dtype=np.int64),
        weights=np.ones(len(items)),
    )
    return share_out(n, release_sums(session, "classes", mechanism, private_rows, len(labels)))


def release_sums(
    session: Session,
    label: str,
    mechanism: GaussianSum | None,
    private_rows: PrivateRows,
    n_items: int,
    *,
    of: Sequence[str] = (),
) -> list[float]:
    """Releases sums of what units contribute: with noise, or exactly where the run has no guarantee.

    Args:
        session: the open run.
        label: names the release.
        mechanism: the noise.
        private_rows: who contributes what to which item.
        n_items: how many there are.
        of: the items where they are texts that were written, public or released before.
    """
    if mechanism is None:
        exact = np.bincount(private_rows.items, weights=private_rows.weights, minlength=n_items).tolist()
        found = session.ledger.release(label, NonPrivate(reason="exact counts"), exact, of=of)
    else:
        found = session.ledger.release(label, mechanism, private_rows, of=of)
    session.tell(label, 1, 1)
    return cast("list[float]", found)


def share_out(n: int, counts: Sequence[float]) -> list[int]:
    """Shares `n` texts out among classes in proportion to counts, negative ones as 0 (largest remainders)."""
    weights = np.clip(np.asarray(counts, dtype=np.float64), 0.0, None)
    if weights.sum() <= 0:
        weights = np.ones(len(weights))
    exact = n * weights / weights.sum()
    sizes = np.floor(exact).astype(int)
    order = np.argsort(-(exact - sizes), kind="stable")
    sizes[order[: n - int(sizes.sum())]] += 1
    return [int(size) for size in sizes]


def release(session: Session, accepted: Sequence[Candidate], *, reason: str) -> tuple[SyntheticText, ...]:
    """Releases texts: paid for by earlier releases, or without a guarantee."""
    if session.config.guarantee == "end-to-end":
        return release_paid(session, accepted, reason=reason)
    chosen = [
        PrivateVariant(
            variant_id=item.variant_id, record_id=item.record_id, text=item.text, labels=item.labels
        )
        for item in accepted
    ]
    released = session.ledger.release("texts", NonPrivateTexts(reason=reason), chosen)
    return cast("tuple[SyntheticText, ...]", released)
