"""Run a server in a network of its own, which nothing outside of it reaches but through one socket file.

`python -m tests.clouds.apart SOCKET PORT PROGRAM…`: for servers that would listen on every address of the machine.
Connections to SOCKET are passed on to PORT of that network's loopback. Needs unshare(1) and ip(8).
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress


def passed(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes, until it ends."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def join(one: socket.socket, other: socket.socket) -> None:
    """Pass on both ways until both end, in a thread."""

    def both() -> None:
        with one, other:
            back = threading.Thread(target=passed, args=(other, one), daemon=True)
            back.start()
            passed(one, other)
            back.join()

    threading.Thread(target=both, daemon=True).start()


def main() -> None:
    """Start the program, wait until it listens, and pass on."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    path, port, *program = sys.argv[1:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(64)
        while True:
            client, _ = listener.accept()
            join(client, socket.create_connection(("127.0.0.1", int(port))))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
