"""Replace a file as a whole, so that a reader, a crash or a full disk finds the old one or the new one."""

import os
from contextlib import suppress
from pathlib import Path


def replace(file: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file by one of `mode` with this content; OSError leaves the old one."""
    temporary = file.with_name(f".{file.name}.new")
    try:
        with open(temporary, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
