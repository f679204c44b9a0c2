import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_card import SUM, card, inputs, line

from rpsg.errors import ConfigError
from rpsg.privacy.card import build_card
from rpsg.privacy.card_file import check_card, new_key, render_markdown, schema, sign_card, to_json
from rpsg.privacy.ledger import read_run

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    page = card(tmp_path / "ledger", "selection")
    path = tmp_path / "privacy_card.json"
    path.write_text(to_json(page))
    path.with_suffix(".md").write_text(render_markdown(page))
    return path


def edit(path: Path, change: Edit) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_card_that_was_not_touched_holds(written: Path) -> None:
    assert check_card(written) == []
    assert check_card(written, ledger=read_run(written.parent / "ledger")) == []


EDITS: dict[str, Edit] = {
    "statement": lambda c: c.update(statement="The released texts are (epsilon=1, delta=1e-6)-DP."),
    "secure_noise": lambda c: c.update(secure_noise=False),
    "released_texts": lambda c: c.update(released_texts="protected as a whole: see figures"),
    "choice": lambda c: c["choice"].update(probability_of_best=0.99),
    "attacker": lambda c: c.update(attacker="Nobody learns anything."),
    "not_covered": lambda c: c.update(not_covered=[]),
    "releases": lambda c: c["releases"][1].update(cost=["epsilon 0.1 at delta 1e-06"]),
    "inputs": lambda c: c["inputs"].update(epsilon=1.0),
    "unit": lambda c: c.update(unit="one person"),
}


@pytest.mark.parametrize("name", list(EDITS))
def test_an_edited_card_does_not_hold(written: Path, name: str) -> None:
    edit(written, EDITS[name])
    assert check_card(written) != []


def test_a_page_that_says_something_else_is_found(written: Path) -> None:
    page = written.with_suffix(".md")
    page.write_text(page.read_text().replace("No end-to-end", "Full end-to-end"))
    assert check_card(written) == ["privacy_card.md: the page does not say what the card says"]


def test_only_the_ledger_shows_a_line_that_was_left_out(written: Path) -> None:
    written.with_suffix(".md").unlink()
    edit(written, lambda c: c["releases"].pop(1))
    assert check_card(written) == []
    found = read_run(written.parent / "ledger")
    assert check_card(written, ledger=found) == ["releases: the card's lines are not the ledger's"]


