"""What calls cost, and when to stop."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rpsg.endpoints import CallingConfig
from rpsg.errors import ConfigError, LimitReached
from rpsg.llm.calls import Usage
from rpsg.types import Completion, TextRequest

# English text has about four characters to a token. Used before a call, never in place of a server's count.
CHARACTERS_PER_TOKEN = 4.0
# What a chat format adds to a turn.
_TOKENS_PER_TURN = 4


class Price(BaseModel):
    """US dollars for `per_tokens` tokens of a price table.

    Attributes:
        prompt: for tokens read.
        completion: for tokens written, thoughts included.
        source: where the price was read.
        checked: when.
        confirmed: whether the provider itself was seen to say so; a plan says where not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(ge=0, allow_inf_nan=False)
    completion: float = Field(ge=0, allow_inf_nan=False)
    source: str = ""
    checked: date | None = None
    confirmed: bool = True


class PriceTable(BaseModel):
    """Prices by `<endpoint>:<model>`; a model that is not there has an unknown price."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    currency: str = "USD"
    per_tokens: int = Field(1_000_000, ge=1)
    note: str = ""
    models: dict[str, Price | None]

    def is_confirmed(self, model: str) -> bool:
        """Tells whether a model's price is known, and its provider was seen to say so."""
        price = self.models.get(model)
        return price is not None and price.confirmed

    def cost(self, model: str, n_prompt_tokens: float, n_tokens: float) -> float | None:
        """Returns US dollars, or None where the price is unknown."""
        price = self.models.get(model)
        if price is None:
            return None
        return (price.prompt * n_prompt_tokens + price.completion * n_tokens) / self.per_tokens


def load_prices(path: str | None) -> PriceTable:
    """Reads the price table of the package, or one's own.

    Raises:
        ConfigError: the file is missing or not a price table.
    """
    try:
        if path is None:
            text = files("rpsg.llm").joinpath("data", "prices.json").read_text(encoding="utf-8")
        else:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        return PriceTable.model_validate_json(text)
    except OSError as error:
        raise ConfigError(f"calling.prices: cannot read {path}: {error.strerror}") from None
    except (ValidationError, ValueError) as error:
        where = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "not UTF-8"}
        place = ".".join(str(part) for part in where["loc"])
        raise ConfigError(
            f"calling.prices: {path} is not a price table ({place}: {where['msg']}); "
            'it looks so: {"version": "2026-01-01", "models": {"openai:NAME": {"prompt": 0.15, '
            '"completion": 0.6}}}, in US dollars a million tokens, null where unknown'
        ) from None


def estimate_tokens(request: TextRequest) -> int:
    """Estimates a prompt's tokens; for plans and limits, before a server has counted."""
    n_characters = sum(len(message.content) for message in request.messages)
    return int(n_characters / CHARACTERS_PER_TOKEN) + _TOKENS_PER_TURN * len(request.messages)


@dataclass(slots=True)
class Spent:
    """Tokens and US dollars."""

    n_tokens: int = 0
    cost: float = 0.0


class Meter:
    """Counts what a run's calls use and says when the next one would go over a limit.

    What earlier processes of the run used counts. A call in flight counts as its estimate: its prompt, and
    as many tokens as its reply may have.
    """

    def __init__(self, calling: CallingConfig, prices: PriceTable, used: Iterable[Usage] = ()) -> None:
        self._calling = calling
        self._prices = prices
        self._started = time.monotonic()
        self._in_flight = Spent()
        self.spent = Spent()
        for item in used:
            self._add(self.spent, item.model, item.n_prompt_tokens, item.n_tokens)
            # A limit must hold against a server that reports nothing: its calls count by their length.
            n_read = item.n_unreported * item.n_prompt_characters / CHARACTERS_PER_TOKEN
            self._add(self.spent, item.model, int(n_read), int(item.n_characters / CHARACTERS_PER_TOKEN))

    def cost_so_far(self, model: str) -> float | None:
        """Returns US dollars spent by the run; None where this model's price is unknown."""
        return None if self._prices.cost(model, 1, 1) is None else self.spent.cost

    def check_priced(self, model: str) -> None:
        """Refuses a cost limit that cannot be kept.

        Raises:
            ConfigError: the model's price is unknown.
        """
        if self._calling.max_cost is not None and self._prices.cost(model, 1, 1) is None:
            raise ConfigError(
                f"calling.max_cost: the price of {model!r} is unknown (price table {self._prices.version}); "
                "add it to a table of your own and name that in calling.prices, or set calling.max_tokens"
            )

    def begin(self, model: str, n_prompt: int, n_reply: int) -> None:
        """Notes a call that is about to start, with the most tokens it is expected to use.

        Raises:
            LimitReached: it might go over a limit.
        """
        cost = self._prices.cost(model, n_prompt, n_reply) or 0.0
        limits = self._calling
        tokens_after = self.spent.n_tokens + self._in_flight.n_tokens + n_prompt + n_reply
        cost_after = self.spent.cost + self._in_flight.cost + cost
        if limits.max_tokens is not None and tokens_after > limits.max_tokens:
            self._stop("max_tokens", f"{limits.max_tokens:,}", f"{self.spent.n_tokens:,} tokens were used")
        if limits.max_cost is not None and cost_after > limits.max_cost:
            self._stop("max_cost", f"{limits.max_cost:g}", f"${self.spent.cost:.4f} was spent")
        self.check_time()
        self._add(self._in_flight, model, n_prompt, n_reply)

    def check_time(self) -> None:
        """Refuses one more request, be it a call's first or not, after the time that was given.

        Raises:
            LimitReached: it is over.
        """
        limit, seconds = self._calling.max_seconds, time.monotonic() - self._started
        if limit is not None and seconds > limit:
            self._stop("max_seconds", f"{limit:g}", f"{seconds:.0f} s have passed")

    def begun_before(self, model: str, n_prompt: int, n_reply: int) -> None:
        """Notes a call that an earlier process began and that is still under way."""
        self._add(self._in_flight, model, n_prompt, n_reply)

    def end(self, model: str, n_prompt: int, n_reply: int, reply: Completion | None) -> None:
        """Notes a call that has ended; without a reply nothing is known to have been used."""
        self._add(self._in_flight, model, -n_prompt, -n_reply)
        if reply is None:
            return
        if reply.n_prompt_tokens is None or reply.n_tokens is None:
            # A limit must hold against a server that reports nothing: its calls count as estimated.
            self._add(self.spent, model, n_prompt, n_reply)
        else:
            self._add(self.spent, model, reply.n_prompt_tokens, reply.n_tokens)

    def _add(self, spent: Spent, model: str, n_prompt_tokens: int, n_tokens: int) -> None:
        spent.n_tokens += n_prompt_tokens + n_tokens
        spent.cost += self._prices.cost(model, n_prompt_tokens, n_tokens) or 0.0

    def _stop(self, name: str, limit: str, used: str) -> None:
        raise LimitReached(
            f"stopped at calling.{name} {limit}: {used}, and the next call might go over it; every finished "
            f"call is kept. Raise it and go on: rpsg resume RUN_FOLDER --{name.replace('_', '-')} MORE"
        )
