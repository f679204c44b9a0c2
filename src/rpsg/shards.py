"""Shards of an end-to-end run: several machines embed the private texts, one of them finishes the run.

    rpsg run CONFIG -o RUN_FOLDER --shard 1/4      and 2/4, 3/4, 4/4, wherever the folder can be seen
    rpsg merge RUN_FOLDER

A shard embeds the texts of its own units, each by itself, so the vectors do not depend on the number of
shards. It opens no ledger and draws no noise: contributions are clipped by unit, summed and released once, by
the run that goes on from the shards.
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Self

from rpsg import data
from rpsg.config import RunConfig
from rpsg.errors import ConfigError, RunDirError
from rpsg.executor import embed_singly
from rpsg.loading import Closeable, OnProgress, check_trust, load_embedder, with_device
from rpsg.plan_keys import plan_keys
from rpsg.rundir import RunDir
from rpsg.stored import take, units_of
from rpsg.types import PrivateCorpus, PrivateRecord, Progress
from rpsg.vectors import VectorStore

_SHARD = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")
_FOLDER = re.compile(r"([0-9]+)-of-([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One part of the units.

    Attributes:
        number: from 1 on.
        of: number of shards.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "2/4".

        Raises:
            ConfigError: it is no such pair.
        """
        found = _SHARD.fullmatch(text)
        if found is None or int(found[1]) > int(found[2]):
            raise ConfigError(f"--shard {text}: write NUMBER/OF, such as 2/4; numbers go from 1 to OF")
        return cls(number=int(found[1]), of=int(found[2]))

    @property
    def name(self) -> str:
        """Names its folder."""
        return f"{self.number}-of-{self.of}"

    def select(self, records: Sequence[PrivateRecord]) -> Sequence[PrivateRecord]:
        """Returns the records of this shard's units, in input order; no two shards share a unit."""
        return take(records, [i for i, unit in enumerate(units_of(records)) if self._owns(unit)])

    def _owns(self, unit: str) -> bool:
        number = int.from_bytes(blake2b(unit.encode(), digest_size=8).digest())
        return number % self.of == self.number - 1


def run_shard(config: RunConfig, corpus: PrivateCorpus, shard: Shard, *, on_progress: OnProgress) -> int:
    """Embeds one shard's private texts; a shard that was stopped goes on, a finished one is left as it is.

    Args:
        config: of the run; the same for every shard.
        corpus: the whole private data set.
        shard: which part.
        on_progress: told after every block of texts.

    Returns:
        The number of records of the shard.

    Raises:
        ConfigError: the run releases nothing of the texts, or its folder is not named.
        RunDirError: the folder holds another run, or another process works on the shard.
        PrivateDataError: the embedder is remote.
    """
    if config.output.folder is None:
        raise ConfigError("--shard: name the run folder that all shards share with -o")
    if config.guarantee != "end-to-end":
        raise ConfigError(f"--shard: shards are for guarantee end-to-end, not {config.guarantee}")
    planned = plan_keys(config, has_labels=bool(corpus.label_columns))
    if not planned.releases():
        raise ConfigError("--shard: with epsilon 0 no private text is read, so there is nothing to share out")
    check_trust(config)
    config = with_device(config)
    folder = RunDir.create(
        Path(str(config.output.folder)),
        config,
        fingerprint=data.fingerprint(corpus),
        public=planned.material.sha256 if planned.material is not None else "",
    )
    records = shard.select(corpus.records)
    with folder.working_on_shard(shard.name), ExitStack() as opened:
        if not folder.is_shard_done(shard.name):
            embedder = load_embedder(config)
            if isinstance(embedder, Closeable):
                opened.enter_context(closing(embedder))
            VectorStore(folder.shard(shard.name) / "embeddings", model=embedder.name).embed(
                (record.text for record in records),
                lambda texts: embed_singly(embedder.embed, texts),
                on_block=lambda done: on_progress(
                    Progress(stage=f"shard {shard.number} of {shard.of}", done=done, total=len(records))
                ),
            )
            folder.mark_shard(shard.name)
    return len(records)


def check_complete(folder: RunDir) -> None:
    """Refuses to merge before every shard is finished.

    Raises:
        RunDirError: there are no shards, shards of two splits, or unfinished ones.
    """
    found = [_FOLDER.fullmatch(name) for name in folder.shard_names()]
    splits = {int(pair[2]) for pair in found if pair}
    how = f"rpsg run CONFIG -o {folder.root} --shard NUMBER/OF"
    if not splits:
        raise RunDirError(f"{folder.root} has no shards; start each with: {how}")
    if len(splits) > 1:
        of_each = " and of ".join(map(str, sorted(splits)))
        raise RunDirError(
            f"{folder.root} has shards of {of_each}; finish the run from those that are done with: "
            f"rpsg resume {folder.root}"
        )
    (of,) = splits
    waiting = [i for i in range(1, of + 1) if not folder.is_shard_done(Shard(number=i, of=of).name)]
    if waiting:
        shown = ", ".join(map(str, waiting[:10])) + (", ..." if len(waiting) > 10 else "")
        raise RunDirError(
            f"{len(waiting)} of {of} shards are not finished: {shown}; start each with: {how}, or embed the "
            f"rest here with: rpsg resume {folder.root}"
        )
