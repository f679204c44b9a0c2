"""What a privacy card holds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rpsg.method_config import MethodName
from rpsg.types import Trust

CardGuarantee = Literal["none", "selection", "end-to-end"]
# Whether a person chose among the texts, and whether private texts had been on that person's screen.
Reviewed = Literal["no", "public", "private"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFlow(_Part):
    """Which model read which kind of text, and where it ran.

    Attributes:
        task: what for.
        model: its name.
        trust: remote where the text left what the user trusts.
        reads: kinds of text. Not how many calls: that depends on the private texts.
        hosts: of the servers it was sent to; empty for a model in the run's own process.
    """

    task: str
    model: str
    trust: Trust
    reads: str
    hosts: tuple[str, ...] = ()


class CardInputs(_Part):
    """What a card is computed from; nothing in it is computed from private data outside the ledger.

    Attributes:
        run_id: a random id.
        method: what made the texts.
        guarantee: what the run promises.
        epsilon: of the choice with `selection`, of everything with `end-to-end`, where 0 means public
            prompts only; None with `none`.
        delta: the user's, never computed from the data.
        n_candidates: K.
        has_units: whether the data named whom to protect.
        max_records: most records of a unit that are used; None where that is not bounded.
        n_units_bound: the user's bound on the number of units; None where not given.
        data_flow: which model read what.
        outside_budget: runs on these data, this one included, that no data budget covers; None where the
            data have no budget.
        public_inputs: where topics come from, with a checksum (`end-to-end`).
        reviewed: whether decisions of a person took texts out, and what that person had seen.
        contains_canaries: whether the operator planted made-up records in the data, for an audit; such a run
            is not published.
    """

    run_id: str
    method: MethodName = "rpsg"
    guarantee: CardGuarantee
    epsilon: float | None = Field(ge=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1)
    n_candidates: int = Field(ge=1)
    has_units: bool
    max_records: int | None = Field(None, ge=1)
    n_units_bound: int | None = Field(None, ge=1)
    data_flow: tuple[DataFlow, ...]
    outside_budget: int | None = Field(None, ge=0)
    public_inputs: str = ""
    reviewed: Reviewed = "no"
    contains_canaries: bool = False


class CardLine(_Part):
    """One release: what was drawn, and what it costs in words."""

    line: int
    release: str
    mechanism: str
    parameters: dict[str, JsonValue]
    events: tuple[dict[str, JsonValue], ...]
    cost: tuple[str, ...]
    note: str
    secure_noise: bool


class CardFigure(_Part):
    """A rounded-up privacy figure. `epsilon` is null where nothing finite holds."""

    relation: str
    units_that_differ: int
    epsilon: float | None
    delta: float
    accountant: str


class CardChoice(_Part):
    """The noisy choice among summaries (`selection`)."""

    mechanism: str
    epsilon: float
    relation: str
    n_candidates: int
    probability_of_best: float
    probability_of_best_blind: float
    in_words: str


class Card(_Part):
    """A run's privacy card."""

    schema_version: Literal[2] = 2
    statement: str
    inputs: CardInputs
    secure_noise: bool
    unit: str
    released_texts: str
    choice: CardChoice | None
    figures: tuple[CardFigure, ...] = Field(description="of the released texts as a whole")
    attacker: str
    releases: tuple[CardLine, ...]
    not_covered: tuple[str, ...]
