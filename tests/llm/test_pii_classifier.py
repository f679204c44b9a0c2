from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rpsg import registry
from rpsg.errors import ConfigError, ModelUnavailable
from rpsg.llm.pii_classifier import ClassifierPii, _join, _type_of
from rpsg.types import PiiSpan, Trust
from tiny_models import tiny_token_classifier

STARPII = ("O", "B-AMBIGUOUS", "I-AMBIGUOUS", "B-EMAIL", "I-EMAIL", "B-IP_ADDRESS", "I-IP_ADDRESS", "B-KEY",
           "I-KEY", "B-NAME", "I-NAME", "B-PASSWORD", "I-PASSWORD", "B-USERNAME", "I-USERNAME")  # fmt: skip
TEXT = "the dog was here and the cat was there and the dog saw the cat and then it went home again with me"


class FindsNothing:
    name = "none"
    trust: Trust = "local"

    def find(self, texts: Sequence[str]) -> list[list[PiiSpan]]:
        return [[] for _ in texts]


def test_labels_of_known_classifiers_have_types() -> None:
    assert {_type_of(label) for label in STARPII} == {None, "EMAIL", "IP", "ID", "PERSON", "USERNAME"}
    assert [_type_of(label) for label in ("O", "B-PER", "LOC", "MISC")] == [None, "PERSON", "LOCATION", None]


def test_tokens_of_one_type_are_one_span() -> None:
    text = "Ann Lee, bob"
    places = [(0, 0), (0, 3), (4, 7), (7, 8), (9, 12)]
    types = [None, "PERSON", "PERSON", None, "PERSON"]
    spans = list(_join(text, places, types, [1.0, 0.9, 0.8, 1.0, 0.7]))
    assert [(text[s.start : s.end], s.type, s.score) for s in spans] == [
        ("Ann Lee", "PERSON", 0.8), ("bob", "PERSON", 0.7),
    ]  # fmt: skip


def test_every_window_of_a_long_text_is_read(tmp_path: Path) -> None:
    model = ClassifierPii.load(
        tiny_token_classifier(tmp_path, ("O", "B-NAME")), name="tiny", base=FindsNothing()
    )
    with torch.no_grad():
        model._model.classifier.weight.zero_()
        model._model.classifier.bias.copy_(torch.tensor([0.0, 5.0]))
    (spans,) = model.find([TEXT])
    covered = "".join(TEXT[span.start : span.end] for span in spans).replace(" ", "")
    assert covered == TEXT.replace(" ", "") and {span.type for span in spans} == {"PERSON"}
    with torch.no_grad():
        model._model.classifier.bias.copy_(torch.tensor([5.0, 0.0]))
    assert model.find([TEXT]) == [[]]


def test_a_classifier_is_named_by_its_folder_and_adds_to_the_embedded_detector(tmp_path: Path) -> None:
    detector = registry.pii_detector(str(tiny_token_classifier(tmp_path, STARPII)))
    assert detector.name == f"presidio-en and {tmp_path.name}" and detector.trust == "local"
    (spans,) = detector.find(["Write to ann.lee@example.org today"])
    assert any(span.type == "EMAIL" for span in spans)


def test_what_finds_no_personal_details_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="none of the labels"):
        registry.pii_detector(str(tiny_token_classifier(tmp_path, ("O", "B-VERB"))))
    with pytest.raises(ConfigError, match="did you mean"):
        registry.pii_detector("presido")
