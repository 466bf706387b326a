"""Shortening and cleaning text, and suggesting similar names."""

import pytest

from itwin_mcp.text import clean_text, find_similar, make_printable, shorten, suggest


@pytest.mark.parametrize("length", [79, 80, 81, 500])
def test_shorten_cuts_long_text_with_an_ellipsis(length: int) -> None:
    shortened = shorten("x" * length)
    assert len(shortened) == min(length, 80)
    assert shortened.endswith("…") == (length > 80)


def test_clean_text_strips_invisible_characters_and_shortens() -> None:
    assert clean_text("a\u200bb\u202ec\ufe0f\x07") == "abc"
    assert clean_text("\u200bpiers of the bridge", 6) == "piers…"
    assert clean_text("family 👨‍👩‍👧, می‌خواهم") == "family 👨‍👩‍👧, می‌خواهم"


def test_make_printable_replaces_invisible_characters() -> None:
    assert make_printable("a\nb\u200b") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    assert len(make_printable("\n" * 500)) == 60


def test_suggest_returns_the_similar_name_or_the_first_names() -> None:
    assert suggest(["list-imodels", "get-itwin"], "List_iModels") == "did you mean 'list-imodels'?"
    assert suggest([], "x") == "there are none"
    assert suggest((f"name{number}" for number in range(10)), "zzz").endswith("name7 and 2 more")


def test_find_similar_requires_the_likeness() -> None:
    assert find_similar("ITWIN_MCP_TOOLSET", ["ITWIN_MCP_TOOLSETS"], likeness=0.85) == ["ITWIN_MCP_TOOLSETS"]
    assert find_similar("ITWIN_COLOUR", ["ITWIN_MCP_TOOLSETS"], likeness=0.85) == []
