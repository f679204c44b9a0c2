"""The metrics that `rpsg evaluate` computes."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rpsg import registry
from rpsg.evaluate.diversity import diversity_metrics
from rpsg.evaluate.fidelity import fidelity_metrics
from rpsg.evaluate.utility import NextWordMetric, utility_metrics
from rpsg.llm.reader import Reader
from rpsg.llm.surrogate import SurrogateSettings
from rpsg.scores import Metric

SMALL = "small"
NONE = "none"


def fast_metrics() -> list[Metric]:
    """Returns every metric that trains no language model."""
    return [*fidelity_metrics(), *diversity_metrics()]


def chosen_metrics(
    labels: Sequence[str], language_model: str | None, *, compared: bool = True
) -> list[Metric]:
    """Returns all metrics, those of other packages included.

    Args:
        labels: label columns to predict.
        language_model: "small" for a GPT-2 trained from scratch, "none" or None to leave it out, or a
            Hugging Face name or folder, for example prajjwal1/bert-small.
        compared: whether the language model is trained on real and on baseline texts too.

    Raises:
        ModelUnavailable: the language model's files are not there.
    """
    next_word = None
    if language_model == SMALL:
        next_word = NextWordMetric(compared=compared)
    elif language_model not in {None, NONE}:
        load = _loader(registry.model_folder("text", str(language_model)))
        next_word = NextWordMetric(load=load, compared=compared)
    return [*fast_metrics(), *utility_metrics(labels, next_word), *registry.metrics()]


def _loader(folder: Path) -> Callable[[SurrogateSettings], Reader]:
    return partial(_load, folder)


def _load(folder: Path, settings: SurrogateSettings) -> Reader:
    return Reader.load(folder, settings=settings)
