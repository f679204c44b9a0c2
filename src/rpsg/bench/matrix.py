"""The file of a benchmark, and the runs that it stands for."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Protocol, Self, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from rpsg.config import DataConfig, Epsilon, RunConfig, Share, merge
from rpsg.config_errors import explain
from rpsg.endpoints import Count, Section
from rpsg.errors import ConfigError
from rpsg.evaluate.resampling import MIN_ROWS
from rpsg.method_config import GUARANTEES, MethodName
from rpsg.yaml_file import read_yaml

# Fewer have no figures.
_Size = Annotated[int, Field(ge=MIN_ROWS)]
# Of a file system, less what a temporary name adds.
_LONGEST_NAME = 220
# What a cell may not set for itself: cells are alike in it, or are counted by it.
_OF_THE_BENCHMARK = {
    "n": "set n of the benchmark",
    "seed": "set seeds of the benchmark",
    "epsilon": "set epsilons of the benchmark",
    "data": "set it under data of the benchmark",
    "evaluate": "the benchmark judges every cell alike",
    "output": "each cell has a folder of its own",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9.]+")


class BenchData(DataConfig):
    """A data set of a benchmark: as in a run, and what is public of it."""

    n_units_bound: Count | None = Field(None, description="most people there can be, by what is public")
    settings: Mapping[str, object] = Field({}, description="of every run on it")


class BenchConfig(Section):
    """A benchmark. Every cell has the same number of texts, and for a seed the same split of the data."""

    n: _Size | Annotated[tuple[_Size, ...], Field(min_length=1)] = Field(
        description="texts of every cell; of several sizes each is compared with its like only"
    )
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    epsilons: Annotated[tuple[Epsilon, ...], Field(min_length=1)] = (4.0,)
    data: Annotated[Mapping[str, BenchData], Field(min_length=1)]
    methods: Annotated[Mapping[str, Mapping[str, object]], Field(min_length=1)] = Field(
        description="a name for the tables, and the settings of its runs"
    )
    models: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("smollm2-135m-instruct",), description="that write; and abstract, where no settings name another"
    )
    reference: str = Field("", description="the method that others are compared with; the first by default")
    settings: Mapping[str, object] = Field({}, description="of every run")
    holdout: Share = Field(
        0.2, description="of the people, never given to a method; figures are of these too"
    )
    sentiment_judge: str = Field(
        "", description="a classifier other than the one that chooses texts; compares texts with their seeds"
    )
    language_model: str = Field("none", description="for next-word accuracy: small, or a causal model")

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many texts a cell has, for each size."""
        return self.n if isinstance(self.n, tuple) else (self.n,)

    @property
    def compared_with(self) -> str:
        """The method that others are compared with."""
        return self.reference or next(iter(self.methods))

    @field_validator("seeds", "epsilons", "n")
    @classmethod
    def _differ(cls, values: object) -> object:
        if isinstance(values, tuple) and len(set(values)) < len(values):
            raise ValueError("values must differ: equal cells would count twice")
        return values

    @field_validator("data", "methods")
    @classmethod
    def _names_can_be_read(cls, values: Mapping[str, object]) -> Mapping[str, object]:
        for name in values:
            if not name.isprintable() or name[:1] in {"", *" =+-@"}:
                raise ValueError(
                    f"{name!a}: a name of data or a method stands in tables; begin it with a letter or "
                    "digit, and leave out characters that cannot be seen"
                )
        return values

    @model_validator(mode="after")
    def _reference_is_a_method(self) -> Self:
        if self.compared_with not in self.methods:
            known = ", ".join(self.methods)
            raise ValueError(f"reference: {self.reference!r} is none of the methods: {known}")
        return self

    @classmethod
    def load(cls, path: Path) -> "BenchConfig":
        """Reads a YAML file.

        Raises:
            ConfigError: it is missing, or its values are not allowed.
        """
        try:
            return cls.model_validate(read_yaml(path, example="docs/methods.md"))
        except ValidationError as error:
            # Either of two kinds would do for n: what is wrong with each says less.
            found = [
                f"n: a whole number of {MIN_ROWS} or more, or a list of such"
                if item["loc"][:1] == ("n",) and item["type"] != "value_error"
                else explain(item, cls)
                for item in error.errors()
            ]
            raise ConfigError(f"{path}: {'; '.join(dict.fromkeys(found))}") from None


class Named(Protocol):
    """What a cell's name is made of."""

    @property
    def data(self) -> str:
        """The data set's name."""

    @property
    def method(self) -> str:
        """The method's name in the tables."""

    @property
    def model(self) -> str:
        """The model that writes."""

    @property
    def epsilon(self) -> float | None:
        """Asked for; None where the method takes none."""

    @property
    def n(self) -> int:
        """Texts asked for."""

    @property
    def seed(self) -> int:
        """Of the run and of the split."""


