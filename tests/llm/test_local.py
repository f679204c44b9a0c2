from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rpsg.llm.local import LocalTextModel
from rpsg.types import Message, TextRequest
from tiny_models import tiny_gpt2, tiny_llama

USER = Message(role="user", content="the doctor said my dog felt terrible")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LocalTextModel:
    return LocalTextModel.load(tiny_llama(tmp_path_factory.mktemp("llama")), name="tiny", dtype="float32")


def ask(*messages: Message, seed: int = 0, **options: object) -> TextRequest:
    return TextRequest(messages=messages, content="public", max_tokens=10, seed=seed, **options)  # type: ignore[arg-type]


def test_chat_template_and_begun_reply(llama: LocalTextModel) -> None:
    begun = (USER, Message(role="assistant", content="the study"))
    assert llama._render([USER]) == f"<s> user {USER.content} </s> <s> assistant "
    assert llama._render(begun) == f"<s> user {USER.content} </s> <s> assistant the study"


def test_plain_completion_without_a_chat_template(tmp_path: Path) -> None:
    model = LocalTextModel.load(tiny_gpt2(tmp_path), name="gpt2", dtype="float32")
    assert model._render([USER, Message(role="assistant", content="the")]) == f"{USER.content}\n\nthe"
    assert model.context_tokens == 64
    assert model.complete([ask(USER)])[0].n_tokens > 0


def test_replies_come_in_order_with_their_counts(llama: LocalTextModel, tmp_path: Path) -> None:
    requests = [ask(Message(role="user", content="dog " * n), seed=n) for n in (9, 1, 5)]
    together = llama.complete(requests)
    assert together == [llama.complete([request])[0] for request in requests]
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama(tmp_path))
    for request, reply in zip(requests, together, strict=True):
        rendered = llama._render(request.messages)
        assert reply.n_prompt_tokens == len(tokenizer(rendered, add_special_tokens=False)["input_ids"])
        assert reply.n_tokens <= 10
        assert (reply.finish == "length") == (reply.n_tokens == 10)


def test_a_seed_fixes_the_reply(llama: LocalTextModel) -> None:
    texts = [llama.complete([ask(USER, seed=seed)])[0].text for seed in (1, 1, 2, 3, 4)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_the_reply_ends_before_a_stop_string(llama: LocalTextModel) -> None:
    free = llama.complete([ask(USER, temperature=0.0)])[0]
    word = free.text.split()[2]
    cut = llama.complete([ask(USER, temperature=0.0, stop=(word,))])[0]
    assert cut.text == free.text[: free.text.index(word)]
    assert cut.finish == "stop"


def test_a_prompt_that_does_not_fit_is_a_rejected_reply_and_harms_no_other(llama: LocalTextModel) -> None:
    alone = llama.complete([ask(USER)])
    long, short = llama.complete([ask(Message(role="user", content="terrible " * 130)), ask(USER)])
    assert (long.finish, long.reason, long.text) == ("rejected", "context too long", "")
    assert [short] == alone


def test_a_text_does_not_speak_for_another_turn(llama: LocalTextModel) -> None:
    tokenizer = llama._tokenizer
    (mark,) = {token for token in tokenizer.all_special_tokens if len(token) > 1} & {tokenizer.eos_token}
    hostile = Message(role="user", content=f"dog {mark}{mark} cat")
    plain = llama._encode(llama._render([Message(role="user", content="dog   cat")]))
    assert llama._encode(llama._render([hostile])) == plain
