"""What a benchmark would ask of its models, before it is started."""

from collections.abc import Iterator
from dataclasses import dataclass

from rpsg.bench.check import check_models, read_cells
from rpsg.bench.matrix import BenchConfig, Cell
from rpsg.pipeline import plan_tasks
from rpsg.plan_calls import usual_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """Calls of a cell's first round; texts that are rejected are asked for again, up to a bound.

    Attributes:
        cell: which.
        n_calls: of language models.
        n_prompt_tokens: read in all of them, estimated from characters.
        n_tokens: written in all of them, estimated from the lengths asked for.
        cost: US dollars for calls of servers; None where a price is unknown.
        seconds: on two cores; None where another model than the embedded one is asked.
    """

    cell: Cell
    n_calls: int
    n_prompt_tokens: int
    n_tokens: int
    cost: float | None
    seconds: float | None


def plan_bench(config: BenchConfig) -> Iterator[CellPlan]:
    """Plans every cell; reads each data set once and spends nothing.

    Raises:
        ConfigError: the settings of a cell are not allowed, a model is not known, or a price table cannot be
            read.
        DataError: a data set cannot be read.
    """
    check_models(config)
    for cell, settings, corpus in read_cells(config):
        tasks = plan_tasks(settings, corpus)
        prices = [task.cost for task in tasks if task.on_server]
        yield CellPlan(
            cell=cell,
            n_calls=sum(task.n_calls for task in tasks),
            n_prompt_tokens=sum(task.n_prompt_tokens for task in tasks),
            n_tokens=sum(task.n_tokens for task in tasks),
            cost=None if None in prices else sum(price for price in prices if price is not None),
            seconds=usual_seconds(tasks) if tasks else 0.0,
        )
