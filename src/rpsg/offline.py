"""No network at all: sockets of this process that would leave the machine's files are refused."""

import os
import socket
import sys
from collections.abc import Sequence

from rpsg.config import RunConfig
from rpsg.endpoints import find_endpoint
from rpsg.errors import ConfigError, PrivacyError

_NAME_LOOKUPS = {
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}
_SENDS = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"}


def refuse_servers(config: RunConfig) -> None:
    """Refuses a configuration that names a model on a server, or workers that are reached by the network.

    Raises:
        ConfigError: it does.
    """
    if config.executor.kind == "ray":
        raise ConfigError(
            "--offline: executor.kind is ray, whose processes talk by sockets; use threads or serial"
        )
    models = config.models.model_dump()
    for task in ("abstract", "write", "embed", "sentiment", "judge"):
        name = models[task]
        if name and find_endpoint(name, config.endpoints) is not None:
            raise ConfigError(
                f"--offline: models.{task} is {name!r}, a model on a server; name an embedded model or a "
                "folder, or leave --offline out"
            )


def forbid_network() -> None:
    """Refuses every network socket and name lookup of this process from now on, for good.

    It watches Python; a native library that opens sockets by itself would not be seen. Those of this
    project do not. Model hubs are told to stay offline as well.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: Sequence[object]) -> None:
    # A socket pair of the same process (AF_UNIX), which event loops use, goes nowhere.
    opens = event == "socket.__new__" and arguments[1] != socket.AF_UNIX
    # One that was opened before.
    sends = event in _SENDS and isinstance(arguments[1], tuple)
    if opens or sends or event in _NAME_LOOKUPS:
        raise PrivacyError("--offline: something tried to use the network, and was kept from it")
