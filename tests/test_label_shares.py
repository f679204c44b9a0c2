from collections import Counter
from dataclasses import dataclass

from rpsg.label_shares import LabelShares
from rpsg.types import Labels


@dataclass(frozen=True)
class Item:
    labels: Labels


def items(names: str) -> list[Item]:
    return [Item({"topic": name}) for name in names]


def names(found: list[Item]) -> str:
    return "".join(item.labels["topic"] for item in found)


def test_each_label_gets_its_quota_before_others_get_more() -> None:
    shares = LabelShares.of(items("aaab"))
    assert Counter(names(shares.cut(items("aaaaabb")))) == {"a": 3, "b": 1}
    # Where a label has too few texts, the first of the others take their places.
    assert names(shares.cut(items("aaaaa"))) == "aaaa"


def test_a_label_that_lost_most_of_its_texts_is_refilled() -> None:
    shares = LabelShares.of(items("a" * 8 + "b" * 4))
    assert shares.missing(items("a" * 20)) == 4
    assert shares.missing(items("a" * 20 + "b")) == 3
    # From half of its quota on, a label is not worth a round of its own.
    assert shares.missing(items("a" * 20 + "bb")) == 0
    assert shares.missing(items("a" * 6 + "bbbb")) == 2
    # A label of one text may be lost: every filter may drop one.
    assert LabelShares.of(items("aaab")).missing(items("aaaa")) == 0


def test_a_refill_takes_two_seeds_for_each_missing_text_of_a_label_first() -> None:
    shares = LabelShares.of(items("aaaabb"))
    taken, left = shares.take(items("aaaaabbbbb"), items("aaaab"), 2)
    assert (names(taken), names(left)) == ("bb", "aaaaabbb")


def test_texts_without_labels_are_one_class() -> None:
    shares = LabelShares.of([Item({})] * 5)
    assert shares.missing([Item({})] * 3) == 2
    assert len(shares.cut([Item({})] * 7)) == 5