def test_a_smaller_noise_than_promised_is_found(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(to_json(build_card(inputs("end-to-end", epsilon=2.5), [line(1, SUM)])))
    assert check_card(path) == []
    edit(path, lambda c: c["releases"][0]["events"][0].update(std=0.5))
    assert check_card(path) == ["releases: line 1 is none that a mechanism of this program makes"]
    edit(path, lambda c: c["releases"][0]["parameters"].update(noise_multiplier=0.5))
    (problem,) = check_card(path)
    assert "the run promised 2.5" in problem


FORGERIES: dict[str, Edit] = {
    "more noise on paper": lambda c: c["releases"][0]["events"][0].update(std=100),
    "negative cost": lambda c: c["releases"][0]["events"].append(
        {"type": "ZcdpEvent", "rho": -1000, "relation": "add/remove one unit"}
    ),
    "no cost when replaced": lambda c: c["releases"][0]["events"][0].update(replace_l2=0.0),
    "std as text": lambda c: c["releases"][0]["events"][0].update(std="big"),
    "no std": lambda c: c["releases"][0]["events"][0].update(std=None),
    "another mechanism": lambda c: c["releases"][0].update(mechanism="Trust me"),
    "no lines": lambda c: c.update(releases=[]),
    "any delta": lambda c: c["inputs"].update(delta=0.9, n_units_bound=1000),
}


@pytest.mark.parametrize("name", list(FORGERIES))
def test_a_forged_end_to_end_card_does_not_hold(tmp_path: Path, name: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(to_json(build_card(inputs("end-to-end", epsilon=2.5), [line(1, SUM)])))
    edit(path, FORGERIES[name])
    assert check_card(path) != []


def test_the_ledger_knows_what_the_card_was_computed_from(written: Path) -> None:
    written.with_suffix(".md").unlink()
    forged = build_card(
        inputs("selection", has_units=True, run_id="another"), read_run(written.parent / "ledger")[0]
    )
    written.write_text(to_json(forged))
    assert check_card(written) == []
    (problem,) = check_card(written, ledger=read_run(written.parent / "ledger"))
    assert problem == "inputs: the card was computed from something else than the run"


def test_a_key_that_stands_twice_is_refused(written: Path) -> None:
    written.write_text(written.read_text().replace("{", '{"statement": "(0.1, 1e-6)-DP", ', 1))
    with pytest.raises(ConfigError, match="no JSON object"):
        check_card(written)


def test_an_unknown_event_is_named_by_its_line(written: Path) -> None:
    edit(written, lambda c: c["releases"][0]["events"][0].update(type="TrustMeEvent"))
    assert check_card(written) == ["releases: line 1 is none that a mechanism of this program makes"]


def test_what_is_no_card_gets_one_message(tmp_path: Path, written: Path) -> None:
    for name, text in {"a": "{", "b": "[]", "c": '{"statement": 1}'}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=r"is no (JSON object|privacy card)"):
            check_card(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot read"):
        check_card(tmp_path / "missing.json")
    edit(written, lambda c: c.update(extra="x"))
    with pytest.raises(ConfigError, match="extra"):
        check_card(written)


def test_after_signing_any_edit_fails(written: Path) -> None:
    key = written.parent / "key"
    public = new_key(key)
    assert key.stat().st_mode & 0o077 == 0
    assert sign_card(written, key) == public
    assert check_card(written, public_key=public) == []
    # A consistent forgery: a line left out together with the page. Only the signature sees it.
    written.with_suffix(".md").unlink()
    edit(written, lambda c: c["releases"].pop(1))
    assert check_card(written) == ["signature: the card was changed after it was signed"]
    edit(written, lambda c: c.pop("signature"))
    assert check_card(written) == []
    assert check_card(written, public_key=public) == ["signature: the card is not signed"]


@pytest.mark.parametrize("change", ["white space", "case", "more"])
def test_a_signed_file_is_fixed_to_the_byte(written: Path, change: str) -> None:
    new_key(written.parent / "k")
    sign_card(written, written.parent / "k")
    text = written.read_text()
    if change == "white space":
        written.write_text(text + "\n")
    elif change == "case":
        value = json.loads(text)["signature"]["value"]
        written.write_text(text.replace(value, value.upper()))
    else:
        written.write_text(text.replace('"algorithm"', '"note": "fully private", "algorithm"'))
    assert check_card(written) != []


def test_a_signature_by_another_key_is_refused(written: Path) -> None:
    one, two = (new_key(written.parent / name) for name in ("one", "two"))
    sign_card(written, written.parent / "one")
    assert check_card(written, public_key=one) == []
    assert check_card(written, public_key=two) == ["signature: the card was signed by another key"]


@pytest.mark.parametrize("value", ["zz", "", "00" * 64])
def test_a_broken_signature_is_no_crash(written: Path, value: str) -> None:
    new_key(written.parent / "k")
    sign_card(written, written.parent / "k")
    edit(written, lambda c: c["signature"].update(value=value))
    assert check_card(written) == ["signature: the card was changed after it was signed"]


def test_a_card_that_does_not_hold_is_not_signed(written: Path) -> None:
    new_key(written.parent / "k")
    edit(written, EDITS["attacker"])
    with pytest.raises(ConfigError, match="is not signed"):
        sign_card(written, written.parent / "k")
    with pytest.raises(ConfigError, match="exists"):
        new_key(written.parent / "k")


def test_the_schema_describes_every_key(written: Path) -> None:
    found = schema()
    assert isinstance(found["properties"], dict)
    assert set(json.loads(written.read_text())) <= set(found["properties"])


def test_infinite_figures_are_null_in_json(tmp_path: Path) -> None:
    page = build_card(inputs("end-to-end", epsilon=3.0), [line(1, SUM)])
    assert "Infinity" not in to_json(page)


def test_a_name_cannot_turn_a_line_of_the_card(tmp_path: Path) -> None:
    made = card(tmp_path / "ledger", "none", public_inputs="topics \u202eecnirp\u202c | of a_file")
    page = render_markdown(made)
    assert "topics \u27e8U+202E\u27e9ecnirp\u27e8U+202C\u27e9 \\| of a\\_file" in page
