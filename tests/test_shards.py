"""Shards: several processes embed, one draws the noise; the release is that of one process."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rpsg import data, registry
from rpsg.cli import app
from rpsg.config import RunConfig
from rpsg.errors import ConfigError, RunDirError
from rpsg.llm.fake import HashEmbedder
from rpsg.pipeline import run
from rpsg.privacy.noise import FixedNoise
from rpsg.rundir import RunDir, write_json
from rpsg.shards import Shard, check_complete, run_shard
from rpsg.types import FloatArray, PrivateCorpus
from test_end_to_end_mode import config, record

# Two or three records a unit.
CORPUS = PrivateCorpus(
    records=tuple(record(i, unit=f"u{i * 2 // 5}") for i in range(100)),
    label_columns=("topic",),
    has_units=True,
)
EMBEDDED: list[str] = []


class Counting(HashEmbedder):
    def embed(self, texts: Sequence[str]) -> FloatArray:
        EMBEDDED.extend(texts)
        return super().embed(texts)


@pytest.fixture(autouse=True)
def _count(monkeypatch: pytest.MonkeyPatch) -> None:
    EMBEDDED.clear()
    monkeypatch.setattr(registry, "embedder", lambda *_, **__: Counting())


def private_texts_embedded() -> list[str]:
    return sorted(set(EMBEDDED) & {item.text for item in CORPUS.records})


def begin(folder: Path) -> tuple[RunConfig, RunDir]:
    settings = config(folder)
    opened = RunDir.create(folder, settings, fingerprint=data.fingerprint(CORPUS))
    # The run's random id is on the card.
    write_json(opened.manifest, {"run_id": "0" * 16, "layout": 1})
    # Two folders of one id are copies of one run: the user's state would refuse the second's ledger.
    os.environ["XDG_STATE_HOME"] = str(folder.with_name(f"{folder.name}.state").absolute())
    return settings, opened


def finish(folder: Path, settings: RunConfig) -> dict[str, bytes]:
    run(settings, CORPUS, noise=FixedNoise(5))
    return {path.name: path.read_bytes() for path in sorted((folder / "release").iterdir())}


def test_the_release_does_not_depend_on_the_number_of_shards(tmp_path: Path) -> None:
    settings, _ = begin(tmp_path / "whole")
    expected = finish(tmp_path / "whole", settings)
    for of in (1, 2, 4):
        folder = tmp_path / str(of)
        settings, opened = begin(folder)
        for number in range(of, 0, -1):
            run_shard(settings, CORPUS, Shard(number=number, of=of), on_progress=lambda _: None)
        check_complete(opened)
        # Nothing was released, nothing drawn, nothing charged.
        assert not opened.ledger.exists() and not opened.release.exists()
        EMBEDDED.clear()
        assert finish(folder, settings) == expected
        assert private_texts_embedded() == []


def test_a_shard_embeds_its_own_units_only_and_once(tmp_path: Path) -> None:
    settings, _ = begin(tmp_path / "run")
    told: list[tuple[str, int, int]] = []
    sizes, seen = [], []
    for number in (1, 2, 3):
        EMBEDDED.clear()
        shard = Shard(number=number, of=3)
        sizes.append(
            run_shard(
                settings,
                CORPUS,
                shard,
                on_progress=lambda step: told.append((step.stage, step.done, step.total)),
            )
        )
        assert private_texts_embedded() == sorted(item.text for item in shard.select(CORPUS.records))
        seen.append({item.unit_id for item in shard.select(CORPUS.records)})
        EMBEDDED.clear()
        run_shard(settings, CORPUS, shard, on_progress=lambda _: None)
        assert EMBEDDED == []
    assert sum(sizes) == 100 and min(sizes) > 10
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert told == [(f"shard {i} of 3", size, size) for i, size in enumerate(sizes, start=1)]


def test_a_run_goes_on_without_a_shard_that_is_missing(tmp_path: Path) -> None:
    settings, _ = begin(tmp_path / "whole")
    expected = finish(tmp_path / "whole", settings)
    settings, opened = begin(tmp_path / "run")
    run_shard(settings, CORPUS, Shard(number=1, of=2), on_progress=lambda _: None)
    with pytest.raises(RunDirError, match="1 of 2 shards are not finished: 2; start each with"):
        check_complete(opened)
    EMBEDDED.clear()
    assert finish(tmp_path / "run", settings) == expected
    missing = Shard(number=2, of=2).select(CORPUS.records)
    assert private_texts_embedded() == sorted(item.text for item in missing)


def test_blocks_that_were_half_moved_are_made_again(tmp_path: Path) -> None:
    settings, _ = begin(tmp_path / "whole")
    expected = finish(tmp_path / "whole", settings)
    settings, opened = begin(tmp_path / "run")
    run_shard(settings, CORPUS, Shard(number=1, of=1), on_progress=lambda _: None)
    (opened.shard("1-of-1") / "embeddings" / "000000.vectors.npy").unlink()
    assert finish(tmp_path / "run", settings) == expected


def test_one_shard_is_worked_on_by_one_process(tmp_path: Path) -> None:
    settings, opened = begin(tmp_path / "run")
    with opened.working_on_shard("1-of-2"):
        with pytest.raises(RunDirError, match="another process is working on shard 1-of-2"):
            run_shard(settings, CORPUS, Shard(number=1, of=2), on_progress=lambda _: None)
        run_shard(settings, CORPUS, Shard(number=2, of=2), on_progress=lambda _: None)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "1/2/3", "-1/2", "01/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write NUMBER/OF"):
        Shard.parse(text)


def test_shards_are_for_runs_that_release_keys(tmp_path: Path) -> None:
    shard = Shard.parse("1/2")
    for changes, message in (
        ({"guarantee": "selection"}, "shards are for guarantee end-to-end, not selection"),
        ({"epsilon": 0}, "nothing to share out"),
        ({"output": {}}, "name the run folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_shard(config(tmp_path / "run", **changes), CORPUS, shard, on_progress=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_shards_of_two_splits_or_none_are_not_merged(tmp_path: Path) -> None:
    settings, opened = begin(tmp_path / "run")
    with pytest.raises(RunDirError, match="has no shards"):
        check_complete(opened)
    for name in ("1/1", "2/3"):
        run_shard(settings, CORPUS, Shard.parse(name), on_progress=lambda _: None)
    with pytest.raises(RunDirError, match="has shards of 1 and of 3"):
        check_complete(opened)


def test_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text(
        "".join(json.dumps({"text": item.text, "person": item.unit_id}) + "\n" for item in CORPUS.records)
    )
    settings = config(tmp_path / "run", data={"path": str(path), "unit_column": "person"})
    (tmp_path / "rpsg.yaml").write_text(settings.to_yaml())
    call, run_it = CliRunner().invoke, ["run", str(tmp_path / "rpsg.yaml"), "-o", str(tmp_path / "run")]
    assert "Shard 1 of 2 is done" in call(app, [*run_it, "--shard", "1/2"]).output
    refused = call(app, ["merge", str(tmp_path / "run")])
    assert isinstance(refused.exception, RunDirError)
    assert call(app, [*run_it, "--shard", "2/2", "--quiet"]).output == ""
    EMBEDDED.clear()
    done = call(app, ["merge", str(tmp_path / "run"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert private_texts_embedded() == []
    assert len((tmp_path / "run/release/synthetic.jsonl").read_text().splitlines()) == 10
