"""llama.cpp in this process, and its own server behind the client for servers."""

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import xllamacpp

from rpsg import pipeline, registry
from rpsg.config import RunConfig
from rpsg.data import sample_path
from rpsg.errors import ConfigError, MissingExtra, ModelUnavailable
from rpsg.llm.catalogue import EMBEDDED
from rpsg.llm.llamacpp import LlamaCppTextModel
from rpsg.llm.models import _folder
from rpsg.rundir import RunDir
from rpsg.runstate import read_state
from rpsg.text import WordRuns
from rpsg.types import Message, TextRequest


@pytest.fixture(scope="module")
def file() -> Path:
    model = EMBEDDED["smollm2-135m-instruct"]
    return _folder(model) / model.main_file


def ask(n: int, *, begun: str = "", max_tokens: int = 24) -> list[TextRequest]:
    last = (Message(role="assistant", content=begun),) if begun else ()
    return [
        TextRequest(
            messages=(Message(role="user", content=f"Say something about the {thing}."), *last),
            content="private",
            max_tokens=max_tokens,
            temperature=0.7,
            seed=i,
        )
        for i, thing in enumerate(["rent", "heating", "landlord", "deposit"][:n])
    ]


def test_a_gguf_file_writes_in_this_process(file: Path) -> None:
    model = registry.text_model(f"llamacpp:{file}")
    assert (model.name, model.trust) == (file.name, "local")
    replies = model.complete(ask(4))
    assert all(reply.text.strip() and reply.n_tokens and reply.n_tokens <= 24 for reply in replies)
    assert len({reply.text for reply in replies}) == 4
    assert [reply.text for reply in model.complete(ask(4))] == [reply.text for reply in replies]


def test_a_begun_reply_is_continued_and_given_back_whole(file: Path) -> None:
    (reply,) = registry.text_model(str(file)).complete(ask(1, begun="The author"))
    assert reply.text.startswith("The author") and not reply.text.startswith("The authorThe")
    assert len(reply.text.split()) > 4


def test_it_opens_no_port_and_its_socket_goes_with_it(file: Path) -> None:
    model = LlamaCppTextModel.load(file, name="m")
    address = urlsplit(model._server.listening_address)
    assert address.scheme == "unix" and Path(address.path).parent.stat().st_mode & 0o077 == 0
    model.close()
    assert not Path(address.path).parent.exists()


def test_a_prompt_that_does_not_fit_is_a_rejected_reply(file: Path) -> None:
    request = TextRequest(
        messages=(Message(role="user", content="word " * 9000),), content="private", max_tokens=9, seed=1
    )
    (reply,) = registry.text_model(str(file)).complete([request])
    assert (reply.finish, reply.reason, reply.text) == ("rejected", "context too long", "")


def test_what_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelUnavailable, match="there is no model file"):
        registry.text_model("llamacpp:nowhere.gguf")
    (tmp_path / "bad.gguf").write_text("not a model")
    with pytest.raises(ModelUnavailable, match="is it a GGUF text model"):
        registry.text_model(str(tmp_path / "bad.gguf"))
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtra, match=r"rpsg\[llamacpp\]"):
        registry.text_model("llamacpp:nowhere.gguf")
    with pytest.raises(ConfigError, match="llamacpp"):
        registry.text_model("lamacpp:nowhere.gguf")


@pytest.mark.parametrize("n", [3, pytest.param(100, marks=pytest.mark.prove)])
def test_llamacpps_own_server_is_driven_end_to_end(
    n: int, file: Path, tmp_path: Path, record_proof: Callable[..., None]
) -> None:
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_parallel, settings.n_ctx, settings.verbosity = 8, 8 * 2048, -1
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    server = xllamacpp.Server(settings)
    config = RunConfig.parse(
        {
            "guarantee": "end-to-end",
            "epsilon": 8,
            "n": n,
            "n_units_bound": 250,
            "data": {"path": str(sample_path("posts_train.jsonl"))},
            "models": {"write": "llama-server:smollm2"},
            "endpoints": {
                "llama-server": {"base_url": f"{server.listening_address}/v1", "context_tokens": 2048}
            },
            "calling": {"max_concurrency": 8},
            "write": {"max_length": 60},
            "output": {"folder": str(tmp_path / "run")},
        }
    )
    corpus = pipeline.load_corpus(config)
    result = pipeline.run(config, corpus)
    del server
    state = read_state(tmp_path / "run")
    assert len(result.texts) == n and state.state == "finished"
    assert {item.content for item in state.sent} <= {"public", "released"}
    assert state.n_tokens > 0 and {item.host for item in state.sent} == {"127.0.0.1"}
    private = WordRuns.build([record.text for record in corpus.records], 6)
    with closing(sqlite3.connect(RunDir(tmp_path / "run").calls)) as db:
        replies = [json.loads(row[0]) for row in db.execute("SELECT reply FROM calls")]
    rejected = sum(reply["finish"] == "rejected" for reply in replies)
    copied = sum(bool(private.shared_with(text.text)) for text in result.texts)
    if n == 100:
        figures = {
            "texts": n,
            "calls": len(replies),
            "rejected replies": rejected,
            "texts with a 6-word run of private text": copied,
            "seconds": round(result.counts["seconds"], 1),
        }
        record_proof("llama.cpp's own server", figures, missed=[])
    assert rejected == 0
