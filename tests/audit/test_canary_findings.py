"""Controls: a copied release shows the coins up to the audit's power, one made without the data nothing."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rpsg.audit.auxiliary import AuxiliarySettings
from rpsg.audit.canary import KINDS, Fact, Secrets
from rpsg.audit.canary_findings import ALL_KINDS, Claim, canary_findings
from rpsg.audit.canary_plant import Planting, Roles, plant, read_data
from rpsg.audit.canary_scores import bigram_ratio, fact_exact, fact_fuzzy, longest_runs, rare_words
from rpsg.audit.finding import Finding
from rpsg.audit.lower_bounds import one_run_epsilon, power_table
from rpsg.data import read_corpus, sample_path
from rpsg.errors import DataError
from rpsg.llm.fake import HashEmbedder
from rpsg.llm.surrogate import SurrogateSettings

DELTA = 1e-5
CLAIM = Claim(delta=DELTA, epsilon={1: 4.0, 4: 9.0})
N = 200
TINY = AuxiliarySettings(
    model=SurrogateSettings(vocabulary=600, width=32, layers=1, window=64, batch=8, learning_rate=1e-2),
    epochs=12, base_epochs=3, n_references=2, n_neighbours=1,
)  # fmt: skip


def sample(name: str) -> list[str]:
    return [record.text for record in read_corpus(sample_path(name)).records]


PROSE, UNSEEN = sample("posts_train.jsonl"), sample("posts_test.jsonl")


def planted(folder: Path, *, repetitions: tuple[int, ...] = (1,), seed: int = 1) -> tuple[Secrets, list[str]]:
    """Returns secrets and the planted data's texts; the clean part are short made-up records."""
    words = ["apples", "pears", "plums", "bread", "rivers", "boats", "trains", "winter", "summer", "keys"]
    draws = random.Random(seed)
    rows = [{"text": " ".join(draws.choices(words, k=12))} for _ in range(9 * N * max(repetitions))]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    planting = Planting(
        source=folder / "data.jsonl",
        output=folder / "planted.jsonl",
        secrets=folder / "secrets.json",
        n_canaries=N,
        kinds=KINDS,
        repetitions=repetitions,
        style="posts",
        roles=Roles(),
    )
    secrets = plant(planting, read_data(planting), lambda _: PROSE, chance=random.Random(seed))
    return secrets, [record.text for record in read_corpus(planting.output, min_words=1).records]


def one(findings: Sequence[Finding], attack: str, statistic: str) -> Finding:
    (found,) = [item for item in findings if item.attack == attack and item.statistic.startswith(statistic)]
    return found


def bound(findings: Sequence[Finding], attack: str = ALL_KINDS, whom: str = "one unit") -> Finding:
    (found,) = [
        item
        for item in findings
        if item.attack == attack and whom in item.statistic and "one run" in item.statistic
    ]
    return found