def name_of(cell: Named) -> str:
    """Returns a folder name of a cell's own."""
    of = (cell.data, cell.method, cell.model)
    parts = (*of, f"epsilon {cell.epsilon}", f"n {cell.n}", f"seed {cell.seed}")
    return "_".join(_UNSAFE.sub("-", part).strip("-") for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of a benchmark.

    Attributes:
        data: the data set's name.
        method: the method's name in the tables.
        model: that writes.
        epsilon: asked for; None where the method takes none.
        n: texts asked for.
        seed: of the run and of the split.
        settings: of the run, all of them but its folder.
    """

    data: str
    method: str
    model: str
    epsilon: float | None
    n: int
    seed: int
    settings: Mapping[str, object]

    @property
    def name(self) -> str:
        """A folder name of its own."""
        return name_of(self)

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
    longest = max((cell.name for cell in found), key=len)
    if len(longest) > _LONGEST_NAME:
        raise ConfigError(
            f"names of data and methods are too long: a cell's folder would have {len(longest)} characters, "
            f"at most {_LONGEST_NAME} fit"
        )
    if len({cell.name for cell in found}) < len(found):
        raise ConfigError("two cells of the benchmark have one name; give data and methods different names")
    return found


def _cells(config: BenchConfig) -> Iterator[Cell]:
    _check_settings("settings", config.settings)
    for name, data in config.data.items():
        _check_settings(f"data.{name}.settings", data.settings)
    for method, own in config.methods.items():
        _check_settings(f"methods.{method}", own, may_write=True)
    # Seed by seed: a benchmark that is cut short compares methods on the same people, on all data sets.
    for seed, (name, data), n in product(config.seeds, config.data.items(), config.sizes):
        for method, own in config.methods.items():
            settings = _settings(config, data, own)
            if _needs_bound(settings):
                raise ConfigError(
                    f"data.{name}.n_units_bound must be set for {method}: the most people there can be, by "
                    "what is public"
                )
            # A method may have a model of its own: DP-SGD trains one, RUPTA's reads private text.
            models = (named,) if (named := _model_in(own, "write")) else config.models
            for model, epsilon in product(models, config.epsilons if _takes_epsilon(own) else (None,)):
                fixed: dict[str, object] = {"n": n, "seed": seed, "models": {"write": model}}
                if not _model_in(settings, "abstract"):
                    fixed["models"] = {"abstract": model, "write": model}
                if epsilon is not None:
                    fixed["epsilon"] = epsilon
                yield Cell(
                    data=name,
                    method=method,
                    model=model,
                    epsilon=epsilon,
                    n=n,
                    seed=seed,
                    settings=merge(settings, fixed),
                )


def _check_settings(where: str, settings: Mapping[str, object], *, may_write: bool = False) -> None:
    for key, instead in _OF_THE_BENCHMARK.items():
        if key in settings:
            raise ConfigError(f"{where}.{key} would be that of some cells only; {instead}")
    models = settings.get("models", {})
    if not isinstance(models, Mapping):
        raise ConfigError(f"{where}.models: name a model for each task, such as {{abstract: NAME}}")
    if "write" in models and not may_write:
        raise ConfigError(f"{where}.models.write: name the models that write as models: of the benchmark")


def _model_in(settings: Mapping[str, object], task: str) -> str | None:
    models = settings.get("models")
    return str(models[task]) if isinstance(models, Mapping) and models.get(task) else None


def _method_in(settings: Mapping[str, object]) -> MethodName:
    method = settings.get("method", "rpsg")
    if not isinstance(method, str) or method not in GUARANTEES:
        near = difflib.get_close_matches(str(method), GUARANTEES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(GUARANTEES)}"
        raise ConfigError(f"methods: {method!r} is no method; {hint}")
    return cast("MethodName", method)


def _takes_epsilon(settings: Mapping[str, object]) -> bool:
    method = _method_in(settings)
    return settings.get("guarantee", GUARANTEES[method][0]) != "none" and method != "public"


def _needs_bound(settings: Mapping[str, object]) -> bool:
    method = _method_in(settings)
    is_paid = settings.get("guarantee", GUARANTEES[method][0]) == "end-to-end" and method != "public"
    return is_paid and settings.get("n_units_bound") is None


def _settings(config: BenchConfig, data: BenchData, own: Mapping[str, object]) -> Mapping[str, object]:
    columns = data.model_dump(mode="json", exclude={"n_units_bound", "settings"}, exclude_unset=True)
    # Judged by the benchmark, with people that no method was given.
    fixed: dict[str, object] = {"data": columns, "evaluate": {"enabled": False}}
    if data.n_units_bound is not None:
        fixed["n_units_bound"] = data.n_units_bound
    return merge(merge(merge(config.settings, data.settings), own), fixed)
