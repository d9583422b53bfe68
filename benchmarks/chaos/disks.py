"""Small disks that can be filled: a tmpfs each, which needs root."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

FILLER = "filler"
BLOCK = bytes(65536)


class Disk:
    """A tmpfs of ``megabytes`` at ``path``."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        path.mkdir(mode=0o700)
        options = f"size={megabytes}m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        file = os.open(self.path / FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            for size in (len(BLOCK), 1):
                try:
                    while os.write(file, BLOCK[:size]):
                        pass
                except OSError as problem:
                    if problem.errno != errno.ENOSPC:
                        raise
        finally:
            os.close(file)

    def free(self) -> None:
        """Give the space back."""
        (self.path / FILLER).unlink()

    def close(self) -> None:
        """Remove the disk with all that is on it."""
        subprocess.run(["umount", self.path], check=True)
