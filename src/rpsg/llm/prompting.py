"""Prompts as text files, and a summariser made of a text model and a prompt.

A prompt folder holds `abstract.txt`, `write.txt`, `rewrite.txt`, `public.txt` and `keys.txt` (turns marked
`[system]`, `[user]`, `[assistant]`; `{name}` is filled in), and `openers.txt` (one way to begin a line). The
method `augpe` needs `random.txt`, `fill.txt`, `roles.txt` and `keywords.txt` (one a line) beside them, and
end-to-end runs use all of these but `fill.txt` where they are there; the method `dpsgd` needs `control.txt`,
the method `rupta` `giveaways.txt`, `generalise.txt` and `restore.txt`.
A last `[assistant]` turn is the beginning of the reply. Private text, as in `abstract.txt`, stands between
marks that no text can hold, see `rpsg.text.defuse`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast

from rpsg.changes import packaged_prompts
from rpsg.config import SamplingConfig
from rpsg.errors import ConfigError
from rpsg.rng import Streams
from rpsg.text import defuse
from rpsg.types import Completion, Message, TextModel, TextRequest, Trust

PromptName = Literal[
    "abstract",
    "write",
    "rewrite",
    "public",
    "keys",
    "random",
    "fill",
    "control",
    "giveaways",
    "generalise",
    "restore",
]
_TURN = re.compile(r"^\[(system|user|assistant)\][ \t]*$", re.MULTILINE)
_FIELD = re.compile(r"\{(\w+)\}")
_GAPS = frozenset({"text", "summary", "labels", "tone", "words", "opener"})
# What else the prompts of some steps are filled with.
_OWN_GAPS: Mapping[PromptName, frozenset[str]] = {
    "abstract": frozenset({"text", "hint"}),
    "random": _GAPS | {"role", "keyword"},
    "control": frozenset({"labels"}),
    "giveaways": frozenset({"text"}),
    "generalise": frozenset({"text", "giveaways", "memory"}),
    "restore": frozenset({"text", "labels", "memory"}),
}
_READ_PRIVATE: frozenset[PromptName] = frozenset({"abstract", "giveaways", "generalise", "restore"})
_DELIMITED = re.compile(r"<(post|abstract|text)>\s*\{text\}\s*</\1>")
# What the summariser is told of a tone: words of ours outside the marks, never part of the private text.
_HINTS = {tone: f"Keep the {tone} tone. " for tone in ("positive", "negative")}
# A chat model's words to a token, and the part of its context that a source text may fill.
_WORDS_PER_TOKEN = 0.6
_SOURCE_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Turns with named gaps."""

    turns: tuple[Message, ...]

    @property
    def fields(self) -> frozenset[str]:
        """Names of the gaps."""
        return frozenset(name for turn in self.turns for name in _FIELD.findall(turn.content))

    def fill(self, values: Mapping[str, str]) -> tuple[Message, ...]:
        """Returns the turns with the gaps filled.

        Filled-in text is never itself searched for gaps, and holds nothing that ends a turn.
        """
        safe = {name: defuse(value) for name, value in values.items()}
        return tuple(
            replace(turn, content=_FIELD.sub(lambda gap: safe[gap[1]], turn.content)) for turn in self.turns
        )


def load_prompt(folder: str, name: PromptName) -> Prompt:
    """Reads a prompt from a folder of the package or of the user.

    Raises:
        ConfigError: there is no such folder or file, it is not a prompt, it has a gap that nothing fills, or
            private text would stand in it without marks.
    """
    text = _read(folder, f"{name}.txt")
    before, *parts = _TURN.split(text)
    if not parts or before.strip():
        raise ConfigError(
            f"prompt {folder}/{name}.txt has no turn at its beginning; begin with a line [user]"
        )
    pairs = zip(parts[::2], parts[1::2], strict=True)
    roles = cast("list[tuple[Literal['system', 'user', 'assistant'], str]]", list(pairs))
    prompt = Prompt(turns=tuple(Message(role=role, content=content.strip()) for role, content in roles))
    known = _OWN_GAPS.get(name, _GAPS)
    if prompt.fields - known:
        raise ConfigError(
            f"prompt {folder}/{name}.txt: nothing is filled in for {{{min(prompt.fields - known)}}}; "
            f"known here: {', '.join(f'{{{gap}}}' for gap in sorted(known))}"
        )
    if name in _READ_PRIVATE:
        _require_marks(prompt, f"{folder}/{name}.txt")
    return prompt


