from importlib.resources import files
from pathlib import Path

import pytest

from rpsg.config import RunConfig
from rpsg.errors import ConfigError
from rpsg.offline import refuse_servers
from rpsg.options import build_config
from rpsg.yaml_file import set_value


def test_defaults_are_selection_at_epsilon_4_with_all_filters() -> None:
    config = RunConfig()
    assert (config.guarantee, config.epsilon) == ("selection", 4.0)
    assert config.refine.pii.enabled and config.refine.similarity.enabled and config.refine.nll.enabled


def test_template_is_the_default_configuration(tmp_path: Path) -> None:
    path = tmp_path / "rpsg.yaml"
    path.write_text(files("rpsg").joinpath("template.yaml").read_text())
    default = RunConfig().model_dump()
    default["data"]["path"] = "posts.csv"
    assert RunConfig.load(path).model_dump() == default


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = RunConfig.parse({"preset": "paper-pubmed", "n": 7, "guarantee": "none"})
    path = tmp_path / "c.yaml"
    path.write_text(config.to_yaml())
    assert RunConfig.load(path) == config


def test_exponents_without_a_dot_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("delta: 1e-5\nepsilon: 2\n")
    assert RunConfig.load(path).delta == 1e-5


def test_preset_yields_to_what_the_user_sets() -> None:
    config = RunConfig.parse({"preset": "paper-pubmed", "write": {"top_p": 0.8}})
    assert (config.write.top_p, config.write.prompt) == (0.8, "abstracts")
    assert config.models == RunConfig().models


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epsilonn": 4}, "did you mean 'epsilon'"),
        ({"refine": {"pii": {"enable": True}}}, "did you mean 'enabled'"),
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": "four"}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"epsilon": float("inf")}, "epsilon"),
        ({"guarantee": "none", "epsilon": 4}, "no meaning"),
        ({"guarantee": "full"}, "guarantee"),
        ({"method": "AUG-PE"}, "did you mean 'augpe'"),
        ({"data": {"label_values": "a"}}, "a mapping"),
        ({"data": {"label_columns": "a"}}, "a list"),
        ({"n": 0}, "n:"),
        ({"delta": 1}, "delta"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.parse(values)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rpsg init"):
        RunConfig.load(tmp_path / "none.yaml")
    broken = tmp_path / "b.yaml"
    broken.write_text("a: [1\nb: 2")
    with pytest.raises(ConfigError, match="line"):
        RunConfig.load(broken)
    listing = tmp_path / "l.yaml"
    listing.write_text("- 1\n")
    with pytest.raises(ConfigError, match="key: value"):
        RunConfig.load(listing)


def test_a_section_on_the_command_line_keeps_its_other_settings(tmp_path: Path) -> None:
    texts = tmp_path / "posts.csv"
    given = ["data={label_columns: [topic], label_values: {topic: [rent]}}", "models={write: fake}"]
    config = build_config(texts, {}, given)
    assert config.data.path == str(texts) and config.data.label_columns == ("topic",)
    assert config.models.write == "fake" and config.models.embed == RunConfig().models.embed
    # A setting that is itself a mapping is replaced.
    again = build_config(texts, {}, [*given, "data.label_values={topic: [debt]}"])
    assert again.data.label_values == {"topic": ("debt",)}


def test_set_value_nests() -> None:
    values: dict[str, object] = {}
    set_value(values, "vote.survive", "0.8")
    assert RunConfig.parse(values).vote.survive == 0.8


@pytest.mark.parametrize(
    "text",
    ["epsilon: 1\nepsilon: 8", "data:\n  path: a\n  path: b", "<<: {epsilon: 9}"],
    ids=["top", "inner", "merge"],
)
def test_keys_that_stand_twice_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="write it once"):
        RunConfig.load(path)


@pytest.mark.parametrize("value", ["yes", "1:30", "nan", ".inf", "1e9", "1e-320"])
def test_values_that_yaml_would_read_as_something_else_are_no_numbers(tmp_path: Path, value: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"epsilon: {value}")
    with pytest.raises(ConfigError, match="epsilon"):
        RunConfig.load(path)


def test_numbers_are_decimal(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("n: 010\ndelta: 1e-7\noutside_budget: true\ndata: {id_column: null}")
    loaded = RunConfig.load(path)
    assert (loaded.n, loaded.delta, loaded.outside_budget, loaded.data.id_column) == (10, 1e-7, True, None)


def test_a_noise_seed_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="privacy noise is never seeded"):
        RunConfig.parse({"noise_seed": 1})


def test_delta_is_checked_against_the_number_of_people() -> None:
    with pytest.raises(ConfigError, match="must be below 1/n_units_bound"):
        RunConfig.parse({"delta": 1e-3, "n_units_bound": 1000})


@pytest.mark.parametrize(("given", "workers"), [("executor: threads", None), ("executor: {workers: 3}", 3)])
def test_the_executor_option_leaves_its_other_settings(
    tmp_path: Path, given: str, workers: int | None
) -> None:
    path = tmp_path / "rpsg.yaml"
    path.write_text(given)
    built = build_config(path, {"executor.kind": "ray"}, []).executor
    assert (built.kind, built.workers) == ("ray", workers)


def test_offline_refuses_workers_that_talk_by_sockets() -> None:
    with pytest.raises(ConfigError, match=r"executor.kind is ray.*use threads or serial"):
        refuse_servers(RunConfig.parse({"executor": "ray"}))
