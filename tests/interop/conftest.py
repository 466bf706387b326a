"""An HTTP server shared by the tests of other vendors' clients, without the developer's settings."""

import os
from collections.abc import Iterator

import pytest

from tests.interop.driver import SERVE
from tests.server.processes import Served, serve_http


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return an environment without the developer's settings, logins and caches."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("ITWIN_", "ITP_")):
                patch.delenv(name)
        patch.setenv("ITWIN_MCP_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        patch.setenv("ITWIN_MCP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield dict(os.environ)


@pytest.fixture(scope="session")
def served(environment: dict[str, str]) -> Iterator[Served]:
    with serve_http(*SERVE, environment=environment) as served:
        yield served