def _require_marks(prompt: Prompt, file: str) -> None:
    whole = "\n".join(turn.content for turn in prompt.turns)
    if not whole.count("{text}") or whole.count("{text}") > len(_DELIMITED.findall(whole)):
        raise ConfigError(
            f"prompt {file}: write <post> before and </post> after {{text}} (or abstract, "
            "text), and that what stands between is data: a private text may hold orders to a model"
        )


def roles_and_keywords(folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reads who writes such texts and what about, by what is public: what `random.txt` is filled with.

    Raises:
        ConfigError: one of the three files is missing, or a list is empty.
    """
    load_prompt(folder, "random")
    roles, keywords = (load_lines(folder, f"{name}.txt") for name in ("roles", "keywords"))
    for name, found in (("roles", roles), ("keywords", keywords)):
        if not found:
            raise ConfigError(f"prompt file {folder}/{name}.txt is empty; write one a line")
    return roles, keywords


def has_roles(folder: str) -> bool:
    """Tells whether a prompt folder has public roles and keywords.

    Raises:
        ConfigError: it has one of the three files that this takes, and not all.
    """
    try:
        roles_and_keywords(folder)
    except ConfigError:
        if any((Path(folder) / f"{name}.txt").exists() for name in ("random", "roles", "keywords")):
            raise
        return False
    return True


def load_lines(folder: str, name: str) -> tuple[str, ...]:
    """Reads a list, one entry a line."""
    return tuple(line.strip() for line in _read(folder, name).splitlines() if line.strip())


def _read(folder: str, file: str) -> str:
    try:
        if folder in packaged_prompts():
            return files("rpsg").joinpath("prompts", folder, file).read_text(encoding="utf-8")
        # Some editors put a mark before the first line, which would hide that it begins a turn.
        return (Path(folder) / file).read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, IsADirectoryError, PermissionError) as error:
        what = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError(f"prompt {folder}/{file}: {what}; save it as a text file in UTF-8") from None
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"no prompt file {file} in {folder!r}; use one of {', '.join(packaged_prompts())}, "
            "or the path of a folder that holds it"
        ) from None


class PromptedSummariser:
    """Summaries by a text model that is told how.

    Args:
        model: writes the summaries; must be local, because it reads private text.
        prompt: has the gap `text`, and may have `hint`, where the tone to keep is named.
        sampling: how tokens are drawn.
        max_tokens: longest summary.
    """

    def __init__(
        self, model: TextModel, prompt: Prompt, *, sampling: SamplingConfig, max_tokens: int
    ) -> None:
        self._model = model
        self._prompt = prompt
        self._sampling = sampling
        self._max_tokens = max_tokens

    @property
    def name(self) -> str:
        """The text model's name."""
        return self._model.name

    @property
    def trust(self) -> Trust:
        """The text model's trust."""
        return self._model.trust

    @property
    def writer(self) -> TextModel:
        """The text model that writes the summaries."""
        return self._model

    @property
    def max_words(self) -> int:
        """Longest source text in words; longer ones are summarised in parts."""
        return int(self._model.context_tokens * _WORDS_PER_TOKEN * _SOURCE_SHARE)

    def summarise(
        self, texts: Sequence[str], *, n: int, seeds: Sequence[int], tones: Sequence[str]
    ) -> list[list[Completion]]:
        """Writes `n` summaries a text; only a tone that is not neutral is asked for."""
        requests = [
            TextRequest(
                messages=self._prompt.fill({"text": text, "hint": _HINTS.get(tone, "")}),
                content="private",
                max_tokens=self._max_tokens,
                temperature=self._sampling.temperature,
                top_k=self._sampling.top_k,
                top_p=self._sampling.top_p,
                seed=Streams(seed).key("summary", i),
            )
            for text, seed, tone in zip(texts, seeds, tones, strict=True)
            for i in range(n)
        ]
        replies = self._model.complete(requests)
        return [replies[i * n : (i + 1) * n] for i in range(len(texts))]
