"""Browser tabs as the page makes them: polls at the beat of the server's clock, by raw HTTP.

usage: python -m benchmarks.viewers_client PORT COUNT
Lines ``on`` and ``off`` on standard input begin and end looking; each is answered with the number
of answers so far.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import sys

SPREAD_SECONDS = 0.15
HEADERS = """Host: 127.0.0.1:{port}
Connection: keep-alive
sec-ch-ua-platform: "Linux"
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120
sec-ch-ua: "Chromium";v="120"
sec-ch-ua-mobile: ?0
Accept: */*
Sec-Fetch-Site: same-origin
Sec-Fetch-Mode: cors
Sec-Fetch-Dest: empty
Referer: http://127.0.0.1:{port}/
Accept-Encoding: gzip, deflate, br
Accept-Language: en-US,en;q=0.9
Cache-Control: no-cache
Pragma: no-cache
"""


class Viewer:
    """One visible tab."""

    answers = 0
    looking = False

    def __init__(self, port: int) -> None:
        self._port = port
        self._etag = ""
        self._cursor = ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def _ask(self, path: str, etag: str = "") -> tuple[int, bytes, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = f"GET {path} HTTP/1.1\n{HEADERS.format(port=self._port)}"
        lines += f"If-None-Match: {etag}\n\n" if etag else "\n"
        writer.write(lines.replace("\n", "\r\n").encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        Viewer.answers += 1
        return int(head[9:12]), head, gzip.decompress(body) if b"gzip" in head else body

    async def poll(self) -> float:
        """One poll; the server's time."""
        since = f"since={self._cursor}" if self._cursor else ""
        status, head, body = await self._ask(f"/api/v1/state?{since}", self._etag)
        if status == 200:
            answer = json.loads(body)
            self._etag = _header(head, "etag")
            history = answer.get("history")
            if history is None:
                key = answer["run"]["key"]
                _, _, body = await self._ask(f"/api/v1/history?run={key}&since={self._cursor}")
                history = json.loads(body)
            self._cursor = history["cursor"]
        return float(_header(head, "esper-now"))

    async def live(self) -> None:
        """Poll each second while looking."""
        while True:
            pause = 0.1
            if Viewer.looking:
                try:
                    now = await self.poll()
                    pause = 1 - now % 1 + random.random() * SPREAD_SECONDS
                except (OSError, asyncio.IncompleteReadError):
                    self._streams = None  # idle for too long
            await asyncio.sleep(pause)


def _header(head: bytes, name: str) -> str:
    found = re.search(rb"\r\n" + name.encode() + rb": (\S+)", head)
    return "" if found is None else found[1].decode()


async def main(port: int, count: int) -> None:
    viewers = [asyncio.create_task(Viewer(port).live()) for _ in range(count)]
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        Viewer.looking = line.strip() == "on"
        print(Viewer.answers, flush=True)
    for viewer in viewers:
        viewer.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
