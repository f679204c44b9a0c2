"""The three answers of a report's first screen: private? realistic? useful?

Each is a word with its figures and says where they come from. "private?" is never good without an end-to-end
guarantee, whatever the audit found: an attack that fails proves nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rpsg.report.documents import LEAK, NO_LEAK, Audit, Card, Finding, Metrics, Score

Tone = Literal["good", "unsure", "bad", "silent"]
Place = Literal["as real", "cannot tell", "in between", "as the baseline or worse"]

# A larger epsilon bounds so little that a green light would mislead.
LARGEST_GOOD_EPSILON = 10.0
# What the metrics say of copies, and of texts in another language; see `rpsg.evaluate.checks`.
_MISLEADING = re.compile("flattered|mean nothing|say nothing of them|no metrics on embeddings")
_NOT_SCORED = "A run is scored when it has 20 real, held-out and released texts each."
_NO_MODEL = "It needs a label column, or evaluate.language_model: small."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        question: a word.
        verdict: the answer in a few words.
        tone: how it is coloured; the words say the same.
        figures: (name, value) lines: number, interval, holdout value.
        why: what the answer rests on, in a sentence.
        anchor: id of the section that says how it is measured.
    """

    question: str
    verdict: str
    tone: Tone
    figures: tuple[tuple[str, str], ...]
    why: str
    anchor: str


def show(value: float | None) -> str:
    """Writes a figure with as many digits as it deserves."""
    if value is None:
        return "not computable"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interval(low: float | None, high: float | None) -> str:
    """Writes an interval; "none" where there is none."""
    return "none" if low is None or high is None else f"{show(low)} to {show(high)}"


# --- private? ------------------------------------------------------------------------------------


def holds_end_to_end(card: Card) -> bool:
    """Tells whether the released texts as a whole have a finite epsilon under secure noise."""
    return (
        card["inputs"]["guarantee"] == "end-to-end"
        and card["secure_noise"]
        and bool(card["figures"])
        and all(line["secure_noise"] for line in card["releases"])
        and card["figures"][0]["epsilon"] is not None
    )


def why_not_leaving(card: Card) -> str:
    """Says why a release may never leave the machine; "" where it may."""
    if card["inputs"].get("method") == "copy":
        return "they are copies of private ones, to compare others with"
    if card["inputs"].get("contains_canaries"):
        return "made-up records were planted in the data, for an audit"
    return ""


def answer_private(card: Card, audit: Audit | None, faults: Sequence[str] = ()) -> Answer:
    """Answers for the person who ran it: the guarantee, and what the attacks found.

    Args:
        card: of the release.
        audit: of these texts, if there was one.
        faults: what is wrong with card and rows, by the run's ledger.
    """
    verdict, tone, why = _judge_private(card, audit)
    if faults and verdict != "Leak found":
        verdict, tone, why = "Not as the run wrote it", "bad", f"{faults[0].rstrip('.')}."
    return Answer(
        question="Private?",
        verdict=verdict,
        tone=tone,
        figures=(*_guarantee_figures(card), *_audit_figures(audit)),
        why=why,
        anchor="how-private",
    )


def _judge_private(card: Card, audit: Audit | None) -> tuple[str, Tone, str]:
    if audit is not None and (audit["verdict"] == LEAK or any(item["is_leak"] for item in audit["findings"])):
        return "Leak found", "bad", "The audit found a leak. Do not release these texts."
    if not card["secure_noise"]:
        return "Not private", "bad", "The run used fixed test noise, which anybody can subtract."
    if why := why_not_leaving(card):
        return "Not for release", "bad", f"{why[0].upper()}{why[1:]}."
    if not holds_end_to_end(card):
        return (
            "No guarantee for the texts",
            "bad" if card["inputs"]["guarantee"] == "none" else "unsure",
            "Nothing bounds what an attacker learns from the released texts. An audit that finds no leak "
            "does not change that.",
        )
    if (card["figures"][0]["epsilon"] or 0.0) > LARGEST_GOOD_EPSILON:
        return "Weak guarantee", "unsure", f"Epsilon is above {LARGEST_GOOD_EPSILON:g}: it bounds little."
    return _judge_audit(audit)


