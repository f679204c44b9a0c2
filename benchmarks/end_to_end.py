"""What each epsilon buys: end-to-end runs on PubMed against the same model with public prompts only.

800 private and 200 held-out abstracts, split at random anew for every seed. Frechet distance is to the
private texts; next-word accuracy is that of a small model trained on the synthetic texts and tested on
the held-out ones. Intervals are Student's over the seeds. `infinity` keeps clipping and thresholds (those of
epsilon 20) and draws no noise; it is not private and shows what the method could reach.

    python benchmarks/end_to_end.py OUT.json [setting ...]

Settings already in OUT.json are not run again, so it can be stopped and started.
"""

import json
import platform
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from rpsg import registry
from rpsg.config import RunConfig
from rpsg.data import read_corpus
from rpsg.evaluate.fidelity import frechet_distance
from rpsg.llm.reader import Reader
from rpsg.llm.surrogate import SurrogateSettings
from rpsg.pipeline import run
from rpsg.privacy.noise import FixedNoise, IntArray
from rpsg.types import FloatArray, PrivateCorpus

DATA = Path(__file__).parent / "data/pubmed.jsonl"
N_PRIVATE, N_TEXTS, SEEDS = 800, 80, (0, 1, 2)
Figures = dict[str, float]
END_TO_END: dict[str, object] = {
    "preset": "paper-pubmed",
    "guarantee": "end-to-end",
    "n": N_TEXTS,
    "n_units_bound": 1000,
    "write": {"n_drafts": 1},
    "evaluate": {"enabled": False},
}
UNGUIDED = {"vote": {"enabled": False, "candidates": 1.3}}
SETTINGS: dict[str, dict[str, object]] = {
    "epsilon 0": {**END_TO_END, "epsilon": 0, **UNGUIDED},
    "epsilon 1": {**END_TO_END, "epsilon": 1},
    "epsilon 2": {**END_TO_END, "epsilon": 2},
    "epsilon 4": {**END_TO_END, "epsilon": 4},
    "epsilon 8": {**END_TO_END, "epsilon": 8},
    "infinity": {**END_TO_END, "epsilon": 20},
    "infinity, keys alone": {**END_TO_END, "epsilon": 20, **UNGUIDED},
    "infinity, vote alone": {**END_TO_END, "epsilon": 20, "keys": {"guided": 0}},
    "selection, epsilon 4": {
        "preset": "paper-pubmed",
        "guarantee": "selection",
        "n": N_TEXTS,
        "write": {"n_drafts": 1},
        "evaluate": {"enabled": False},
    },
}


class NoNoise(FixedNoise):
    """Draws nothing: sums are exact. A run that used it is stamped as not private."""

    def gaussian(self, values: IntArray, std: float) -> IntArray:
        """Returns the values."""
        return values


def main(out: Path, wanted: list[str]) -> None:
    found: dict[str, dict[str, Figures]] = json.loads(out.read_text()) if out.exists() else {}
    # Seed by seed: a table that is cut short compares settings on the same splits.
    for seed in SEEDS:
        for name in wanted or SETTINGS:
            done = found.setdefault(name, {})
            if str(seed) not in done:
                done[str(seed)] = measure(name, seed)
                out.write_text(json.dumps(found, indent=2) + "\n")
                print(
                    name, seed, {key: round(value, 4) for key, value in done[str(seed)].items()}, flush=True
                )
    print_table(found)


def measure(name: str, seed: int) -> Figures:
    private, holdout = split(seed)
    config = RunConfig.parse({**SETTINGS[name], "seed": seed})
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        output = config.output.model_copy(update={"folder": folder + "/run"})
        noise = NoNoise(seed) if name.startswith("infinity") else None
        result = run(config.model_copy(update={"output": output}), private, noise=noise)
    texts = [item.text for item in result.texts]
    seconds = time.perf_counter() - began
    embedder = registry.embedder(config.models.embed)
    real = [record.text for record in private.records]
    return {
        "n": len(texts),
        "Frechet distance": frechet_distance(embedded(seed), embedder.embed(texts)),
        "next-word accuracy": next_word_accuracy(texts, real, holdout, seed=seed),
        "seconds": seconds,
    }


@lru_cache(maxsize=1)
def embedded(seed: int) -> FloatArray:
    return registry.embedder("all-minilm-l6-v2").embed([item.text for item in split(seed)[0].records])


def split(seed: int) -> tuple[PrivateCorpus, list[str]]:
    records = read_corpus(DATA).records
    order = np.random.default_rng(seed).permutation(len(records))
    private = tuple(records[i] for i in order[:N_PRIVATE])
    return PrivateCorpus(records=private), [records[i].text for i in order[N_PRIVATE:]]


def next_word_accuracy(texts: list[str], real: list[str], holdout: list[str], *, seed: int) -> float:
    # The vocabulary is that of the private texts for every data set, so that all predict the same tokens.
    reader = Reader.new(real, seed=seed, settings=SurrogateSettings())
    reader.train(texts, seed=seed)
    readings = reader.read(holdout)
    return sum(item.n_right for item in readings) / sum(item.n_words for item in readings)


def print_table(found: dict[str, dict[str, Figures]]) -> None:
    """Prints the table of docs/end-to-end.md."""
    print(f"\n{platform.machine()}, numpy {np.__version__}; {N_PRIVATE} private, {N_TEXTS} texts a run\n")
    figures = ("Frechet distance", "next-word accuracy")
    print("| setting | runs |", *(f" {name} | difference |" for name in figures), " seconds |", sep="")
    print("|---" * (3 + 2 * len(figures)) + "|")
    public = found.get("epsilon 0", {})
    for name, runs in found.items():
        cells = [name, str(len(runs))]
        for figure in figures:
            cells.append(interval([run[figure] for run in runs.values()]))
            pairs = [run[figure] - public[seed][figure] for seed, run in runs.items() if seed in public]
            cells.append(interval(pairs, "+.3f") if pairs and name != "epsilon 0" else "")
        cells.append(f"{np.mean([run['seconds'] for run in runs.values()]):,.0f}")
        print(f"| {' | '.join(cells)} |")


def interval(values: list[float], form: str = ".3f") -> str:
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:{form}}"
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return f"{mean:{form}} ({mean - half:{form}} to {mean + half:{form}})"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
