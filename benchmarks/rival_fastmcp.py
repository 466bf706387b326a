"""A server to compare with: FastMCP over an OpenAPI document of the platform, with the defaults of FastMCP."""

import os
import sys

import httpx2
from document import make_document
from fastmcp import FastMCP

base_url = os.environ["ITWIN_API_URL"]
client = httpx2.AsyncClient(base_url=base_url, headers={"Authorization": "Bearer x"}, timeout=30)
server = FastMCP.from_openapi(make_document(base_url), client=client, name="itwin")
if sys.argv[1] == "stdio":
    server.run(transport="stdio", show_banner=False)
else:
    quiet = {"access_log": False}
    server.run(
        transport="http",
        host="127.0.0.1",
        port=int(sys.argv[1]),
        show_banner=False,
        log_level="warning",
        uvicorn_config=quiet,
    )
