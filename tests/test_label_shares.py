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


def take(shares: LabelShares, unused: str, accepted: str) -> tuple[str, str]:
    taken, left = shares.take(items(unused), items(accepted))
    return names(taken), names(left)


def test_what_is_missing_is_refilled_those_of_short_labels_first() -> None:
    shares = LabelShares.of(items("aaaabb"))
    assert take(shares, "aaaaabbbbb", "aaaab") == ("bb", "aaaaabbb")
    assert take(shares, "aaaaabbbbb", "aaab") == ("aabb", "aaabbb")
    # Where a label has none left, others take its place.
    assert take(shares, "aaaaaa", "aaaa") == ("aaaa", "aa")


def test_where_enough_texts_are_there_only_poor_labels_are_served() -> None:
    shares = LabelShares.of(items("a" * 8 + "b" * 4))
    assert take(shares, "ab" * 6, "a" * 12) == ("b" * 6, "a" * 6)
    assert take(shares, "ab" * 6, "a" * 12 + "b") == ("b" * 6, "a" * 6)
    # From half of its quota on, a label is not worth a round of its own, nor is a label of one text.
    assert take(shares, "ab" * 6, "a" * 12 + "bb")[0] == ""
    assert take(LabelShares.of(items("aaab")), "ab", "aaaa")[0] == ""
    # Nor is a record read for another label.
    assert take(shares, "a" * 6, "a" * 12) == ("", "a" * 6)


def test_texts_without_labels_are_one_class() -> None:
    shares = LabelShares.of([Item({})] * 5)
    taken, left = shares.take([Item({})] * 9, [Item({})] * 3)
    assert (len(taken), len(left)) == (4, 5)
    assert len(shares.cut([Item({})] * 7)) == 5
