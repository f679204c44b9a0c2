"""What to do next, from what a run's files say."""

import shlex
from dataclasses import dataclass

from rpsg.report.answers import holds_end_to_end, place_of, why_not_leaving
from rpsg.report.documents import LEAK, NO_LEAK, Card
from rpsg.report.sources import PrivateSources


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something to do, and the command for it; "" where there is none."""

    text: str
    command: str = ""


def next_steps(sources: PrivateSources, folder: str) -> tuple[Step, ...]:
    """Lists what the person who ran it should do, most urgent first."""
    card, run = sources.released.card, shlex.quote(folder)
    if stop := _not_as_they_are(sources, run):
        return stop
    steps = []
    if sources.stale:
        steps.append(
            Step(
                text=f"The {' and the '.join(sources.stale)} of this run are of the texts before a review, "
                "so they are not shown; audit the texts that are left, and score them as files."
            )
        )
    if not card["secure_noise"]:
        steps.append(Step(text="Run anew without test noise: these texts are not protected."))
    steps += _attacking(sources, run)
    steps.append(_reading(card, run))
    steps += _quality(sources)
    if not holds_end_to_end(card):
        steps.append(
            Step(
                text="These texts may go only to people who may read the private ones, unless you accept "
                "what the statement says. For a bound that a stranger can rely on, use guarantee: end-to-end."
            )
        )
    steps.append(Step(text="Pack what may leave the machine.", command=f"rpsg release {run} --pack"))
    return tuple(steps)


def _not_as_they_are(sources: PrivateSources, run: str) -> tuple[Step, ...]:
    """Says what to do instead where the texts must not be released as they are."""
    card, audit = sources.released.card, sources.audit
    if audit is not None and audit["verdict"] == LEAK:
        return (
            Step(text="Do not release these texts. See the audit below for what leaked and how."),
            Step(
                text="Run anew with an end-to-end guarantee, or with other settings.",
                command="rpsg plan CONFIG",
            ),
        )
    if card["inputs"].get("contains_canaries"):
        return (
            Step(text="Score what the texts show of the planted records.", command="rpsg canary score"),
            Step(text="Publish a second run, of the data without canaries.", command="rpsg run CONFIG"),
        )
    if sources.faults:
        return (
            Step(
                text="Do not release these texts: card or rows are not as the run wrote them. Write them "
                "anew from the ledger, and look at this report again.",
                command=f"rpsg release {run}",
            ),
        )
    if why := why_not_leaving(card):
        return (Step(text=f"Never publish these texts: {why}."),)
    return ()


def _attacking(sources: PrivateSources, run: str) -> list[Step]:
    card, audit = sources.released.card, sources.audit
    if audit is None:
        # Too few were held out for scores: too few for an audit as well.
        too_few = sources.metrics is None and sources.config.evaluate.enabled
        others = " --nonmembers FILE" if too_few or card["inputs"]["guarantee"] == "end-to-end" else ""
        command = f"rpsg audit {run}{others}"
        return [Step(text="Attack the texts before anybody else does.", command=command)]
    if audit["verdict"] != NO_LEAK:
        return [
            Step(
                text="Audit with more records: this one had too few to find a leak. Other texts of the same "
                "source will do.",
                command=f"rpsg audit {run} --nonmembers FILE",
            )
        ]
    return []


def _reading(card: Card, run: str) -> Step:
    if holds_end_to_end(card):
        return Step(
            text="Read texts before they leave; --public keeps the guarantee.",
            command=f"rpsg review {run} --public",
        )
    return Step(
        text="Read each text beside the private ones it is nearest to, and reject what says too much.",
        command=f"rpsg review {run}",
    )


def _quality(sources: PrivateSources) -> list[Step]:
    steps = []
    summary, metrics = sources.summary, sources.metrics
    if summary is not None and summary["n_released"] < summary["n_wanted"]:
        missing = summary["n_wanted"] - summary["n_released"]
        steps.append(Step(text=f"{missing:,} texts are missing; the table of dropped items says why."))
    if metrics is None:
        return steps
    places = [place_of(score) for score in metrics["scores"] if score["family"] == "fidelity"]
    if places.count("as the baseline or worse") > len(places) / 2:
        steps.append(
            Step(
                text="Most figures are no better than the baseline: use a larger model to write "
                "(models.write), or more texts."
            )
        )
    return steps


def public_steps(card: Card) -> tuple[Step, ...]:
    """Lists what somebody who was given the release should do."""
    if why := why_not_leaving(card):
        return (Step(text=f"Never publish these texts: {why}."),)
    steps = (
        Step(text="Check that the card follows from its lines.", command="rpsg card check privacy_card.json"),
        Step(
            text="Use the texts to develop and test software and methods. What they state as fact is "
            "invented."
        ),
    )
    if holds_end_to_end(card):
        return steps
    return (
        *steps,
        Step(text="Treat the texts as you would the private ones: nothing bounds what they reveal of them."),
    )
