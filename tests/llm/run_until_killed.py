"""A run whose writer is on a server, in a process of its own: python run_until_killed.py FOLDER URL."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

from rpsg import pipeline, rundir
from rpsg.config import RunConfig
from rpsg.data import sample_path

sys.path.insert(0, str(Path(__file__).parents[1]))
from keyed_noise import KeyedNoise


def main(folder: str, url: str) -> None:
    # The run's random id is the only thing on the card that differs from run to run.
    rundir.secrets = SimpleNamespace(token_hex=lambda n: "0" * 2 * n)  # type: ignore[assignment]
    # Two folders of one id are copies of one run: the user's state would refuse the second's ledger.
    os.environ["XDG_STATE_HOME"] = f"{Path(folder).absolute()}.state"
    config = RunConfig.parse(
        {
            "guarantee": "end-to-end",
            "epsilon": 8,
            "n": 30,
            "n_units_bound": 500,
            "data": {"path": str(sample_path("posts_train.jsonl"))},
            "models": {"write": "own:m", "embed": "hash", "sentiment": None},
            "endpoints": {"own": {"base_url": url}},
            "vote": {"rounds": 3},
            "refine": {"pii": {"enabled": False}, "nll": {"enabled": False}},
            "evaluate": {"enabled": False},
            "calling": {"max_concurrency": 8},
            "output": {"folder": folder},
        }
    )
    pipeline.run(config, pipeline.load_corpus(config), noise=KeyedNoise())


if __name__ == "__main__":
    main(*sys.argv[1:])
