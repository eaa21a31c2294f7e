"""Requests to the host for what only it can do: plug memory into this machine and unplug it."""

import json
import os

_PORT = "/dev/vport0p2"


def request(what: str, **more: object) -> None:
    """Send a request and wait until it is done; raise RuntimeError with the host's reason if it fails."""
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