def test_a_release_that_copies_shows_every_coin(tmp_path: Path) -> None:
    secrets, texts = planted(tmp_path)
    findings = canary_findings(secrets, texts, claim=CLAIM)
    (power,) = power_table(DELTA, [N])
    found = bound(findings)
    # Three numbers of guesses share the error, which costs a third of an epsilon.
    assert found.value == pytest.approx(one_run_epsilon(N, N, N, DELTA, 1 - 0.05 / 3))
    assert power.one_run - 0.45 < (found.value or 0) < power.one_run
    assert (
        f"200 of 200 guesses right; claimed: 4; an attack without one error could show {power.one_run:.1f}"
        in (found.detail)
    )
    # A claim of 3 is refuted, one of 4 is not.
    assert not found.is_leak
    assert bound(canary_findings(secrets, texts, claim=Claim(delta=DELTA, epsilon={1: 3.0}))).is_leak
    deciding = [item for item in findings if item.decides]
    assert len(deciding) == len(KINDS) + 1
    assert all(item.p_value is not None and item.p_value <= 0.001 for item in deciding)
    two_sided = one(findings, ALL_KINDS, "epsilon of one unit, lower bound (two-sided)")
    assert two_sided.value == pytest.approx(power_table(DELTA, [N // 2])[0].two_sided, abs=0.3)
    guessed = one(findings, "fact_value", "share")
    assert guessed.value == 1.0 and guessed.control is not None and guessed.control < 0.35


def test_a_claim_is_refuted_at_the_error_of_a_verdict(tmp_path: Path) -> None:
    # The bound that is shown has 95 % confidence: one exact claim in twenty lies below it.
    secrets, texts = planted(tmp_path)
    shown = bound(canary_findings(secrets, texts, claim=CLAIM)).value or 0.0
    at_verdict = one_run_epsilon(N, N, N, DELTA, 1 - 0.01 / 3)
    assert at_verdict < shown
    for epsilon, is_leak in ((shown - 0.01, False), (at_verdict + 0.01, False), (at_verdict - 0.01, True)):
        found = bound(canary_findings(secrets, texts, claim=Claim(delta=DELTA, epsilon={1: epsilon})))
        assert found.is_leak is is_leak and found.value == shown


def test_groups_share_the_error_of_a_verdict(tmp_path: Path) -> None:
    secrets, _ = planted(tmp_path)
    sizes = (1, 4, 16)
    canaries = tuple(replace(item, n_rep=sizes[i % 3]) for i, item in enumerate(secrets.canaries))
    secrets = replace(secrets, canaries=canaries, has_units=False)
    texts = [item.text for item in canaries if item.is_in]
    n = len(secrets.groups()[1])
    at_verdict = one_run_epsilon(n, n, n, DELTA, 1 - 0.01 / 9)
    for epsilon, is_leak in ((at_verdict + 0.01, False), (at_verdict - 0.01, True)):
        claim = Claim(delta=DELTA, epsilon={1: epsilon, 4: 99.0, 16: 99.0})
        assert bound(canary_findings(secrets, texts, claim=claim)).is_leak is is_leak


def test_a_release_made_without_the_data_shows_nothing(tmp_path: Path) -> None:
    # 8 independent plantings: about 0.4 bounds are above 0 if the confidence is what it says.
    above, p_values = 0, []
    for seed in range(8):
        (tmp_path / str(seed)).mkdir()
        secrets, _ = planted(tmp_path / str(seed), seed=seed)
        findings = canary_findings(secrets, UNSEEN, claim=CLAIM, seed=seed)
        above += (bound(findings).value or 0) > 0
        p_values += [item.p_value for item in findings if item.decides and item.p_value is not None]
        assert not any(item.is_leak for item in findings)
        guessed = one(findings, "fact_value", "share")
        assert (
            guessed.value is not None
            and guessed.low is not None
            and guessed.low <= 0.1 <= (guessed.high or 0)
        )
    assert above <= 2
    # Of 40 p-values 2 are below 0.05; standard deviation 1.4.
    assert len(p_values) == 40 and sum(value <= 0.05 for value in p_values) <= 7


def test_a_release_that_repeats_few_records_is_found_by_few_guesses(tmp_path: Path) -> None:
    secrets, texts = planted(tmp_path)
    leaked = [canary.text for canary in secrets.canaries if canary.is_in][::8]
    found = bound(canary_findings(secrets, [*UNSEEN, *leaked], claim=CLAIM))
    assert len(leaked) < 15
    assert (found.value or 0) > 0.5 and "10 of 10 guesses right" in found.detail
    assert len(texts) > 9 * N


def test_repeated_canaries_bound_the_epsilon_of_their_group(tmp_path: Path) -> None:
    secrets, texts = planted(tmp_path, repetitions=(1, 4))
    repeated = [canary.text for canary in secrets.of_kind("fact") if canary.is_in and canary.n_rep == 4]
    findings = canary_findings(secrets, [*UNSEEN, *repeated], claim=CLAIM)
    single, group = bound(findings), bound(findings, whom="a group of 4 records")
    assert single.value == 0.0
    assert "claimed: 9" in group.detail and "claimed: 4" in single.detail
    assert single.n_members + single.n_nonmembers == group.n_members + group.n_nonmembers == N // 2
    # The kind that leaked is told from those that did not.
    by_kind = bound(findings, attack="fact", whom="a group of 4 records")
    assert (by_kind.value or 0) > 1.0
    assert bound(findings, attack="suffix", whom="a group of 4 records").value == 0.0
    assert texts


def test_scores_see_no_coin(tmp_path: Path) -> None:
    """With the coins turned over, what was above the middle is as far below it."""

    secrets, texts = planted(tmp_path)
    turned = replace(secrets, canaries=tuple(replace(c, is_in=not c.is_in) for c in secrets.canaries))
    part = texts[::2]
    before, after = (canary_findings(item, part, claim=CLAIM) for item in (secrets, turned))
    for kind in KINDS:
        name = f"{kind}_{secrets.primary[kind]}"
        assert one(before, name, "AUC").value == pytest.approx(1 - (one(after, name, "AUC").value or 0))


def test_an_embedder_may_find_the_nearest_text(tmp_path: Path) -> None:
    secrets, texts = planted(tmp_path)
    findings = canary_findings(secrets, texts, claim=CLAIM, embedder=HashEmbedder())
    assert one(findings, "tail_nearest", "AUC").value == pytest.approx(1.0, abs=0.01)


def test_models_trained_on_the_release_know_the_canaries_in_it(tmp_path: Path) -> None:
    secrets, _ = planted(tmp_path)
    leaked = [canary.text for canary in secrets.canaries if canary.is_in]
    copying, clean = (
        canary_findings(secrets, [*UNSEEN[:20], *texts], claim=CLAIM, auxiliary=TINY)
        for texts in (leaked, [])
    )
    for score in ("lm_refer", "lm_rmia", "lm_min_k"):
        found, nothing = (
            [one(findings, f"{kind}_{score}", "AUC") for kind in KINDS] for findings in (copying, clean)
        )
        assert not any(item.decides for item in found)
        # Of four kinds with 25 to a side; one alone has an interval of 0.3.
        assert np.mean([item.value for item in found]) > 0.65, found
        assert 0.35 < np.mean([item.value for item in nothing]) < 0.65, nothing


def test_too_few_canaries_of_a_kind_say_nothing(tmp_path: Path) -> None:

    secrets, texts = planted(tmp_path)
    few = replace(secrets, canaries=(*secrets.of_kind("fact"), *secrets.of_kind("tail")[:6]))
    findings = canary_findings(few, texts, claim=CLAIM)
    found = one(findings, "tail_rare_words", "AUC")
    assert found.value is None and not found.decides and "too few" in found.detail


def test_an_empty_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no released text"):
        canary_findings(planted(tmp_path)[0], [], claim=CLAIM)


def test_findings_hold_no_text(tmp_path: Path) -> None:
    secrets, texts = planted(tmp_path)
    shown = repr(canary_findings(secrets, texts, claim=CLAIM))
    for canary in secrets.canaries:
        assert canary.text not in shown and canary.canary_id not in shown
        assert canary.fact is None or canary.fact.value not in shown


# --- single scores --------------------------------------------------------------------------------


def test_longest_runs() -> None:
    texts = ["a b c d e", "x y", "q", "b c", ""]
    released = ["z b c d z", "y x", "e a b"]
    assert longest_runs(texts, released).tolist() == [3, 1, 0, 2, 0]
    # The end of one released text and the beginning of the next make no run.
    assert longest_runs(["a b c d"], ["a b", "c d"]).tolist() == [2]
    assert longest_runs(["a b"], []).tolist() == [0]


def test_longest_runs_agree_with_a_slow_search() -> None:
    draws = random.Random(3)
    texts, released = (["".join(draws.choices("ab ", k=40)) for _ in range(20)] for _ in range(2))

    def slow(text: str) -> int:
        words = text.split()
        runs = [words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
        return max(
            (
                len(run)
                for run in runs
                if any(f" {' '.join(run)} " in f" {' '.join(r.split())} " for r in released)
            ),
            default=0,
        )

    assert longest_runs(texts, released).tolist() == [slow(text) for text in texts]


def test_rare_words_count_in_one_text_only() -> None:
    scores = rare_words(["the zebra sang", "the the the"], ["zebra", "sang", "the zebra ate"], ["the end"])
    assert 0.3 < scores[0] < 0.7
    assert rare_words(["zebra sang"], ["it sang to a zebra"])[0] == pytest.approx(1.0)
    assert rare_words(["zebra sang"], ["nothing here"])[0] == 0.0


def test_bigrams_prefer_what_was_released() -> None:
    texts = ["the cat sat on the mat", "a dog ran over one hill"]
    scores = bigram_ratio(texts, ["the cat sat on a mat", "the cat sat"], ["the weather is fine"])
    assert scores[0] > 0 > scores[1] - scores[0]


def test_facts_are_found_whole_and_misspelt() -> None:
    fact = Fact(place="Tovamarsh", number=214, value="zunuretil", choices=("zunuretil", "kapioxan"))
    assert fact_exact([fact], ["In Tovamarsh, 214 people took Zunuretil."]).tolist() == [1.0]
    assert fact_exact([fact], ["In Tovamarsh.", "214 people"]).tolist() == [pytest.approx(1 / 3)]
    assert fact_exact([fact], []).tolist() == [0.0]
    near, far = fact_fuzzy([fact], ["zunuretile of tovamarch"])[0], fact_fuzzy([fact], ["a plain text"])[0]
    assert near > 0.6 > 0.3 > far
    assert fact_fuzzy([fact], [])[0] == 0.0
    assert np.isfinite(near)
