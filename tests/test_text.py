import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpsg.data import read_corpus, sample_path
from rpsg.text import (
    WordRuns,
    flaw_of,
    is_repetitive,
    reveal,
    split_into_parts,
    strip_wrapping,
    trim_loops,
    trim_to_sentences,
    words_of,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two is cut", "One is here."),
        ("She saw Dr. Hall", ""),
        ("She saw Dr. Hall yesterday. Then", "She saw Dr. Hall yesterday."),
        ('He said "stop." And', 'He said "stop."'),
        ("no end at all", ""),
        ("The dose was 2.5 mg and rose", ""),
        ("Why?! I asked", "Why?!"),
    ],
)
def test_trim_to_sentences(text: str, expected: str) -> None:
    assert trim_to_sentences(text) == expected


@given(st.text(alphabet="ab .\n!?", max_size=200), st.integers(1, 9))
def test_parts_lose_no_word_and_keep_the_limit(text: str, limit: int) -> None:
    parts = split_into_parts(text, limit)
    assert " ".join(parts).split() == text.split()
    if len(text.split()) > limit:
        assert all(0 < len(part.split()) <= limit for part in parts)


def test_a_text_is_cut_before_it_goes_in_circles() -> None:
    begun = "We gave the drug to forty rats. Half of them recovered within a week. "
    assert trim_loops(begun + "The drug was safe. " * 6) == (begun + "The drug was safe. " * 2).strip()
    assert trim_loops(begun) == begun
    # From the first sentence on: nothing to keep, and what is wrong with it is said.
    whole = "the drug was safe and " * 9 + "cheap."
    assert trim_loops(whole) == whole and flaw_of(whole, min_words=8) == "repetition"


def test_a_long_reply_is_cut_in_one_pass() -> None:
    began = time.process_time()
    for text in ("The drug was safe. " * 16_000, "no. " * 50_000, " Dr." * 50_000, "a b c d e " * 20_000):
        assert len(trim_loops(trim_to_sentences(text)).split()) <= 20
    assert time.process_time() - began < 10


def test_real_texts_are_not_taken_for_loops() -> None:
    for name, most in (("pubmed_train.jsonl", 0.07), ("posts_train.jsonl", 0.0)):
        texts = [record.text for record in read_corpus(sample_path(name)).records]
        assert sum(is_repetitive(words_of(text)) for text in texts) <= most * len(texts)


def test_parts_end_at_sentences() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten eleven twelve."
    assert split_into_parts(text, 6) == [
        "One two three. Four five six.",
        "Seven eight nine. Ten eleven twelve.",
    ]


def test_word_runs_ignore_case_and_punctuation() -> None:
    runs = WordRuns.build(["The quick, brown fox jumps over the lazy dog"], 4)
    assert runs.shared_with("a QUICK brown fox jumps!")
    assert not runs.shared_with("quick brown dog jumps over lazy the")


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("", "empty"),
        ("Too short.", "too short"),
        ("Here is the rewritten text you asked for, in the first person.", "meta text"),
        ("I went to [insert name] to ask about the rent and they said no.", "meta text"),
        ("My apologies, but I'm unable to assist with the post you requested.", "meta text"),
        ("Dear [Customer's Name], I write about the parcel that never came.", "meta text"),
        ("This is a touching story, as you will find when you read on.", "meta text"),
        ("This is a great summary of what happened to us in the shelter.", "meta text"),
        ("You have come to the end of the story, and it was a good one.", "meta text"),
        ("For this post, make it in a nice style with bold words in it.", "meta text"),
        ("The writer's dream is nothing but a memory of amazing dreams.", "meta text"),
        ("I told my story and the post office lost it, so this is it.", None),
        ("I was born on [DATE_OF_BIRTH] and moved to [LOCATION] last year.", None),
        ("I lost my job and then the car broke down and", "cut off"),
        ("I am sad today. I am sad today. I am sad today. I am sad today.", "repetition"),
        ("Here we go again: the landlord raised the rent and I cannot pay.", None),
        ("I posted here before about the rent, and it went up once more.", None),
        ("p < 0.05 was considered significant, and the mean dose was higher.", None),
    ],
)
def test_flaws(text: str, flaw: str | None) -> None:
    assert flaw_of(text, min_words=5) == flaw


def test_strip_wrapping() -> None:
    assert strip_wrapping('Title: My rent\n\n"I lost it."') == "I lost it."
    assert strip_wrapping('"Stop," he said, "or else."') == '"Stop," he said, "or else."'


@pytest.mark.parametrize(
    "code",
    [0x00, 0x1B, 0x7F, 0x85, 0x9B, 0xAD, 0x34F, 0x200B, 0x202E, 0x2028, 0x3164, 0xFFF9, 0xE0041, 0xE0100],
)
def test_what_has_no_shape_is_shown_by_name(code: int) -> None:
    assert reveal(f"a{chr(code)}b") == f"a\u27e8U+{code:04X}\u27e9b"


def test_what_scripts_and_emoji_need_is_left_alone() -> None:
    text = "tab\tline\n 👩\u200d👩\u200d👧 ❤\ufe0f می\u200cخواهم Zürich 한국어 \ufffd"
    assert reveal(text) == text