def _judge_audit(audit: Audit | None) -> tuple[str, Tone, str]:
    proof = "The guarantee holds by proof."
    if audit is None:
        return "Guaranteed, not audited", "unsure", f"{proof} Nobody attacked the texts yet."
    if audit["verdict"] == NO_LEAK:
        return "Yes, as far as the guarantee goes", "good", "A proof bounds leaks, and attacks found none."
    return "Guaranteed, audit inconclusive", "unsure", f"{proof} Audit: {audit['verdict']}."


def _guarantee_figures(card: Card) -> tuple[tuple[str, str], ...]:
    if not holds_end_to_end(card):
        return (("epsilon of the texts", "none finite"),)
    whole = card["figures"][0]
    return (("epsilon", f"{show_up(whole['epsilon'])} at delta {whole['delta']:g}"), ("unit", card["unit"]))


def show_up(epsilon: float | None) -> str:
    """Writes an epsilon of the card with all its digits: rounding could only make it look smaller."""
    return "none finite" if epsilon is None else f"{epsilon:.10g}"


def _audit_figures(audit: Audit | None) -> tuple[tuple[str, str], ...]:
    if audit is None:
        return (("audit", "not audited"),)
    top = strongest(audit)
    if top is None:
        return (("audit", audit["verdict"]),)
    return (
        ("audit", audit["verdict"]),
        (f"{words(top['attack'])}, {top['statistic']}", show(top["value"])),
        ("95 % interval", interval(top["low"], top["high"])),
        ("without a leak", show(top["control"])),
    )


def strongest(audit: Audit) -> Finding | None:
    """Returns the finding that speaks loudest: a leak by itself, else the smallest p-value that decides."""
    leaks = [item for item in audit["findings"] if item["is_leak"]]
    deciding = [item for item in audit["findings"] if item["decides"] and item["p_value"] is not None]
    if leaks:
        return leaks[0]
    return min(deciding, key=lambda item: item["p_value"] or 0.0, default=None)


def words(name: str) -> str:
    """Writes a figure's name for people."""
    return name.replace("_", " ")


# --- realistic? useful? --------------------------------------------------------------------------


def place_of(score: Score) -> Place | None:
    """Says where a figure stands between real texts and the baseline; None where that has no meaning.

    A difference smaller than half the interval is no difference; where that is true of real texts and of the
    baseline, the figure says nothing.
    """
    value, reference, baseline = score["value"], score["reference"], score["baseline"]
    if value is None or reference is None:
        return None
    low, high = score["low"], score["high"]
    margin = 0.0 if low is None or high is None else (high - low) / 2
    gap = _gap(value, reference, score["better"])
    is_as_bad = baseline is not None and gap >= _gap(baseline, reference, score["better"]) - margin
    if gap <= margin:
        return "cannot tell" if is_as_bad else "as real"
    return "as the baseline or worse" if is_as_bad else "in between"


def _gap(value: float, reference: float, better: str) -> float:
    """How much worse than real texts."""
    if better == "reference":
        return abs(value - reference)
    return max(0.0, reference - value if better == "higher" else value - reference)


_VERDICTS: dict[Place, tuple[str, Tone]] = {
    "as real": ("Like real texts", "good"),
    "cannot tell": ("Too few texts to say", "unsure"),
    "in between": ("Partly", "unsure"),
    "as the baseline or worse": ("No better than the baseline", "bad"),
}


def answer_realistic(metrics: Metrics | None) -> Answer:
    """Answers by how well a classifier tells synthetic from real texts, with a tally of all figures."""
    names = ("classifier_auc", "frechet_distance", "ms_jaccard")
    return _answer(
        "Realistic?",
        metrics,
        names,
        family="fidelity",
        what={
            "classifier_auc": "a classifier tells synthetic from real (AUC, 0.5 is best)",
            "frechet_distance": "Frechet distance to the private texts (lower is better)",
            "ms_jaccard": "shared word runs (MS-Jaccard, higher is better)",
        },
        anchor="how-realistic",
        missing=_NOT_SCORED,
    )


