"""Poisons: crafted blind to the coins; a release that obeys is found, one that repeats them only is not."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from rpsg.audit.canary import Canary, Secrets, read_secrets
from rpsg.audit.canary_mark import is_planted
from rpsg.audit.canary_plant import Planting, Roles, plant, read_data
from rpsg.audit.finding import Finding
from rpsg.audit.poisoning import craft_poisons, poisoning_findings, split_known
from rpsg.data import read_corpus, sample_path
from rpsg.errors import ConfigError

PROSE = [record.text for record in read_corpus(sample_path("posts_train.jsonl")).records]
UNSEEN = [record.text for record in read_corpus(sample_path("posts_test.jsonl")).records]


def planting(folder: Path, n_poisons: int, *, unit: str | None = None) -> Planting:
    rows = [{"text": f"row {i} says little of note", "who": f"u{i}"} for i in range(1400)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return Planting(
        source=folder / "data.jsonl",
        output=folder / "planted.jsonl",
        secrets=folder / "secrets.json",
        n_canaries=100,
        kinds=("suffix", "fact", "tail"),
        repetitions=(1,),
        style="posts",
        roles=Roles(unit=unit),
        n_poisons=n_poisons,
    )


def planted(folder: Path, n_poisons: int = 50, *, unit: str | None = None) -> Secrets:
    plan = planting(folder, n_poisons, unit=unit)
    return plant(plan, read_data(plan), lambda _: PROSE, chance=random.Random(4))


def one(findings: tuple[Finding, ...], attack: str) -> Finding:
    (found,) = [item for item in findings if item.attack == attack]
    return found


def test_every_poison_is_in_the_data_whatever_the_coins_say(tmp_path: Path) -> None:
    secrets = planted(tmp_path, unit="who")
    corpus = read_corpus(tmp_path / "planted.jsonl", unit_column="who", min_words=1)
    units: dict[str, set[str]] = {}
    for record in corpus.records:
        units.setdefault(" ".join(record.text.split()), set()).add(record.unit_id)
    assert len(secrets.poisons) == 50
    assert len({poison.unit_id for poison in secrets.poisons}) == 50
    for poison in secrets.poisons:
        assert poison.unit_id in units[" ".join(poison.text.split())]
    targets = {poison.canary_id for poison in secrets.poisons}
    sides = {canary.is_in for canary in secrets.canaries if canary.canary_id in targets}
    assert len(targets) == 25 and sides == {True, False}
    assert {poison.method for poison in secrets.poisons} == {"instruction", "near_duplicate", "injection"}
    assert read_secrets(tmp_path / "secrets.json") == secrets
    # The mark knows poisons too.
    alone = read_corpus(tmp_path / "planted.jsonl", min_words=1)
    texts = {" ".join(poison.text.split()) for poison in secrets.poisons}
    only = tuple(record for record in alone.records if " ".join(record.text.split()) in texts)
    assert is_planted(replace(alone, records=only))


def test_a_poison_holds_what_the_attacker_knows_and_nothing_else(tmp_path: Path) -> None:
    secrets = planted(tmp_path)
    by_id = {canary.canary_id: canary for canary in secrets.canaries}
    for poison in secrets.poisons:
        known, hidden = split_known(by_id[poison.canary_id].text)
        assert len(known.split()) <= 12 and f"{known} {hidden}" == by_id[poison.canary_id].text
        assert known in poison.text or poison.method == "near_duplicate"
        assert hidden not in poison.text
    assert repr(secrets.poisons[0]) == f"Poison(<{secrets.poisons[0].method}>)"


def test_targets_are_chosen_blind_to_the_coins() -> None:
    canaries = [
        Canary(canary_id=str(i), kind="tail", text=f"some words {i}", labels={}, n_rep=1, is_in=i % 2 == 0)
        for i in range(60)
    ]
    turned = [replace(canary, is_in=not canary.is_in) for canary in canaries]
    units = [""] * 20
    assert craft_poisons(canaries, units, random.Random(1)) == craft_poisons(turned, units, random.Random(1))


@pytest.mark.parametrize("n", [1, 9, 51])
def test_numbers_of_poisons_that_are_refused(tmp_path: Path, n: int) -> None:
    with pytest.raises(ConfigError, match="10 to 50"):
        read_data(planting(tmp_path, n))


def test_poisons_count_to_the_share_of_the_data(tmp_path: Path) -> None:
    plan = planting(tmp_path, 50)
    with pytest.raises(ConfigError, match="160 canaries and poisons"):
        read_data(replace(plan, n_canaries=110))


def test_a_release_that_obeys_is_found(tmp_path: Path) -> None:
    secrets = planted(tmp_path)
    targets = {poison.canary_id for poison in secrets.poisons}
    obeyed = [c.text for c in secrets.canaries if c.is_in and c.canary_id in targets]
    findings = poisoning_findings(secrets, [*UNSEEN, *obeyed], without=UNSEEN)
    for name in ("rare_words", "longest_run"):
        for control in ("left_out", "not_aimed_at", "without"):
            found = one(findings, f"{name}_against_{control}")
            assert (found.value or 0) > 0.95 and found.p_value is not None and found.p_value < 0.001
    assert [item.attack for item in findings if item.decides] == ["rare_words_against_left_out"]
    assert "50 poisons" in findings[0].detail and "the target alone" in findings[0].detail


def test_a_release_that_repeats_the_poisons_only_is_none(tmp_path: Path) -> None:
    secrets = planted(tmp_path)
    repeated = [poison.text for poison in secrets.poisons]
    found = one(poisoning_findings(secrets, [*UNSEEN, *repeated]), "rare_words_against_left_out")
    assert found.p_value is not None and found.p_value > 0.01
    assert found.low is not None and found.low < 0.5


def test_a_copy_of_everything_is_no_work_of_the_poisons(tmp_path: Path) -> None:
    secrets = planted(tmp_path)
    texts = [record.text for record in read_corpus(tmp_path / "planted.jsonl", min_words=1).records]
    findings = poisoning_findings(secrets, texts)
    assert (one(findings, "rare_words_against_left_out").value or 0) > 0.95
    others = one(findings, "rare_words_against_not_aimed_at")
    assert others.value == pytest.approx(0.5, abs=0.2) and not others.decides


def test_without_poisons_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert poisoning_findings(planted(tmp_path, 0), UNSEEN) == ()


def test_too_few_targets_say_nothing(tmp_path: Path) -> None:
    secrets = planted(tmp_path, 10)
    targets = {poison.canary_id for poison in secrets.poisons}
    none_in = replace(
        secrets,
        canaries=tuple(replace(c, is_in=False) if c.canary_id in targets else c for c in secrets.canaries),
    )
    found = one(poisoning_findings(none_in, UNSEEN), "rare_words_against_left_out")
    assert found.value is None and not found.decides and "too few" in found.detail
