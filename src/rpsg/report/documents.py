"""What the report reads, as it stands in the files: the shapes of their JSON."""

from typing import Literal, NotRequired, TypedDict

Json = dict[str, object]
# A released row: id, text, and a value or nothing for each label.
Row = dict[str, str | None]

NO_LEAK = "no leak found by these attacks at this power"
LEAK = "leak found"


class Flow(TypedDict):
    """Which model read what (`DataFlow` of the card)."""

    task: str
    model: str
    trust: Literal["local", "remote"]
    reads: str
    hosts: NotRequired[list[str]]


class Inputs(TypedDict):
    """What a card was computed from."""

    run_id: str
    guarantee: Literal["none", "selection", "end-to-end"]
    epsilon: float | None
    delta: float
    data_flow: list[Flow]
    public_inputs: str
    contains_canaries: NotRequired[bool]
    method: NotRequired[str]


class Figure(TypedDict):
    """A privacy figure of the released texts as a whole."""

    relation: str
    units_that_differ: int
    epsilon: float | None
    delta: float
    accountant: str


class Line(TypedDict):
    """A line of the ledger, without the value."""

    line: int
    release: str
    mechanism: str
    cost: list[str]
    note: str
    secure_noise: bool


class Choice(TypedDict):
    """The noisy choice among summaries."""

    in_words: str


class Card(TypedDict):
    """privacy_card.json."""

    statement: str
    inputs: Inputs
    secure_noise: bool
    unit: str
    released_texts: str
    choice: Choice | None
    figures: list[Figure]
    attacker: str
    releases: list[Line]
    not_covered: list[str]


class Score(TypedDict):
    """A figure of metrics.json."""

    family: str
    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    reference: float | None
    baseline: float | None
    better: Literal["lower", "higher", "reference"]
    reason: str


class Metrics(TypedDict):
    """private/scores/metrics.json."""

    rows: dict[str, int]
    embedder: str | None
    notes: list[str]
    scores: list[Score]


class Finding(TypedDict):
    """What one attack found (`rpsg.audit.finding.Finding`)."""

    family: str
    attack: str
    statistic: str
    value: float | None
    low: float | None
    high: float | None
    control: float | None
    p_value: float | None
    n_members: int
    n_nonmembers: int
    decides: bool
    is_leak: bool
    detail: str


class Audit(TypedDict):
    """private/audit/audit.json."""

    verdict: str
    findings: list[Finding]
    reasons: NotRequired[list[str]]
    notes: NotRequired[list[str]]


class Summary(TypedDict):
    """The last "done" line of private/events.jsonl."""

    n_wanted: int
    n_released: int
    counts: dict[str, float]
    rejected: dict[str, int]
    notes: list[str]
