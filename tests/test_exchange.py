"""Chunks in a folder and in a bucket that speaks S3: the same words for both."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpsg import exchange
from rpsg.bucket import BucketUrl
from rpsg.config import RunConfig
from rpsg.errors import ConfigError, RunDirError
from rpsg.exchange import Exchange, clear_left, note_place, open_exchange, was_in_bucket
from rpsg.executor import Spec
from rpsg.ray_worker import RayWorker
from s3_server import Bucket, serve_bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with serve_bucket() as found:
        yield found


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Exchange:
    (tmp_path / "run").mkdir()
    place = str(tmp_path / "run") if request.param == "folder" else bucket.url
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


def test_what_was_left_is_found_by_the_note_in_the_run_folder(bucket: Bucket, tmp_path: Path) -> None:
    clear_left(tmp_path)
    assert not was_in_bucket(tmp_path)
    places = [str(BucketUrl.parse(bucket.url).below(f"rpsg-{i}")) for i in range(2)]
    note_place(tmp_path, places[0])
    for place in places:
        open_exchange(place).write("1-0.json", "text")
    assert [key for key in bucket.objects if "uploads" in key or not key.startswith("texts/")] == []
    clear_left(tmp_path)
    # Arrow leaves an empty mark of the folder.
    assert [key for key, body in bucket.objects.items() if body] == ["texts/rpsg-1/1-0.json"]
    clear_left(tmp_path)
    assert was_in_bucket(tmp_path)


def test_a_bucket_that_is_gone_can_be_left_behind(bucket: Bucket, tmp_path: Path) -> None:
    note_place(tmp_path, bucket.url)
    bucket.refuses = True
    with pytest.raises(RunDirError, match=f"remove {tmp_path}/storage.json"):
        clear_left(tmp_path)
    (tmp_path / "storage.json").unlink()
    clear_left(tmp_path)


def test_small_objects_are_written_by_one_request(bucket: Bucket) -> None:
    open_exchange(bucket.url).write("1-0.json", "x" * 1_000_000)
    assert bucket.n_uploads == 0 and bucket.objects["texts/1-0.json"] == b"x" * 1_000_000


def test_a_bucket_that_refuses_is_told_without_what_it_said(bucket: Bucket) -> None:
    files = open_exchange(str(BucketUrl.parse(bucket.url).below("run")))
    bucket.refuses = True
    for fails in (lambda: files.read("a"), lambda: files.write("a", "b"), files.clear):
        with pytest.raises(RunDirError, match=r"s3://bucket/texts/run \(\w+\); can this machine") as raised:
            fails()
        assert "AccessDenied" not in str(raised.value) and "127.0.0.1" not in str(raised.value)


def test_a_bucket_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_SECONDS", 1)
    monkeypatch.setattr(exchange, "_ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"s3://bucket/a?scheme=http&endpoint_override=127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(RunDirError, match="cannot read from s3://bucket/a"):
            open_exchange(url).read("1-0.json")
    assert time.monotonic() - began < 20


def test_a_late_worker_takes_its_result_away_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(*_: object) -> str:
        files.clear()
        return "a result"

    files = open_exchange(bucket.url)
    files.write("1-0.json", "[]")
    worker = RayWorker(bucket.url)
    monkeypatch.setattr(worker._worker, "compute", compute)
    assert worker.compute(Spec(kind="embedder", name="hash"), "1-0") == ""
    assert not any(bucket.objects.values())


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    files = open_exchange(str(tmp_path / "gone"))
    with pytest.raises(RunDirError, match="No such file or directory"):
        files.write("a", "b")


@pytest.mark.parametrize(
    "url",
    [
        "bucket/folder",
        "ftp://there/folder",
        "file:///tmp/folder",
        "s3:///folder",
        "s3://key:secret@bucket/folder",
        "s3://bucket/folder?secret_key=secret",
        "abfss://bucket/folder?client_secret=secret",
    ],
)
def test_urls_that_are_none_or_hold_credentials_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="must be s3://bucket/folder or gs://bucket/folder") as raised:
        RunConfig.parse({"executor": {"kind": "ray", "storage": url}})
    assert "secret" not in str(raised.value)


def test_a_url_stands_as_it_was_given() -> None:
    url = "s3://bucket/a/b?region=eu-1&endpoint_override=127.0.0.1%3A9000"
    assert str(BucketUrl.parse(url)) == url
    assert str(BucketUrl.parse("gcs://bucket/")) == "gs://bucket"


def test_a_bucket_of_google_can_be_named() -> None:
    assert open_exchange("gs://bucket/a?scheme=http&endpoint_override=127.0.0.1:9")._bucket is not None  # type: ignore[attr-defined]
