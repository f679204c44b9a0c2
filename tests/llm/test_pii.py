import socket
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from rpsg.data import sample_path
from rpsg.errors import ModelUnavailable
from rpsg.llm.models import locate
from rpsg.llm.pii import PII_TYPES, PresidioDetector, merge_spans
from rpsg.llm.redact import contains_detail
from rpsg.types import PiiSpan


@pytest.fixture(scope="module")
def detector() -> PresidioDetector:
    return PresidioDetector(locate("en-core-web-sm"))


def planted(name: str) -> list[tuple[str, list[tuple[str, str]]]]:
    import json

    rows = [json.loads(line) for line in sample_path(name).read_text(encoding="utf-8").splitlines()]
    return [(row["text"], [(item["type"], item["value"]) for item in row["pii"]]) for row in rows]


def recall(detector: PresidioDetector, name: str) -> tuple[Counter[str], Counter[str]]:
    """Counts planted details, and those of which nothing is left to recognise after removal."""
    rows = planted(name)
    total: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    for (text, details), spans in zip(rows, detector.find([text for text, _ in rows]), strict=True):
        left, done = [], 0
        for span in spans:
            left.append(text[done : span.start])
            done = span.end
        rest = " \x00 ".join([*left, text[done:]])
        for kind, value in details:
            total[kind] += 1
            gone[kind] += not contains_detail(rest, value)
    return total, gone


# Found while the recognisers were written (train), and on posts nobody looked at (test).
FLOORS = {"posts_train.jsonl": 0.97, "posts_test.jsonl": 0.85}
CERTAIN = {"EMAIL", "PHONE"}


@pytest.mark.parametrize("name", list(FLOORS))
def test_planted_details_are_found(detector: PresidioDetector, name: str) -> None:
    total, gone = recall(detector, name)
    print(name, {kind: f"{gone[kind]}/{total[kind]}" for kind in sorted(total)})
    assert sum(gone.values()) / sum(total.values()) >= FLOORS[name]
    for kind in CERTAIN:
        assert gone[kind] == total[kind]


@pytest.mark.parametrize(
    "text",
    [
        "The drug was given twice a day.",
        "It cost $1500 and then 12345 points.",
        "CYP2D6 and IL-6 were measured; p = 0.03 in 12 of 40 patients.",
        "We drove 30000 kilometres last year.",
        "My doctor said the pain comes from stress, not from the knee.",
        "I called the landlord on Monday and the bank on Tuesday.",
        "Levels of TNF-alpha rose by 12.5% at 24 h.",
        "May I ask how others cope? Will this end?",
    ],
)
def test_harmless_text_is_left_alone(detector: PresidioDetector, text: str) -> None:
    found = detector.find([text])[0]
    assert [(span.type, text[span.start : span.end]) for span in found] == []


@pytest.mark.parametrize("number", ["066673996", "0666739961", "06667399612"])
def test_a_bare_telephone_number_is_found(detector: PresidioDetector, number: str) -> None:
    text = f"Her phone is {number}."
    assert number in [text[span.start : span.end] for span in detector.find([text])[0]]


def test_spans_are_sorted_disjoint_and_of_known_types(detector: PresidioDetector) -> None:
    texts = [text for text, _ in planted("posts_test.jsonl")[:40]]
    for text, spans in zip(texts, detector.find(texts), strict=True):
        for span, following in pairwise(spans):
            assert span.end <= following.start
        assert all(span.type in PII_TYPES and 0 <= span.start < span.end <= len(text) for span in spans)


def test_a_text_does_not_depend_on_its_neighbours(detector: PresidioDetector) -> None:
    texts = [text for text, _ in planted("posts_train.jsonl")[:6]]
    assert detector.find(texts) == [detector.find([text])[0] for text in texts]
    assert detector.find([]) == []


def test_no_socket_opens(detector: PresidioDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    fresh = PresidioDetector(locate("en-core-web-sm"))
    text = "See https://forum.someplace.co.uk/u/me or write to me@someplace.co.uk."
    assert {span.type for span in fresh.find([text])[0]} >= {"EMAIL", "URL"}


def test_tags_are_not_found_again(detector: PresidioDetector) -> None:
    assert detector.find(["Ask [PERSON] at [EMAIL]."]) == [[]]


def test_the_stronger_type_wins_where_spans_overlap() -> None:
    text = "mara@quill.example"
    spans = [
        PiiSpan(start=0, end=18, type="EMAIL", score=1.0),
        PiiSpan(start=5, end=18, type="URL", score=1.0),
    ]
    assert [span.type for span in merge_spans(text, spans)] == ["EMAIL"]


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        PresidioDetector(tmp_path)


def test_a_word_of_thousands_of_signs_is_read_quickly_and_moves_no_place(detector: PresidioDetector) -> None:
    text = f"Before {'-' * 20_000}x and after that write to ann.lee@example.org today."
    began = time.monotonic()
    (spans,) = detector.find([text])
    # It took minutes; the time grew with the square of the length.
    assert time.monotonic() - began < 60
    assert "ann.lee@example.org" in {text[span.start : span.end] for span in spans}
