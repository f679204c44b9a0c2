"""Chunks in a folder and in storage that speaks S3: the same words for both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rpsg.config import RunConfig
from rpsg.errors import ConfigError, RunDirError
from rpsg.exchange import Exchange, below, open_exchange, place_of
from s3_server import Bucket, serve_bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with serve_bucket() as found:
        yield found


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Exchange:
    place = str(tmp_path) if request.param == "folder" else below(bucket.url, "run")
    return open_exchange(place)


def test_what_is_written_is_read_until_it_is_removed(files: Exchange) -> None:
    assert files.read("1-0.json") is None
    for text in ("naïve 😀\u2028\x85\r\nend", "x" * 6_000_000, ""):
        files.write("1-0.json", text)
        assert files.read("1-0.json") == text
    files.write("1-1.json", "b")
    files.remove("1-0.json")
    assert files.read("1-0.json") is None and files.read("1-1.json") == "b"
    files.clear()
    assert files.read("1-1.json") is None
    files.clear()


def test_a_run_clears_its_own_place_and_no_other(bucket: Bucket, tmp_path: Path) -> None:
    places = [place_of(bucket.url, tmp_path / name) for name in ("a", "b", "a")]
    assert places[0] == places[2] != places[1]
    for place in places[:2]:
        open_exchange(below(place, "token")).write("1-0.json", "text")
    open_exchange(places[0]).clear()
    # Arrow leaves an empty mark of the folder.
    assert [key for key, body in bucket.objects.items() if body] == [
        "texts/" + places[1].split("/")[-1].split("?")[0] + "/token/1-0.json"
    ]
    assert place_of("", tmp_path) == str(tmp_path / "work")


def test_storage_that_refuses_is_told_without_what_it_said(bucket: Bucket) -> None:
    files = open_exchange(below(bucket.url, "run"))
    bucket.refuses = True
    for fails in (lambda: files.read("a"), lambda: files.write("a", "b"), files.clear):
        with pytest.raises(RunDirError, match=r"s3://bucket/texts/run \(\w+\); can this machine") as raised:
            fails()
        assert "AccessDenied" not in str(raised.value) and "endpoint" not in str(raised.value)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    files = open_exchange(str(tmp_path / "gone"))
    with pytest.raises(RunDirError, match="No such file or directory"):
        files.write("a", "b")


@pytest.mark.parametrize("url", ["ftp://there/folder", "s3:///", "://"])
def test_urls_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no URL of storage"):
        open_exchange(url).write("a", "b")


@pytest.mark.parametrize(
    "executor",
    [
        {"kind": "threads", "storage": "s3://bucket/folder"},
        {"kind": "ray", "storage": "bucket/folder"},
        {"kind": "ray", "storage": "s3://key:secret@bucket/folder"},
    ],
)
def test_settings_of_storage_that_do_not_fit_are_refused(executor: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="without credentials") as raised:
        RunConfig.parse({"executor": executor})
    assert "secret" not in str(raised.value)
