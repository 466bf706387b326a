"""Tools that the hints of errors mention."""

import inspect
import os
import re

from itwin_mcp.runtime import read_catalog
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream import hints
from itwin_mcp.upstream.sign_in import credential_choice


def test_hints_name_only_existing_tools() -> None:
    catalog = read_catalog(read_settings(os.environ | {"ITWIN_CLIENT_ID": "native-x"}, toolsets="all"))
    declared = "".join(hint for entity in catalog.entities.values() for hint in entity.refusals.values())
    source = inspect.getsource(hints) + inspect.getsource(credential_choice) + declared
    named = set(re.findall(r"[\"`]((?:list|get|find|sign|who|update)-[a-z-]+)[\"`]", source))
    assert {"sign-in", "list-changesets", "update-named-version"} <= named
    assert named - catalog.tools.keys() == set()
