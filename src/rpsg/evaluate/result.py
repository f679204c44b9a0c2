"""The outcome of an evaluation, and the files it is written to."""

from dataclasses import asdict, dataclass
from pathlib import Path

from rpsg.rundir import write_json
from rpsg.scores import Score
from rpsg.writers import check_own_files

FORMAT = 1
_READING = (
    "Each figure is the mean over repeated draws of n rows of each data set (half of the smallest), without "
    "replacement; low and high are its 95 % interval (next-word and label figures: all texts, bootstrap over "
    "test texts). reference is what as many real holdout texts get, or a model trained on real texts; "
    "baseline what public or shuffled texts get. Most figures depend on n: compare only within one file. "
    "Nothing here says anything about privacy. The figures were computed from private data without noise: "
    "keep this file as private as they are."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures of a data set.

    Attributes:
        scores: family and score, in order.
        n_real: real texts given.
        n_holdout: holdout texts given.
        n_synthetic: synthetic texts given.
        n_baseline: baseline texts.
        embedder: name of the model whose vectors were compared; "" for none.
        seed: fixes every draw.
        repeats: draws a figure.
        notes: what the reader must know; counts and column names only.
        texts_digest: of the synthetic texts, so that a later reader knows which these figures are of.
    """

    scores: tuple[tuple[str, Score], ...]
    n_real: int
    n_holdout: int
    n_synthetic: int
    n_baseline: int
    embedder: str
    seed: int
    repeats: int
    notes: tuple[str, ...] = ()
    texts_digest: str = ""

    def document(self) -> dict[str, object]:
        """Returns the content of metrics.json."""
        return {
            "$schema": "metrics.schema.json",
            "format": FORMAT,
            "how_to_read": _READING,
            "rows": {
                "real": self.n_real,
                "holdout": self.n_holdout,
                "synthetic": self.n_synthetic,
                "baseline": self.n_baseline,
            },
            "embedder": self.embedder or None,
            "seed": self.seed,
            "repeats": self.repeats,
            "texts_digest": self.texts_digest,
            "notes": list(self.notes),
            "scores": [{"family": family, **asdict(score)} for family, score in self.scores],
        }


def write_metrics(result: Evaluation, folder: Path) -> None:
    """Writes metrics.json and its schema, readable by their owner only; the folder is made.

    Raises:
        ConfigError: another tool's metrics.json is there.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(folder / "metrics.schema.json", schema(), private=True)
    write_json(folder / "metrics.json", result.document(), private=True)


def check_folder(folder: Path) -> None:
    """Refuses a folder that cannot be written to, or where metrics.json is not of this program.

    Raises:
        ConfigError: it is a file, or that file is another tool's.
    """
    check_own_files(
        folder, known_by={"metrics.json": {"how_to_read", "scores"}}, beside=("metrics.schema.json",)
    )


def schema() -> dict[str, object]:
    """Returns the JSON schema (draft 2020-12) of metrics.json."""
    number = {"type": ["number", "null"]}
    count = {"type": "integer", "minimum": 0}
    score = {
        "family": {"type": "string"},
        "name": {"type": "string"},
        "value": {**number, "description": "of the synthetic texts; null where not computable: see reason"},
        "low": {**number, "description": "lower end of the 95 % interval"},
        "high": {**number, "description": "upper end of the 95 % interval"},
        "n": {**count, "description": "rows of each data set that one computation saw"},
        "reference": {**number, "description": "what as many real texts get"},
        "baseline": {**number, "description": "what as many public or shuffled texts get"},
        "uses_private": {"type": "boolean", "description": "whether value was computed from private data"},
        "better": {"enum": ["lower", "higher", "reference"]},
        "reason": {"type": "string", "description": "why value is null"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Metrics of a synthetic data set",
        **_object(
            {
                "$schema": {"type": "string"},
                "format": {"const": FORMAT},
                "how_to_read": {"type": "string"},
                "rows": _object(dict.fromkeys(("real", "holdout", "synthetic", "baseline"), count)),
                "embedder": {"type": ["string", "null"]},
                "seed": {"type": "integer"},
                "repeats": {"type": "integer", "minimum": 1},
                "texts_digest": {"type": "string"},
                "notes": {"type": "array", "items": {"type": "string"}},
                "scores": {"type": "array", "items": _object(score)},
            }
        ),
    }


def _object(properties: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
