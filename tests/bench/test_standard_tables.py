"""The tables in docs/benchmark/standard are those of the outcomes beside them."""

from pathlib import Path

from rpsg.bench.matrix import BenchConfig, cells_of
from rpsg.bench.outcomes import read_outcome
from rpsg.bench.written import write_tables

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs/benchmark/standard"


def test_published_tables_are_those_of_the_outcomes(tmp_path: Path) -> None:
    config = BenchConfig.load(ROOT / "benchmarks/configs/standard.yaml")
    cells = {cell.name: cell for cell in cells_of(config)}
    assert {path.stem for path in (PUBLISHED / "cells").iterdir()} <= cells.keys()
    found = [(cell, read_outcome(PUBLISHED, name)) for name, cell in cells.items()]
    outcomes = [item for _, item in found if item is not None]
    assert outcomes and all(
        (item.data, item.method, item.epsilon, item.n, item.seed)
        == (cell.data, cell.method, cell.epsilon, cell.n, cell.seed)
        for cell, item in found
        if item is not None
    )
    for path in write_tables(outcomes, config.compared_with, tmp_path, planned=list(cells.values())):
        if path.suffix != ".tex":
            assert path.read_text() == (PUBLISHED / path.name).read_text(), path.name
