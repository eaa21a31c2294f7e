"""Ask the host for what only it can do: plug memory into this machine and out of it."""

import json
import os

_PORT = "/dev/vport0p2"


def ask(what: str, **more: object) -> None:
    """Ask and wait until it is done; raise RuntimeError with the host's reason if it cannot be."""
    port = os.open(_PORT, os.O_RDWR)
    try:
        os.write(port, json.dumps({"do": what, **more}).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += os.read(port, 4096)
    finally:
        os.close(port)
    if error := json.loads(answer).get("error"):
        raise RuntimeError(f"the host cannot {what}: {error}")
