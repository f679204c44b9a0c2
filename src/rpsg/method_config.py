"""The methods that a run can use, which guarantee each may give, and their own settings."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from rpsg.endpoints import Count, Section
from rpsg.types import Guarantee

MethodName = Literal["rpsg", "rpsg-published", "augpe", "dpsgd", "rupta", "public", "copy"]
# The first is what a run gets that names none.
GUARANTEES: Mapping[MethodName, tuple[Guarantee, ...]] = {
    "rpsg": ("selection", "none", "end-to-end"),
    "rpsg-published": ("none",),
    "augpe": ("end-to-end", "none"),
    "dpsgd": ("end-to-end",),
    "rupta": ("none",),
    "public": ("end-to-end",),
    "copy": ("none",),
}


_READ_PRIVATE = ("augpe", "dpsgd")
# Their writing model itself reads private text: it must be local, whatever else is allowed.
READS_PRIVATE_TEXT: tuple[MethodName, ...] = ("dpsgd", "rupta")


class AugpeConfig(Section):
    """AUG-PE (Xie et al. 2024): public texts, voted on by private ones and varied, over and over."""

    variations: Annotated[int, Field(ge=1, le=20)] = Field(
        4, description="L: candidates for each text wanted; a survivor and L - 1 variations of it"
    )
    epochs: Count = Field(5, description="votes; fixed in advance, the budget is solved for all of them")
    variation: Literal["paraphrase", "fill"] = Field(
        "paraphrase", description="fill: words are masked and filled in again, to a target length"
    )
    mask_share: Annotated[float, Field(gt=0, lt=1)] = Field(0.6, description="of the words (`fill`)")
    length_std: Annotated[float, Field(ge=0, le=1000)] = Field(
        20.0, description="words; of the target length around the text's own (`fill`)"
    )
    lookahead: Annotated[int, Field(ge=0, le=20)] = Field(
        0, description="votes go to the mean of a candidate and so many variations of it"
    )
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="noisy counts below it are 0"
    )
    class_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="of the budget, for the number of private texts of each class"
    )


class DpsgdConfig(Section):
    """DP-SGD (Yue et al. 2023): the writing model is fine-tuned on the private texts, with noise."""

    sampling_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.06, description="chance of each person to be in a step's sample"
    )
    steps: Count = Field(25, description="of the training; fixed in advance, the budget is solved for all")
    clip_norm: Annotated[float, Field(ge=1e-6, le=1e6)] = Field(
        1.0, description="longest gradient of one person"
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(5e-3, description="of Adam")
    rank: Count = Field(4, description="of what is added to the attention's weights (LoRA)")
    layers: Count = Field(8, description="of the model, from the last, that are trained")
    max_tokens: Count = Field(160, description="of a private text; what is longer is cut there, and counted")
    oversample: Annotated[float, Field(ge=1, le=10)] = Field(
        1.5, description="written for each text wanted; filters drop some"
    )
    class_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="of the budget, for the number of private texts of each class"
    )


class PublishedConfig(Section):
    """The choice of summaries as the paper's own code makes it (`rpsg-published`)."""

    nominal_epsilon: Annotated[float, Field(gt=0, le=1e3)] = Field(
        4.0, description="from which the published code computes its noise; nothing holds at this epsilon"
    )


class RuptaConfig(Section):
    """RUPTA (Yang et al. 2025): private texts are rewritten until nothing in them gives anybody away."""

    rounds: Annotated[int, Field(ge=1, le=20)] = Field(5, description="most rewrites of a text")
    memory: Annotated[int, Field(ge=0, le=10)] = Field(
        3, description="earlier rewrites that are shown to the model"
    )


def with_defaults(values: Mapping[str, object]) -> dict[str, object]:
    """Fills in what a method decides: its guarantee, and epsilon 0 where it writes from public prompts."""
    filled = dict(values)
    allowed = GUARANTEES.get(str(filled.get("method", "rpsg")))  # type: ignore[call-overload]
    if filled.get("method", "rpsg") == "rpsg" or not allowed:
        return filled
    filled.setdefault("guarantee", allowed[0])
    if filled["method"] == "public":
        filled.setdefault("epsilon", 0.0)
    return filled


def objection(
    method: MethodName, guarantee: Guarantee, epsilon: float | None, labels: tuple[str, ...], declared: bool
) -> str | None:
    """Says why a method cannot be run with these settings, or returns None.

    Args:
        method: the method.
        guarantee: asked for.
        epsilon: asked for.
        labels: label columns.
        declared: whether the values of the label columns are.
    """
    allowed = GUARANTEES[method]
    if guarantee not in allowed:
        return f"method: {method} can be run with guarantee: {' or '.join(allowed)} (given: {guarantee})"
    if method == "public" and epsilon != 0:
        return f"method: public reads no private text, so its epsilon is 0 (given: {epsilon:g})"
    if method in _READ_PRIVATE and epsilon == 0:
        return f"method: {method} reads private texts; for public prompts alone use method: public"
    if method in _READ_PRIVATE and labels and not declared:
        return (
            f"method: {method} writes texts of each label, so it needs their public values: "
            f"--set 'data.label_values={{{labels[0]}: [VALUE, VALUE]}}', or data.label_values in the "
            f"configuration file, of each of {', '.join(labels)}"
        )
    return None
