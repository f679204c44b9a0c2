"""What is missing on this machine."""

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

_PACKAGES = ("torch", "transformers", "opendp", "spacy", "presidio_analyzer", "pyarrow", "pandas")
_MIN_FREE_GB = 1.0
_MIN_MEMORY_GB = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding; `fix` is a command or an instruction."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def examine() -> list[Check]:
    """Looks at Python, packages, models, disk and memory. Loads nothing heavy."""
    return [_python(), *_packages(), _ray(), *_models(), _disk(), _memory(), _processor()]


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check(
        name="Python",
        ok=sys.version_info >= (3, 11),
        found=version,
        fix="install Python 3.11 or newer",
    )


def _packages() -> list[Check]:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    return [
        Check(
            name="packages",
            ok=not missing,
            found=f"missing: {', '.join(missing)}" if missing else f"{len(_PACKAGES)} found",
            fix="pip install --no-deps -r requirements.lock",
        )
    ]


def _ray() -> Check:
    # Optional: its absence is no fault.
    is_there = importlib.util.find_spec("ray") is not None
    missing = 'not installed; for executor: ray, run: pip install "rpsg[ray]"'
    return Check(name="Ray", ok=True, found="found" if is_there else missing)


def _models() -> list[Check]:
    from rpsg.llm.models import list_models

    return [
        Check(
            name=f"model {model.name}",
            ok=model.available,
            found=model.note if not model.available else f"{model.kind}, {model.licence}",
            fix="rpsg models fetch",
        )
        for model in list_models()
        if model.sha256
    ]


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Check(
        name="disk",
        ok=free >= _MIN_FREE_GB,
        found=f"{free:.1f} GB free here",
        fix=f"free {_MIN_FREE_GB:.0f} GB, or name a run folder on another disk with -o",
    )


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return Check(
        name="memory",
        ok=total >= _MIN_MEMORY_GB,
        found=f"{total:.1f} GB",
        fix="use a machine with 4 GB or more, or a smaller generation.chunk_size",
    )


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0))
    flags = Path("/proc/cpuinfo")
    half = flags.exists() and "avx512_bf16" in flags.read_text(encoding="utf-8", errors="replace")
    kind = "bfloat16 arithmetic" if half else "no bfloat16 arithmetic: float32 is used, slower"
    return Check(name="processor", ok=True, found=f"{cores} cores, {kind}")
