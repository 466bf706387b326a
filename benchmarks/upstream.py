"""A stand-in for the platform that answers `GET /imodels/{id}` and `GET /imodels` with prepared bytes.

It prints its address as the first line of its output. `upstream.py 50` waits 50 ms before each answer.
"""

import asyncio
import json
import sys

ID = "00000000-0000-4000-8000-000000000000"


def make_imodel(identity: str) -> dict:
    user = "42101fe4-e4f2-4cc3-8f29-cb5c3a7d2e2f"
    here = f"https://api.bentley.com/imodels/{identity}"
    links = ("namedVersions", "changesets", "users", "permissions")
    return {
        "id": identity,
        "displayName": "Harbour bridge",
        "name": "Harbour bridge",
        "description": "Superstructure, piers and approach spans of the bridge over the harbour",
        "state": "initialized",
        "createdDateTime": "2026-01-20T10:51:33.1700000Z",
        "lastChangesetPushDateTime": "2026-08-20T10:51:33.1700000Z",
        "iTwinId": "dc914a84-e0c9-40e2-9d14-faf5ed84147f",
        "dataCenterLocation": "East US",
        "isSecured": True,
        "containersEnabled": 0,
        "extent": {
            "southWest": {"latitude": 46.13, "longitude": 7.67},
            "northEast": {"latitude": 46.30, "longitude": 7.83},
        },
        "_links": {
            "creator": {"href": f"{here}/users/{user}"},
            **{name: {"href": f"{here}/{name.lower()}"} for name in links},
        },
    }


def encode_response(body: dict) -> bytes:
    data = json.dumps(body, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


IMODEL = encode_response({"iModel": make_imodel(ID)})
IMODELS = encode_response(
    {"iModels": [make_imodel(ID) for _ in range(50)], "_links": {"self": None, "prev": None, "next": None}}
)


USERS = encode_response({"users": []})
DELAY_SECONDS = int(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0


class PlatformProtocol(asyncio.Protocol):
    """Answers each complete request. The bodies of POST requests (`/users/getbyidlist`) are skipped."""

    def __init__(self) -> None:
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while b"\r\n\r\n" in self._read:
            head, _, rest = self._read.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(rest) < length:
                return
            self._read = rest[length:]
            path = head.split(b" ", 2)[1].split(b"?")[0].rstrip(b"/")
            kind, _, identity = path.removeprefix(b"/").partition(b"/")
            assert kind in (b"imodels", b"users"), path
            imodels = IMODEL.replace(ID.encode(), identity) if identity else IMODELS
            response = imodels if kind == b"imodels" else USERS
            if DELAY_SECONDS:
                asyncio.get_running_loop().call_later(DELAY_SECONDS, self._transport.write, response)
            else:
                self._transport.write(response)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(PlatformProtocol, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
