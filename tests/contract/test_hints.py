"""Hints name tools that exist."""

import inspect
import os
import re

from itwin_mcp import sign_in
from itwin_mcp.runtime import read_catalog
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream import hints


def test_every_tool_that_a_hint_names_exists() -> None:
    source = inspect.getsource(hints) + inspect.getsource(sign_in)
    named = set(re.findall(r"[\"`]((?:list|get|find|sign|who)-[a-z-]+)[\"`]", source))
    catalog = read_catalog(read_settings(os.environ | {"ITWIN_CLIENT_ID": "native-x"}, toolsets="all"))
    assert {"sign-in", "list-itwins"} <= named
    assert named - catalog.tools.keys() == set()
