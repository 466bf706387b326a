"""Strict YAML, with both parsers of PyYAML."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.capability import strict_yaml
from itwin_mcp.capability.strict_yaml import YamlRefused, parse

LOADERS = [pytest.param(yaml.SafeLoader, id="python")]
if hasattr(yaml, "CSafeLoader"):
    LOADERS.append(pytest.param(yaml.CSafeLoader, id="c"))


@pytest.fixture(params=LOADERS, autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(strict_yaml, "Loader", request.param)
    strict_yaml.find_lines.cache_clear()
    yield request.param
    strict_yaml.find_lines.cache_clear()


def get_refusal(text: str, **bounds: int) -> YamlRefused:
    with pytest.raises(YamlRefused) as caught:
        parse(text, **bounds)
    return caught.value


@pytest.mark.parametrize(
    "word",
    [
        "yes",
        "Yes",
        "no",
        "NO",
        "on",
        "Off",
        "y",
        "n",
        "True",
        "FALSE",
        "Null",
        "2026-05-23",
        "2026-05-23T10:00:00Z",
        "1:30",
        "12:30:45",
        "010",
        "0o17",
        "0x1F",
        "0b101",
        "1_000",
        "+5",
        ".5",
        "5.",
        ".inf",
        "-.inf",
        ".nan",
        "1e",
        "00",
        "0777",
        "1.2.3",
        "=",
    ],
)
def test_parse_keeps_other_plain_scalars_as_text(word: str) -> None:
    assert parse(f"a: {word}") == {"a": word}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ('"5"', "5"),
        ("'true'", "true"),
        ("|\n  5", "5"),
        (">\n  null", "null"),
    ],
)
def test_parse_reads_json_values_and_keeps_quoted_ones_as_text(word: str, value: Any) -> None:
    parsed = parse(f"a: {word}")["a"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_parse_keeps_long_numbers_as_text_and_rejects_infinite_ones() -> None:
    assert parse("a: " + "9" * 41) == {"a": "9" * 41}
    assert (get_refusal("b: 1\na: 1e999").line, get_refusal("a: 1e999").rule) == (2, "yaml")


def test_parse_reads_every_key_as_text() -> None:
    assert parse("1: a\ntrue: b\n2026-05-23: c\non: d") == {"1": "a", "true": "b", "2026-05-23": "c", "on": "d"}


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        ("a: 1\nb: 2\na: 3", 3, "no-duplicates"),
        ("a:\n  b: 1\n  'b': 2", 3, "no-duplicates"),
        ("a: {b: 1,\n b: 2}", 2, "no-duplicates"),
        ("a: 1\nb: &x 2", 2, "no-aliases"),
        ("a: 1\n&x b: 2", 2, "no-aliases"),
        ("a: &x\n  b: 1", 1, "no-aliases"),
        ("a:\n- *x", 2, "no-aliases"),
        ("a: 1\n*x : 2", 2, "no-aliases"),
        ("a:\n  <<: {b: 1}", 2, "no-merges"),
        ("a: !!int 5", 1, "no-tags"),
        ("a: 1\nb: !thing {}", 2, "no-tags"),
        ("a: 1\n!!str b: 1", 2, "no-tags"),
        ("a: !!python/object/apply:os.system [echo]", 1, "no-tags"),
        ("a: 1\n? [b, c]\n: 2", 2, "plain-keys"),
        ("a: 1\n--- \nb: 2", 2, "document"),
        ("%YAML 1.1\n---\na: 1", 1, "no-directives"),
        ("%TAG ! tag:example.org,2026:\n---\na: 1", 1, "no-directives"),
        ("", 1, "document"),
        ("# nothing\n", 1, "document"),
        ("a: 1\nb: [1, 2", 2, "yaml"),
        ("a: 1\nb: 'open", 2, "yaml"),
        ("a: 1\n\tb: 2", 2, "printable"),
        ("a: 1\nb: @x", 2, "yaml"),
        ("a: 1\nb: c: d", 2, "yaml"),
        ('a: 1\nb: "\\q"', 2, "yaml"),
        ("a: 1\r\nb: 2\rc: \x07", 3, "printable"),
        ("a: 1\nb: x\x00y", 2, "printable"),
        ("a: 1\nb: x\x85y", 2, "printable"),
        ("a: 1\nb: x\u2028y", 2, "printable"),
        ("a: 1\n\ufeffb: 2", 2, "printable"),
        ('a: 1\nb: "\\ud800"', 2, "yaml"),
    ],
)
def test_parse_rejects_a_yaml_feature_with_its_line(text: str, line: int, rule: str) -> None:
    error = get_refusal(text)
    assert (error.line, error.rule) == (line, rule), error.message


def test_parse_rejects_an_escape_beyond_unicode() -> None:
    assert get_refusal('a: "\\UFFFFFFFF"').rule == "yaml"


def test_duplicate_key_error_names_the_first_line() -> None:
    assert "first in line 2" in get_refusal("b: 1\na: 1\na: 2").message


def test_parse_reads_a_quoted_merge_key_as_a_name() -> None:
    assert parse("a: {'<<': 1}") == {"a": {"<<": 1}}


def test_parse_rejects_an_alias_bomb_at_its_first_anchor() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True))
    assert (get_refusal(bomb).line, get_refusal(bomb).rule) == (1, "no-aliases")


def test_parse_limits_nesting() -> None:
    assert parse("[" * 50 + "]" * 50)
    for deep in ("[" * 5000, "{a: " * 5000, "- " * 5000, "\n".join(" " * i + "a:" for i in range(300))):
        assert get_refusal(deep).rule == "bounded"


def test_parse_limits_the_number_of_nodes() -> None:
    assert parse("[" + "1, " * 98 + "1]", max_nodes=100) == [1] * 99
    error = get_refusal("[1,\n" + "1, " * 98 + "1]", max_nodes=100)
    assert (error.line, error.rule) == (2, "bounded")


def test_yaml_refused_message_is_short() -> None:
    long = "x" * 5000
    for text in (f"{long[:900]}: 1\n{long[:900]}: 2", f"a: &{long} 1", f"a: *{long}", f"a: !{long} 1"):
        assert len(get_refusal(text).message) < 200


def test_find_lines_covers_every_key_and_element() -> None:
    assert strict_yaml.find_lines("a:\n- 1\n- b: 2\n\n  c: 3") == {
        (): 1, ("a",): 1, ("a", 0): 2, ("a", 1): 3, ("a", 1, "b"): 3, ("a", 1, "c"): 5
    }  # fmt: skip


YAML_LIKE = st.text(st.sampled_from(list("ab:-?,[]{}&*!|>'\"%@`#\\ \n\t01.~<=é\x00\x85\ud7ff")), max_size=60)


@settings(max_examples=300)
@given(st.one_of(YAML_LIKE, st.text(max_size=60)))
def test_parse_raises_only_yaml_refused_for_any_text(text: str) -> None:
    try:
        value = parse(text)
    except YamlRefused as error:
        assert 1 <= error.line <= text.count("\n") + text.count("\r") + 2  # noqa: PT017
    else:
        assert is_json(value)


def is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(child) for key, child in value.items())
    return value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="PyYAML was built without libyaml: there is one parser")
@settings(max_examples=300)
@given(YAML_LIKE)
def test_both_yaml_parsers_read_the_same_data(text: str) -> None:
    values: list[Any] = []
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        strict_yaml.Loader = loader
        try:
            values.append(parse(text))
        except YamlRefused:
            return
    assert values[0] == values[1]
