"""Releases without noise: what costs everything, and what was paid for before. Part of the closed set."""

from collections.abc import Sequence
from dataclasses import dataclass

from rpsg.errors import PrivateDataError
from rpsg.privacy.events import NonPrivateEvent, PrivacyEvent
from rpsg.privacy.noise import NoiseSource
from rpsg.types import Candidate, PrivateVariant, SyntheticText


@dataclass(frozen=True, slots=True, kw_only=True)
class NonPrivate:
    """Passes plain data on without noise. Epsilon is infinite, and the ledger says so.

    Attributes:
        reason: what is passed on and why.
    """

    reason: str

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """One non-private event."""
        return (NonPrivateEvent(reason=self.reason),)

    def sample(self, private_value: object, noise: NoiseSource) -> object:
        """Returns the value."""
        del noise
        return private_value


@dataclass(frozen=True, slots=True, kw_only=True)
class NonPrivateTexts:
    """Releases texts without noise, under fresh ids and in a secretly shuffled order.

    Attributes:
        reason: what the texts are.
    """

    reason: str

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """One non-private event."""
        return (NonPrivateEvent(reason=self.reason),)

    def sample(self, private_value: Sequence[PrivateVariant], noise: NoiseSource) -> object:
        """Returns rows of id, text, labels, and (for the private map) the variant's id."""
        return _shuffled_rows(private_value, noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidTexts:
    """Releases texts that are a function of earlier releases and public inputs: it costs nothing more.

    Attributes:
        reason: what the texts are.
    """

    reason: str

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """None: post-processing."""
        return ()

    def sample(self, private_value: Sequence[Candidate], noise: NoiseSource) -> object:
        """Returns rows as `NonPrivateTexts` does.

        Raises:
            PrivateDataError: an item is not a candidate, so it may hold private text.
        """
        if not all(isinstance(item, Candidate) for item in private_value):
            raise PrivateDataError("only candidates, written from ledger outputs, are paid for")
        return _shuffled_rows(private_value, noise)


def as_released(mechanism: object, line_id: int, result: object) -> object:
    """Returns a released value: released texts as such, with the line that released them."""
    if not isinstance(mechanism, NonPrivateTexts | PaidTexts) or not isinstance(result, list):
        return result
    return tuple(
        SyntheticText(text_id=row["text_id"], text=row["text"], labels=row["labels"], paid_by=line_id)
        for row in result
    )


def _shuffled_rows(
    items: Sequence[PrivateVariant | Candidate], noise: NoiseSource
) -> list[dict[str, object]]:
    return [
        {
            "text_id": noise.token(),
            "text": items[index].text,
            "labels": dict(items[index].labels),
            "variant_id": items[index].variant_id,
        }
        for index in noise.shuffle(len(items))
    ]
