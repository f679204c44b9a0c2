"""Who is answered by the review page, and who is not; what a decision leaves behind."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from review_thread import serving

from rpsg.decisions import Trail
from rpsg.errors import ConfigError, RunDirError
from rpsg.privacy.shown import private_was_shown
from rpsg.review.near import PrivateNeighbours, mark_shared
from rpsg.review.server import HOST, ReviewServer
from rpsg.review.session import open_review
from rpsg.reviewed import apply_review
from rpsg.types import PrivateCorpus, PrivateRecord
from test_cli import POSTS, call


def ask(
    server: ReviewServer, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=10)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=names)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def post(server: ReviewServer, name: str, value: object, **headers: str) -> tuple[int, object]:
    sent = {"Origin": server.origin, "Content_Type": "application/json", **headers}
    body = json.dumps(value).encode()
    status, answer, _ = ask(server, f"/{server.key}/{name}", method="POST", body=body, **sent)
    return status, json.loads(answer) if answer.startswith((b"{", b"[", b"n")) else answer


def ids(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (folder / "release/synthetic.jsonl").read_text().splitlines()]


def test_the_token_opens_once(run_folder: Path) -> None:
    with serving(run_folder) as server:
        path = server.url.removeprefix(server.origin)
        status, body, headers = ask(server, path)
        assert status == 303 and headers["Location"] == f"/{server.key}/" and body == b""
        assert ask(server, f"/{server.key}/")[0] == 200
        status, body, headers = ask(server, path)
        assert status == 403 and "Location" not in headers and server.key.encode() not in body


def test_who_is_refused(run_folder: Path) -> None:
    with serving(run_folder) as server:
        port = server.server_address[1]
        good = f"/{server.key}/texts"
        assert ask(server, good)[0] == 200
        for path in (
            "/",
            "/texts",
            "/x/texts",
            f"/{server.key[:-1]}/texts",
            "/?token=",
            "/?token=x",
            "//texts",
        ):
            assert ask(server, path)[0] == 403, path
        # A name that is pointed to this machine (DNS rebinding), or another port of it.
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "127.0.0.1",
            f"127.0.0.1:{port + 1}",
            f"localhost:{port}",
        ):
            assert ask(server, good, Host=host)[0] == 403, host
        for origin in (
            "http://evil.example",
            "null",
            f"http://127.0.0.1:{port + 1}",
            f"https://127.0.0.1:{port}",
        ):
            assert ask(server, good, Origin=origin)[0] == 403, origin
        for site in ("cross-site", "same-site"):
            assert ask(server, good, Sec_Fetch_Site=site)[0] == 403
            assert ask(server, server.url.removeprefix(server.origin), Sec_Fetch_Site=site)[0] == 403
        for path in (
            "../../etc/passwd",
            "..%2f..%2fetc%2fpasswd",
            "%2e%2e/private/config.yaml",
            "review.js/../x",
            "x",
        ):
            status, body, _ = ask(server, f"/{server.key}/{path}")
            assert status in {403, 404} and b"root:" not in body and b"data" not in body, path
        for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
            status, body, headers = ask(server, good, method=method)
            assert (
                status == 501 and body == b"" and "default-src 'none'" in headers["Content-Security-Policy"]
            )


def test_two_host_lines_are_refused(run_folder: Path) -> None:
    with serving(run_folder) as server, socket.create_connection(server.server_address) as connection:  # type: ignore[arg-type]
        port = server.server_address[1]
        lines = f"GET /{server.key}/texts HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n"
        connection.sendall(lines.encode())
        assert b" 403 " in connection.recv(200)


def test_every_answer_forbids_keeping_and_framing(run_folder: Path) -> None:
    with serving(run_folder) as server:
        for path in (
            f"/{server.key}/",
            f"/{server.key}/texts",
            f"/{server.key}/nowhere",
            "/",
            f"/{server.key}/alive",
        ):
            headers = ask(server, path)[2]
            assert headers["Cache-Control"] == "no-store" and headers["X-Frame-Options"] == "DENY"
            assert headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert (
                headers["Referrer-Policy"] == "no-referrer" and headers["X-Content-Type-Options"] == "nosniff"
            )
            assert "Set-Cookie" not in headers and "Access-Control-Allow-Origin" not in headers


def test_a_form_of_another_site_decides_nothing(run_folder: Path) -> None:
    text_id = ids(run_folder)[0]
    asked = {"id": text_id, "verdict": "reject", "reason": "x"}
    with serving(run_folder) as server:
        assert post(server, "decide", asked, Content_Type="text/plain")[0] == 400
        assert post(server, "decide", asked, Origin="http://evil.example")[0] == 403
        body = json.dumps(asked).encode()
        path = f"/{server.key}/decide"
        assert ask(server, path, method="POST", body=body, Content_Type="application/json")[0] == 400
        assert ask(server, path)[0] == 404
        assert server.review.trail.current() == {}
        reasons = (" ", "x" * 501, "x" * 20_000)
        others = [{}, [], {**asked, "id": "nobody"}, {**asked, "verdict": "sell"}]
        for bad in [*others, *({**asked, "reason": reason} for reason in reasons)]:
            assert post(server, "decide", bad)[0] == 400, bad
        deep = {"body": b"[" * 9000, "Content_Type": "application/json", "Origin": server.origin}
        assert ask(server, path, method="POST", **deep)[0] == 400
        assert server.review.trail.current() == {}
        assert post(server, "decide", asked)[0] == 200
        assert server.review.trail.current()[text_id].verdict == "reject"


def test_decisions_are_kept_added_to_and_taken_back(run_folder: Path) -> None:
    first, second, *_ = ids(run_folder)
    with serving(run_folder) as server:
        post(server, "decide", {"id": first, "verdict": "reject", "reason": "rare detail"})
        post(server, "decide", {"id": first, "verdict": "accept", "reason": ""})
        post(server, "decide", {"id": second, "verdict": "reject", "reason": "=sum(1) \u202e"})
        assert post(server, "undo", {}) == (200, {"id": second, "verdict": "undecided", "reason": ""})
        assert post(server, "undo", {})[1] == {"id": first, "verdict": "reject", "reason": "rare detail"}
    with serving(run_folder) as server:
        shown = {item["id"]: item for item in json.loads(ask(server, f"/{server.key}/texts")[1])["texts"]}
        assert shown[first]["verdict"] == "reject" and shown[second]["verdict"] == "undecided"
        # Another session undoes nothing of an earlier one.
        assert post(server, "undo", {}) == (200, None)
    trail = Trail(run_folder / "private/review.jsonl")
    assert [item.event for item in trail.entries()] == ["opened", *["decided"] * 5, "opened"]
    assert all(item.by and item.saw_private for item in trail.entries())
    assert oct(trail.path.stat().st_mode)[-3:] == "600"


def test_a_public_review_shows_and_sends_no_private_text(run_folder: Path) -> None:
    private = [json.loads(line)["text"] for line in POSTS.read_text(encoding="utf-8").splitlines()]
    with serving(run_folder, public=True) as server:
        answers = [
            ask(server, f"/{server.key}/{name}")[1] for name in ("texts", f"nearest?id={ids(run_folder)[0]}")
        ]
        assert answers[1] == b"[]" and not any(text[:60].encode() in answers[0] for text in private)
        post(server, "decide", {"id": ids(run_folder)[0], "verdict": "reject", "reason": "x"})
    assert not Trail(run_folder / "private/review.jsonl").saw_private


def test_a_reason_given_beside_private_text_is_shown_in_no_public_review(run_folder: Path) -> None:
    with serving(run_folder) as server:
        post(server, "decide", {"id": ids(run_folder)[0], "verdict": "reject", "reason": "repeats Jane Roe"})
        assert b"Jane Roe" in ask(server, f"/{server.key}/texts")[1]
    with serving(run_folder, public=True) as server:
        texts = ask(server, f"/{server.key}/texts")[1]
        assert b"Jane Roe" not in texts and b"given beside private text" in texts


def test_a_name_or_reason_of_odd_characters_keeps_the_trail_readable(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "j\udcf6rg")
    with serving(run_folder, public=True) as server:
        sent = {"id": ids(run_folder)[0], "verdict": "reject", "reason": "half \ud83d pair"}
        assert post(server, "decide", sent)[0] == 200
    assert Trail(run_folder / "private/review.jsonl").entries()[-1].reason == "half ? pair"


def test_what_was_read_cannot_be_unread(run_folder: Path) -> None:
    with serving(run_folder):
        pass
    with serving(run_folder, public=True) as server:
        post(server, "decide", {"id": ids(run_folder)[0], "verdict": "reject", "reason": "x"})
        assert next(iter(server.review.trail.current().values())).saw_private


def test_a_trail_that_lost_lines_forgets_nothing(run_folder: Path) -> None:
    with serving(run_folder):
        pass
    # Who removes the trail, or the line that says so, has still read what was on screen.
    Trail(run_folder / "private/review.jsonl").path.unlink()
    with serving(run_folder, public=True) as server:
        post(server, "decide", {"id": ids(run_folder)[0], "verdict": "reject", "reason": "x"})
        assert next(iter(server.review.trail.current().values())).saw_private
    trail = Trail(run_folder / "private/review.jsonl")
    lines = trail.path.read_text().replace('"saw_private": true', '"saw_private": false')
    trail.path.write_text(lines)
    assert not trail.saw_private
    assert apply_review(run_folder, end_guarantee=True).changed
    card = json.loads((run_folder / "release/privacy_card.json").read_text())
    assert card["inputs"]["reviewed"] == "private"


def test_a_trail_removed_under_an_open_page_forgets_nothing(run_folder: Path) -> None:
    with serving(run_folder) as server:
        (run_folder / "private/review.jsonl").unlink()
        post(server, "decide", {"id": ids(run_folder)[0], "verdict": "reject", "reason": "x"})
        assert next(iter(server.review.trail.current().values())).saw_private


def test_the_banner_says_what_holds_now(run_folder: Path) -> None:
    with serving(run_folder, public=True) as server:
        assert not server.review.everything()["saw_private"]
        # Private texts are shown in a second window meanwhile.
        with serving(run_folder):
            assert server.review.everything()["saw_private"]


def test_a_rejection_that_was_applied_can_be_taken_back(run_folder: Path) -> None:
    out, *rest = ids(run_folder)
    with serving(run_folder) as server:
        post(server, "decide", {"id": out, "verdict": "reject", "reason": "rare detail"})
    assert apply_review(run_folder).n_rejected == 1 and ids(run_folder) == rest
    with serving(run_folder) as server:
        shown = {item["id"]: item for item in json.loads(ask(server, f"/{server.key}/texts")[1])["texts"]}
        assert shown[out]["verdict"] == "reject" and shown[out]["text"]
        assert list(shown) == [*rest, out]
        assert post(server, "decide", {"id": out, "verdict": "accept", "reason": ""})[0] == 200
    assert apply_review(run_folder).n_rejected == 0 and set(ids(run_folder)) == {out, *rest}


def test_two_decisions_on_one_text_are_undone_one_by_one(run_folder: Path) -> None:
    first, *_ = ids(run_folder)
    with serving(run_folder) as server:
        post(server, "decide", {"id": first, "verdict": "accept", "reason": ""})
        post(server, "decide", {"id": first, "verdict": "reject", "reason": "a name"})
        post(server, "decide", {"id": first, "verdict": "undecided", "reason": ""})
        found = [post(server, "undo", {}) for _ in range(4)]
        assert [status for status, _ in found] == [200] * 4
        assert [said and said["verdict"] for _, said in found] == ["reject", "accept", "undecided", None]  # type: ignore[index]


def test_undo_takes_back_nobody_elses_decision(run_folder: Path) -> None:
    first, *_ = ids(run_folder)
    with serving(run_folder) as mine, serving(run_folder) as other:
        post(mine, "decide", {"id": first, "verdict": "accept", "reason": ""})
        post(other, "decide", {"id": first, "verdict": "reject", "reason": "a name"})
        status, said = post(mine, "undo", {})
        assert status == 400 and "decided elsewhere" in str(said)
        assert mine.review.trail.current()[first].verdict == "reject"


def test_after_a_purge_nothing_private_is_served(run_folder: Path) -> None:
    with serving(run_folder) as server:
        path = f"/{server.key}/nearest?id={ids(run_folder)[0]}"
        assert json.loads(ask(server, path)[1])
        assert call("purge", run_folder, "--private") == 0
        for name in ("nearest?id=x", f"nearest?id={ids(run_folder)[0]}", "texts", "alive"):
            status, body, _ = ask(server, f"/{server.key}/{name}")
            assert (status, body) == (410, b"")


@pytest.mark.parametrize("reason", [None, 9, "", "9", "\u200b", "\u202e ", " . "])
def test_a_reason_is_words(run_folder: Path, reason: object) -> None:
    with serving(run_folder) as server:
        asked = {"id": ids(run_folder)[0], "verdict": "reject", "reason": reason}
        assert post(server, "decide", asked)[0] == 400
        assert not server.review.trail.current()


def test_a_private_review_shows_the_source_first(run_folder: Path) -> None:
    record = json.loads(POSTS.read_text(encoding="utf-8").splitlines()[3])
    path = run_folder / "release/synthetic.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["text"] = "It happened that " + " ".join(record["text"].split()[:14]) + " and so on."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(run_folder) as server:
        status, body, _ = ask(server, f"/{server.key}/nearest?id={rows[0]['id']}")
        found = json.loads(body)
        assert status == 200 and len(found) == 3 and found[0]["text"] == record["text"]
        assert found[0]["similarity"] > found[1]["similarity"]
        longest = max(found[0]["marks_synthetic"], key=lambda mark: mark["end"] - mark["start"])
        assert longest["kind"] == "run" and longest["end"] - longest["start"] > 40


def test_marks_are_runs_of_three_words_and_rare_words() -> None:
    text, other = (
        "Yes, the old heater broke again in Zanzibar 1987.",
        "the OLD heater broke; zanzibar, 1987: again",
    )
    marks = mark_shared(text, other, {"zanzibar", "1987"})
    assert [(text[mark.start : mark.end], mark.kind) for mark in marks] == [
        ("the old heater broke", "run"), ("Zanzibar", "rare"), ("1987", "rare"),
    ]  # fmt: skip
    assert mark_shared(text, "old heater", set()) == () and mark_shared("", other, set()) == ()


def test_rare_words_are_those_of_few_private_texts() -> None:
    texts = [
        "the heater broke in zanzibar",
        "the heater broke in may",
        "the heater broke again",
        "the heater",
    ]
    records = tuple(
        PrivateRecord(record_id=str(i), unit_id=str(i), text=text) for i, text in enumerate(texts)
    )
    neighbours = PrivateNeighbours.build(PrivateCorpus(records=records))
    found = neighbours.find("Zanzibar had a heater")[0]
    assert found.record_id == "0" and [mark.kind for mark in found.marks] == ["rare"]
    assert "zanzibar" not in repr(neighbours) and "zanzibar" not in repr(found)


def test_bad_input_is_one_message(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("review", tmp_path) == 2
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        assert call("review", run_folder, "--port", str(taken.getsockname()[1])) == 2
    assert "leave --port out" in capsys.readouterr().err
    # Nothing was shown, so nothing was noted: a public review keeps the guarantee.
    assert not private_was_shown(run_folder / "private/ledger.sqlite")
    assert not Trail(run_folder / "private/review.jsonl").entries()
    config = run_folder / "private/config.yaml"
    before = config.read_text()
    config.write_text(before.replace(str(POSTS), "/nowhere/posts.jsonl"))
    with pytest.raises(ConfigError, match="--public"):
        open_review(run_folder, public=False)
    config.write_text(before)
    trail = Trail(run_folder / "private/review.jsonl")
    trail.decide("a", "accept")
    good = trail.path.read_bytes()
    for line in (
        b'{"odd": 1}\n',
        b"\xff\xfe\n",
        good.replace(b'"a"', b'["a"]'),
        good.replace(b"accept", b"maybe"),
    ):
        trail.path.write_bytes(line)
        with pytest.raises(RunDirError, match="no decision"):
            open_review(run_folder, public=True)


def test_a_line_cut_off_by_a_kill_is_no_line(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "review.jsonl")
    trail.decide("a", "accept")
    with trail.path.open("a") as file:
        file.write('{"event": "deci')
    assert list(trail.current()) == ["a"]
    # Nor does it swallow the one that comes next.
    trail.decide("b", "accept")
    assert list(trail.current()) == ["a", "b"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_closing_the_command_closes_the_page(run_folder: Path, name: str) -> None:
    # Ctrl-C is ignored from the start in the background of a shell.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); from rpsg.cli import main; "
        "sys.argv = ['rpsg', 'review', *sys.argv[1:]]; main()"
    )
    command = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(run_folder), "--public"], stdout=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    try:
        lines = [command.stdout.readline(), command.stdout.readline()]
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", lines[1])[0])
        connection = http.client.HTTPConnection(HOST, port, timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 403
        connection.close()
        command.send_signal(getattr(signal, name))
        rest, _ = command.communicate(timeout=60)
    finally:
        command.kill()
        command.wait()
    assert command.returncode == 0 and "0 of 24 texts decided" in rest
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=10).close()