def answer_useful(metrics: Metrics | None) -> Answer:
    """Answers by what a model trained on the synthetic texts gets right on real ones."""
    found = [score["name"] for score in metrics["scores"]] if metrics else []
    labels = [name for name in found if name.startswith("label_accuracy")]
    what = {name: f"{name.removeprefix('label_accuracy ')} predicted on real texts, share" for name in labels}
    return _answer(
        "Useful?",
        metrics,
        (*labels, "next_word_accuracy"),
        family="utility",
        what={**what, "next_word_accuracy": "next word predicted on real texts, share"},
        anchor="how-useful",
        missing=_NO_MODEL if metrics else _NOT_SCORED,
    )


def _answer(
    question: str,
    metrics: Metrics | None,
    names: tuple[str, ...],
    *,
    family: str,
    what: dict[str, str],
    anchor: str,
    missing: str,
) -> Answer:
    scores = [score for score in metrics["scores"] if score["family"] == family] if metrics else []
    by_name = {score["name"]: score for score in metrics["scores"]} if metrics else {}
    head = next(
        (by_name[name] for name in names if name in by_name and by_name[name]["value"] is not None), None
    )
    if head is None:
        reasons = [by_name[name]["reason"] for name in names if name in by_name]
        why = f"{reasons[0][0].upper()}{reasons[0][1:]}." if reasons and reasons[0] else missing
        return Answer(
            question=question, verdict="Not measured", tone="silent", figures=(), why=why, anchor=anchor
        )
    place = place_of(head)
    verdict, tone = _VERDICTS[place] if place else ("Measured, nothing to compare with", "silent")
    doubts = [note for note in (metrics["notes"] if metrics else []) if _MISLEADING.search(note)]
    if doubts and tone == "good":
        verdict, tone = "The figures mislead", "unsure"
    figures = (
        (what[head["name"]], show(head["value"])),
        ("95 % interval", interval(head["low"], head["high"])),
        ("held-out real texts", show(head["reference"])),
        ("baseline", show(head["baseline"])),
    )
    return Answer(
        question=question,
        verdict=verdict,
        tone=tone,
        figures=figures,
        why=" ".join([*(f"{note}." for note in doubts), _tally(scores)]),
        anchor=anchor,
    )


def _tally(scores: list[Score]) -> str:
    places = [place for score in scores if (place := place_of(score)) is not None]
    if not places:
        return ""
    n_bad = places.count("as the baseline or worse")
    return (
        f"Of {len(places)} figures {places.count('as real')} cannot be told from real texts, "
        f"{places.count('in between')} lie in between, {n_bad} are no better than the baseline, "
        f"{places.count('cannot tell')} cannot tell real texts from the baseline."
    )


# --- the report that leaves ----------------------------------------------------------------------


def public_answers(card: Card) -> tuple[Answer, ...]:
    """Answers from what leaves the machine: never green, since the audit's outcome stays inside."""
    guaranteed = holds_end_to_end(card)
    private = Answer(
        question="Private?",
        verdict=_public_verdict(card),
        tone="unsure"
        if card["secure_noise"] and card["inputs"]["guarantee"] != "none" and not why_not_leaving(card)
        else "bad",
        figures=_guarantee_figures(card),
        why="By proof; see the statement. Whether attacks on the texts succeeded is not said in this file."
        if guaranteed
        else "Nothing bounds what an attacker learns from the released texts.",
        anchor="how-private",
    )
    silent = (
        "Comparing with private texts costs privacy, which this file does not spend; their owner has figures."
    )
    return (
        private,
        *(
            Answer(
                question=name, verdict="Not said here", tone="silent", figures=(), why=silent, anchor=where
            )
            for name, where in (("Realistic?", "how-realistic"), ("Useful?", "how-useful"))
        ),
    )


def _public_verdict(card: Card) -> str:
    if not card["secure_noise"]:
        return "Not private"
    if why_not_leaving(card):
        return "Not for release"
    return "Guaranteed by proof" if holds_end_to_end(card) else "No guarantee for the texts"
