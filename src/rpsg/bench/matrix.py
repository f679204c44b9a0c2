"""The file of a benchmark, and the runs that it stands for."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from pydantic import Field, ValidationError

from rpsg.config import DataConfig, Epsilon, RunConfig, Share, merge
from rpsg.endpoints import Count, Section
from rpsg.errors import ConfigError
from rpsg.method_config import GUARANTEES, MethodName
from rpsg.yaml_file import read_yaml

_UNSAFE = re.compile(r"[^A-Za-z0-9.]+")


class BenchData(DataConfig):
    """A data set of a benchmark: as in a run, and what is public of it."""

    n_units_bound: Count | None = Field(None, description="most people there can be, by what is public")
    settings: Mapping[str, object] = Field({}, description="of every run on it")


class BenchConfig(Section):
    """A benchmark. Every cell has the same number of texts, and for a seed the same split of the data."""

    n: Count = Field(description="texts of every cell")
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    epsilons: Annotated[tuple[Epsilon, ...], Field(min_length=1)] = (4.0,)
    data: Annotated[Mapping[str, BenchData], Field(min_length=1)]
    methods: Annotated[Mapping[str, Mapping[str, object]], Field(min_length=1)] = Field(
        description="a name for the tables, and the settings of its runs"
    )
    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("smollm2-135m-instruct",)
    settings: Mapping[str, object] = Field({}, description="of every run")
    holdout: Share = Field(
        0.2, description="of the people, never given to a method; figures are of these too"
    )
    sentiment_judge: str = Field(
        "", description="a classifier other than the one that chooses texts; compares texts with their seeds"
    )
    language_model: str = Field("none", description="for next-word accuracy: small, or a causal model")

    @classmethod
    def load(cls, path: Path) -> "BenchConfig":
        """Reads a YAML file.

        Raises:
            ConfigError: it is missing, or its values are not allowed.
        """
        try:
            return cls.model_validate(read_yaml(path))
        except ValidationError as error:
            found = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
            raise ConfigError(f"{path}: {'; '.join(found)}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of a benchmark.

    Attributes:
        data: the data set's name.
        method: the method's name in the tables.
        model: that writes.
        epsilon: asked for; None where the method takes none.
        seed: of the run and of the split.
        settings: of the run, all of them but its folder.
    """

    data: str
    method: str
    model: str
    epsilon: float | None
    seed: int
    settings: Mapping[str, object]

    @property
    def name(self) -> str:
        """A folder name of its own."""
        parts = (self.data, self.method, self.model, f"epsilon {self.epsilon}", f"seed {self.seed}")
        return "_".join(_UNSAFE.sub("-", part).strip("-") for part in parts)

    def run_config(self, folder: Path) -> RunConfig:
        """Returns the configuration of its run.

        Raises:
            ConfigError: the settings are not allowed.
        """
        return RunConfig.parse(merge(self.settings, {"output": {"folder": str(folder)}}))


def cells_of(config: BenchConfig) -> list[Cell]:
    """Returns every run of a benchmark, in order.

    Raises:
        ConfigError: the settings of one are not allowed, or two would share a folder.
    """
    found = list(_cells(config))
    for cell in found:
        try:
            cell.run_config(Path("unused"))
        except ConfigError as error:
            raise ConfigError(f"{cell.name}: {error}") from None
    if len({cell.name for cell in found}) < len(found):
        raise ConfigError("two cells of the benchmark have one name; give data and methods different names")
    return found


def _cells(config: BenchConfig) -> Iterator[Cell]:
    # Seed by seed: a benchmark that is cut short compares methods on the same people.
    for name, data in config.data.items():
        for seed in config.seeds:
            for method, own in config.methods.items():
                for model in config.models:
                    for epsilon in config.epsilons if _takes_epsilon(own) else (None,):
                        yield Cell(
                            data=name,
                            method=method,
                            model=model,
                            epsilon=epsilon,
                            seed=seed,
                            settings=_settings(config, data, own, model, epsilon, seed),
                        )


def _takes_epsilon(settings: Mapping[str, object]) -> bool:
    method = cast("MethodName", settings.get("method", "rpsg"))
    if method not in GUARANTEES:
        raise ConfigError(f"methods: {method!r} is no method; known: {', '.join(GUARANTEES)}")
    return settings.get("guarantee", GUARANTEES[method][0]) != "none" and method != "public"


def _settings(
    config: BenchConfig,
    data: BenchData,
    own: Mapping[str, object],
    model: str,
    epsilon: float | None,
    seed: int,
) -> Mapping[str, object]:
    columns = data.model_dump(mode="json", exclude={"n_units_bound", "settings"}, exclude_unset=True)
    fixed: dict[str, object] = {
        "n": config.n,
        "seed": seed,
        "data": columns,
        "models": {"abstract": model, "write": model},
        # Judged by the benchmark, with people that no method was given.
        "evaluate": {"enabled": False},
    }
    if data.n_units_bound is not None:
        fixed["n_units_bound"] = data.n_units_bound
    if epsilon is not None:
        fixed["epsilon"] = epsilon
    return merge(merge(merge(config.settings, data.settings), own), fixed)
