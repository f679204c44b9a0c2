import numpy as np
import pytest

from rpsg.llm.redact import contains_detail, generalise_money, redact
from rpsg.types import PiiSpan


def spans(text: str, **found: str) -> list[PiiSpan]:
    return [
        PiiSpan(start=text.index(value), end=text.index(value) + len(value), type=kind, score=1.0)
        for kind, value in found.items()
    ]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_tags() -> None:
    text = "Ask Mara Quill at mara@quill.example, please."
    found = spans(text, EMAIL="mara@quill.example", PERSON="Mara Quill")
    assert redact(text, found, style="tag", rng=rng()) == "Ask [PERSON] at [EMAIL], please."


def test_surrogates_are_consistent_and_never_the_value() -> None:
    text = "Mara Quill called. Mara said: ring 021 555 0199. MARA waits."
    found = [
        PiiSpan(start=text.index(value), end=text.index(value) + len(value), type=kind, score=1.0)
        for kind, value in (("PERSON", "Mara Quill"), ("PHONE", "021 555 0199"), ("PERSON", "MARA"))
    ]
    start = text.index("Mara said")
    found.append(PiiSpan(start=start, end=start + 4, type="PERSON", score=1.0))
    for seed in range(20):
        done = redact(text, found, style="surrogate", rng=rng(seed))
        assert "Mara" not in done and "Quill" not in done and "021" not in done
        first = done.split()[0]
        assert f"{first} said" in done and first.upper() in done


def test_a_seed_fixes_the_surrogate() -> None:
    found = spans("See Mara Quill.", PERSON="Mara Quill")
    one, two = (redact("See Mara Quill.", found, style="surrogate", rng=rng(4)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("EMAIL", "a.b@c.example"), ("PHONE", "+64 21 555 0199"), ("ADDRESS", "12 Elm Street"),
        ("USERNAME", "u/tired_otter"), ("ORG", "Hickory Vale LLC"), ("LOCATION", "Wexcombe"),
        ("DATE_OF_BIRTH", "03/17/1980"), ("AGE", "43"), ("URL", "https://me.example/x"), ("IP", "10.1.2.3"),
        ("ID", "CRN 884-221-990"), ("POSTCODE", "SW1A 1AA"),
    ],
)  # fmt: skip
def test_every_type_has_a_surrogate(kind: str, value: str) -> None:
    text = f"It is {value} here."
    done = redact(text, spans(text, **{kind: value}), style="surrogate", rng=rng(1))
    assert value not in done
    assert done.startswith("It is ") and done.endswith(" here.")


def test_spans_that_overlap_are_a_bug_of_the_caller() -> None:
    two = [PiiSpan(start=0, end=4, type="PERSON", score=1.0), PiiSpan(start=2, end=6, type="ORG", score=1.0)]
    with pytest.raises(ValueError, match="overlaps"):
        redact("abcdefgh", two, style="tag", rng=rng())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It cost $1,500 in all.", "It cost $1,000-$2,000 in all."),
        ("I owe 12,480 dollars.", "I owe 10,000-20,000 dollars."),
        ("£85 a week", "£80-£90 a week"),
        ("about $5-10k", "about $5-10k"),
        ("$2 million", "$2 million-$3 million"),
        ("no money here: 12345, 7 days, CYP2D6", "no money here: 12345, 7 days, CYP2D6"),
        ("$0 left", "$0 left"),
    ],
)
def test_money_becomes_a_range(text: str, expected: str) -> None:
    assert generalise_money(text) == expected


def test_a_range_stays_what_it_is() -> None:
    once = generalise_money("I paid $1,500, then €90 and 300 pounds.")
    assert generalise_money(once) == once
    assert "1,500" not in once


@pytest.mark.parametrize(
    ("text", "value", "inside"),
    [
        ("Call JOSÉ PÉREZ now", "Jose Perez", True),
        ("ring 021-555 0199!", "021 555 0199", True),
        ("Annabel came", "Anna", False),
        ("nothing", "", False),
        ("u/tired-otter wrote", "u/tired_otter", True),
    ],
)
def test_details_are_found_whatever_the_punctuation(text: str, value: str, inside: bool) -> None:
    assert contains_detail(text, value) is inside
