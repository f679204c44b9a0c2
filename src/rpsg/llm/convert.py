"""Turns the embedded text model's GGUF file into a folder that loads in a second."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp

from rpsg.errors import ModelUnavailable
from rpsg.llm.quiet import quiet_transformers

_HASHES = "hashes.json"


def convert_gguf(source: Path, target: Path) -> dict[str, str]:
    """Writes bfloat16 safetensors, config, tokenizer and chat template, once.

    Other processes that want the same folder wait. The folder appears whole or not at all.

    Args:
        source: the GGUF file.
        target: the folder to make.

    Returns:
        File name to SHA-256, of the converted files.

    Raises:
        ModelUnavailable: the cache folder cannot be written, or the disk is full.
    """
    if not (target / _HASHES).exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_suffix(".lock")):
                if not (target / _HASHES).exists():
                    _convert(source, target)
        except OSError as error:
            raise ModelUnavailable(
                f"cannot convert {source.name} into {target}: {error.strerror or type(error).__name__}; "
                "free 300 MB there, or name another cache folder in the environment variable RPSG_CACHE_DIR"
            ) from None
    hashes: dict[str, str] = json.loads((target / _HASHES).read_text(encoding="utf-8"))
    return hashes


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert(source: Path, target: Path) -> None:
    work = Path(mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        # The GGUF reader draws a progress bar of its own that no setting switches off.
        with quiet_transformers(), redirect_stderr(StringIO()):
            _save(source, work)
        hashes = {}
        for path in sorted(work.iterdir()):
            with path.open("rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        (work / _HASHES).write_text(json.dumps(hashes, indent=2), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        work.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _save(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
