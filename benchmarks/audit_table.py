"""What the audit finds in releases of each mode, made with the embedded models.

The data are pooled and split by a coin that the seed fixes: half are members, from whom a release is made,
and half are not. `copy` releases members word for word. `infinity` keeps clipping and thresholds (those of
epsilon 20) and draws no noise: it shows whether the audit can see what noise hides. One run a setting, so
differences between neighbouring settings are chance as well; intervals are those of the attacks, over units.
The attacks that train language models are left out.

    python benchmarks/audit_table.py OUT.json posts|pubmed [setting ...]

Settings already in OUT.json are not run again, so it can be stopped and started.
"""

import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from rpsg.audit.finding import Finding
from rpsg.audit.linkage import pair_rows
from rpsg.audit.result import Audit
from rpsg.audit.run import AuditSettings, audit
from rpsg.audit.split import game_of, pool_corpora, split_by_coin
from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.pipeline import run
from rpsg.privacy.noise import FixedNoise, IntArray
from rpsg.privacy.seeds import read_seeds
from rpsg.types import PrivateCorpus

SEED = 0
DATA = {
    "posts": [sample_path("posts_train.jsonl"), sample_path("posts_test.jsonl")],
    "pubmed": [Path(__file__).parent / "data/pubmed.jsonl"],
}
PRESETS = {"posts": "small-cpu", "pubmed": "paper-pubmed"}
N_TEXTS = {"posts": 60, "pubmed": 80}
PAID = {"guarantee": "end-to-end"}
SETTINGS: dict[str, dict[str, object]] = {
    "copy": {"method": "copy", "guarantee": "none"},
    "none": {"guarantee": "none"},
    "selection, epsilon 1": {"guarantee": "selection", "epsilon": 1},
    "selection, epsilon 4": {"guarantee": "selection", "epsilon": 4},
    "selection, epsilon 8": {"guarantee": "selection", "epsilon": 8},
    "end-to-end, epsilon 1": {**PAID, "epsilon": 1},
    "end-to-end, epsilon 4": {**PAID, "epsilon": 4},
    "end-to-end, epsilon 8": {**PAID, "epsilon": 8},
    "end-to-end, infinity": {**PAID, "epsilon": 20},
}
SHOWN = (
    ("membership", "combined", "AUC"),
    ("membership", "combined", "TPR at 1 % FPR"),
    ("membership", "all attacks jointly", "largest standardised statistic"),
    ("copying", "copied_runs", ""),
    ("disclosure", "disclosed_runs", "share of members disclosed"),
    ("linkage", "linkage_tfidf", ""),
    ("pii", "pii_replay", ""),
)


class NoNoise(FixedNoise):
    """Draws nothing: sums are exact. A run that used it is stamped as not private."""

    def gaussian(self, values: IntArray, std: float) -> IntArray:
        """Returns the values."""
        return values


def main(out: Path, data: str, wanted: list[str]) -> None:
    found: dict[str, dict[str, object]] = json.loads(out.read_text()) if out.exists() else {}
    members, others = split_by_coin(pool_corpora([read_corpus(path) for path in DATA[data]]), key=b"table")
    for name in wanted or SETTINGS:
        if name in found:
            continue
        began = time.perf_counter()
        result = measure(name, data, members, others)
        found[name] = {
            "verdict": result.verdict.word,
            "control": result.control.auc,
            "n": result.n_synthetic,
            "seconds": time.perf_counter() - began,
            "findings": [asdict(item) for item in result.findings],
        }
        out.write_text(json.dumps(found, indent=1) + "\n")
        print(name, result.verdict.word, round(time.perf_counter() - began), "s", flush=True)
    print_table(data, found, len(members), len(others))


def measure(name: str, data: str, members: PrivateCorpus, others: PrivateCorpus) -> Audit:
    settings = {
        "preset": PRESETS[data], "n": N_TEXTS[data], "seed": SEED, "evaluate": {"enabled": False},
        "n_units_bound": 2 * len(members), **SETTINGS[name],
    }  # fmt: skip
    if settings["guarantee"] != "end-to-end":
        del settings["n_units_bound"]
    config = RunConfig.parse(settings)
    with tempfile.TemporaryDirectory() as folder:
        output = config.output.model_copy(update={"folder": folder + "/run"})
        noise = NoNoise(SEED) if name.endswith("infinity") else None
        result = run(config.model_copy(update={"output": output}), members, noise=noise)
        seeds = read_seeds(Path(folder) / "run/private/ledger.sqlite")
    texts = [item.text for item in result.texts]
    ids = [record.record_id for record in members.records]
    pairs = pair_rows(seeds, [item.text_id for item in result.texts], ids)
    game = game_of(members, others, texts, seed=SEED)
    return audit(game, AuditSettings(language_models=False, generator=config.models.embed), pairs=pairs)


def print_table(data: str, found: dict[str, dict[str, object]], n_members: int, n_others: int) -> None:
    print(f"\n{platform.machine()}; {data}: {n_members} members, {n_others} non-members, one run a setting")
    print("| release | texts | AUC (combined) | TPR at 1 % FPR | joint p | own 13-word run | disclosed | "
          "rank of the seed | private detail | verdict |")  # fmt: skip
    print("|---" * 10 + "|")
    for name, item in found.items():
        findings = [Finding(**values) for values in item["findings"]]  # type: ignore[attr-defined]
        cells = [show(findings, *key) for key in SHOWN]
        print(f"| {name} | {item['n']} | {' | '.join(cells)} | {item['verdict']} |")


def show(findings: list[Finding], family: str, attack: str, statistic: str) -> str:
    for item in findings:
        if (item.family, item.attack) == (family, attack) and statistic in {"", item.statistic}:
            if item.value is None:
                return "" if item.p_value is None else f"{item.p_value:.2g}"
            interval = "" if item.low is None else f" ({item.low:.2g} to {item.high:.2g})"
            p_value = "" if item.p_value is None else f", p {item.p_value:.2g}"
            control = "" if item.control is None else f"; no leak {item.control:.2g}"
            return f"{item.value:.3g}{interval}{control}{p_value}"
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
