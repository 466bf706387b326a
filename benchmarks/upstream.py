"""A stand-in for the platform that answers `GET /imodels/{id}` and `GET /imodels` with prepared bytes.

It prints its address as the first line of its output.
"""

import asyncio
import json

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


class PlatformProtocol(asyncio.Protocol):
    """Answers each complete request. It expects only GET requests, which have no body."""

    def __init__(self) -> None:
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self._read = (self._read + data).split(b"\r\n\r\n")
        for head in heads:
            path = head.split(b" ", 2)[1].split(b"?")[0].rstrip(b"/")
            kind, _, identity = path.removeprefix(b"/").partition(b"/")
            assert kind == b"imodels", path
            self._transport.write(IMODEL.replace(ID.encode(), identity) if identity else IMODELS)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(PlatformProtocol, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
