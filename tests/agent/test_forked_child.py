"""A child forked from a training shares its own page."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest

PROGRAM = """
import logging, os, sys
from pathlib import Path

from esper_exporter import Exporter
from esper_exporter.agent.page_file import PageReader

logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
share = Path(sys.argv[1])
exporter = Exporter(
    run_id="night", share=share, port="off", state_dir="off", gpu_vitals="off", host_vitals="off"
)
exporter.start()
child = os.fork()
if child == 0:
    if sys.argv[2] == "starts":
        exporter.start()
    else:
        exporter.keep()
    for page in sorted(share.glob("[0-9]*/page")):
        whose = "child" if page.parent.name.startswith(f"{os.getpid()}-") else "parent"
        socket = (page.parent / "http.sock").exists()
        whole = PageReader(page, frozenset({os.getuid()})).read() is not None
        print(whose, whole, socket, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
exporter.close()
"""


@pytest.mark.parametrize(
    ("child", "pages"),
    [("starts", {"child True True", "parent True True"}), ("is quiet", {"parent True True"})],
)
def test_a_forked_child_opens_its_own_page_and_socket_once_it_starts(
    child: str, pages: set[str]
) -> None:
    # pytest's own folders may have a path that is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="esper-") as folder:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, f"{folder}/share", child],
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0
    assert set(done.stdout.splitlines()) == pages
