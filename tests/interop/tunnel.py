"""A local proxy that counts the bytes a program downloads."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_PATIENCE = 120  # seconds without a byte


@dataclass
class Tunnel:
    """A running proxy: its address, and the bytes received from each host."""

    url: str
    received: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, host: str, number: int) -> None:
        with self.lock:
            self.received[host] = self.received.get(host, 0) + number


@contextmanager
def counting_tunnel() -> Iterator[Tunnel]:
    """Listen until the block ends. Only CONNECT is supported, so the traffic stays encrypted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tunnel = Tunnel(f"http://127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=_accept, args=(listener, tunnel), daemon=True).start()
        try:
            yield tunnel
        finally:
            # A thread that waits in accept does not see a close; a shutdown wakes it.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, tunnel: Tunnel) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, tunnel), daemon=True).start()


def _serve(client: socket.socket, tunnel: Tunnel) -> None:
    with client, suppress(OSError):
        client.settimeout(_PATIENCE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        method, target, _ = head.split(b" ", 2)
        assert method == b"CONNECT", head
        host, _, port = target.decode().rpartition(":")
        with socket.create_connection((host, int(port)), _PATIENCE) as server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            while data := server.recv(65536):
                tunnel.count(host, len(data))
                client.sendall(data)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
