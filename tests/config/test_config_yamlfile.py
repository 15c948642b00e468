"""The traps of YAML 1.1 stay shut, and every value has its place."""

from __future__ import annotations

import pytest
import yaml

from ductile.errors import EXIT_CONFIG, DuctileError
from ductile.validation import Problem
from ductile.yamlfault import explain
from ductile.yamlfile import read_yaml


def located(text: str) -> list[str]:
    document = read_yaml(text.encode(), "f.yaml")
    return [document.locate("f.yaml", problem) for problem in document.problems]


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("true", True), ("false", False),
        *[(word, word) for word in ("True", "TRUE", "yes", "Yes", "no", "NO", "on", "off", "y", "n")],
        ("null", None), ("~", None), ("", None), ("Null", "Null"), ("NULL", "NULL"),
        ("0", 0), ("12", 12), ("-3", -3), ("1.5", 1.5), ("-0.25", -0.25), ("1.0", 1.0),
        *[(word, word) for word in ("0755", "0o17", "0x1f", "0b11", "1_000", "+5", "1:30", "1:30:00", "06:00")],
        *[(word, word) for word in ("1e3", "1.5e3", ".5", "5.", ".inf", "-.INF", ".nan", "0.1.0")],
        *[(word, word) for word in ("2026-02-08", "2026-02-08T10:00:00Z", "=", "1m", "60s")],
        ('"true"', "true"), ("'12'", "12"), ('""', ""), ('"null"', "null"), ("|\n  5\n", "5\n"),
        ("9" * 30, int("9" * 30)), ("9" * 5000, "9" * 5000),
    ],
)
def test_only_plain_words_of_a_short_list_are_not_texts(word, meaning):
    value = read_yaml(f"key: {word}\n".encode(), "f.yaml").value["key"]
    assert (value, type(value)) == (meaning, type(meaning))


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "1:30", "2026-02-08", "'5'", "'<<'", "0755"])
def test_a_key_is_a_text_as_written(word):
    document = read_yaml(f"{word}: 1\n".encode(), "f.yaml")
    assert (document.value, document.problems) == ({word.strip("'"): 1}, ())


@pytest.mark.parametrize("text", ["", "# nothing\n", "\n\n", "---\n{}\n", "\ufeff"])
def test_an_empty_file_is_an_empty_mapping(text):
    assert read_yaml(text.encode(), "f.yaml").value == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1: a\n", ["f.yaml:1:1: 1: expected a string as key, got 1"]),
        ("true: a\n", ["f.yaml:1:1: true: expected a string as key, got true"]),
        ("a:\n  ~: b\n", ["f.yaml:2:3: a.~: expected a string as key, got null"]),
        ("[a]: b\n", ["f.yaml:1:1: ?: expected a string as key, got a list"]),
        ("{a: b}: c\n", ["f.yaml:1:1: ?: expected a string as key, got a mapping"]),
        ("? !!str a\n: b\n", ["f.yaml:1:3: a: expected a key without a tag, got !!str"]),
        ('"a\\nb": c\n', ["f.yaml:1:1: ?: expected a key of printable characters, got 'a\\nb'"]),
        ("<<: {a: 1}\n", ["f.yaml:1:1: <<: expected every key written out, got the merge key '<<'"]),
        ("a: !!int '5'\n", ["f.yaml:1:4: a: expected a value without a tag, got !!int"]),
        ("a: !env X\n", ["f.yaml:1:4: a: expected a value without a tag, got !env"]),
        ("a: [!!python/name:os.system x]\n",
         ["f.yaml:1:5: a[0]: expected a value without a tag, got !!python/name:os.system"]),
        ('a: "x\\0y"\n', ["f.yaml:1:4: a: expected a string that UTF-8 can carry, without NUL, got U+0000 in it"]),
        ("a: 1\nb: 2\na: 3\n", ["f.yaml:3:1: a: repeated key, also at line 1, column 1"]),
        ("s:\n  a: 1\n  'a': 2\n  \"a\": 3\n",
         ["f.yaml:4:3: s.a: repeated key, also at line 2, column 3 and line 3, column 3"]),
        ("a: 1\na: 1\nb: !x y\n",
         [
             "f.yaml:3:4: b: expected a value without a tag, got !x",
             "f.yaml:2:1: a: repeated key, also at line 1, column 1",
         ]),
    ],
)
def test_what_yaml_allows_and_ductile_does_not_is_a_problem(text, expected):
    assert located(text) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\n--- \nb: 2\n", "f.yaml:2:1: expected one document, got another after it"),
        (b"a: &x [1, *x]\n", "f.yaml:1:11: the alias *x holds itself"),
        (b"a: *x\n", "f.yaml:1:4: the alias *x has no anchor before it"),
        (b"a: \xff\n", "f.yaml:1:4: expected UTF-8, got the byte 0xff"),
        (b"\xef\xbb\xbfa: 1\nbc: \xe2\x82\xac\xc3\n", "f.yaml:2:6: expected UTF-8, got the byte 0xc3"),
        (b"a: 1\r\nb: \x00\r\n", "f.yaml:2:4: expected printable text, got the character U+0000"),
        (b"a: \x1b[31m\n", "f.yaml:1:4: expected printable text, got the character U+001B"),
        (b"[" * 200_000, "f.yaml:1:101: expected at most 100 levels, got more"),
        (b"a: " + b"{a: " * 200, "f.yaml:1:397: expected at most 100 levels, got more"),
        (b"a: " + b"{a: " * 20_000, "f.yaml:1:397: expected at most 100 levels, got more"),
        ("é:\r\n  ".encode() + b"[" * 20_000, "f.yaml:2:102: expected at most 100 levels, got more"),
        (b"- " * 20_000, "f.yaml:1:201: expected at most 100 levels, got more"),
        (b"? " * 20_000, "f.yaml:1:201: expected at most 100 levels, got more"),
        ("\n".join(" " * n + "a:" for n in range(2_000)).encode(),
         "f.yaml:100:100: expected at most 100 levels, got more"),
    ],
)
def test_what_cannot_be_read_at_all_is_one_line(content, expected):
    with pytest.raises(DuctileError) as caught:
        read_yaml(content, "f.yaml")
    assert (caught.value.lines, caught.value.exit_code) == ((expected,), EXIT_CONFIG)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: 1\n", "2:1: a tab; YAML indents with spaces"),
        ("a:\n  b: 1\n\tc: 2\n", "3:1: a tab; YAML indents with spaces"),
        ("a:\n  b: x\n  \tc: 2\n", "3:3: a tab; YAML indents with spaces"),
        ("a: |\n\tx\n", "2:1: a tab; YAML indents with spaces"),
        ("p:\n  e:\n    x: true\n   c: {}\n",
         "4:4: line 4 is indented by 3; expected 0, 2 or 4, as the lines above it"),
        ("a:\n  b: 1\n c: 2\n", "3:2: line 3 is indented by 1; expected 0 or 2, as the lines above it"),
        (" a: 1\nb: 2\n", "2:1: line 2 is indented by 0; expected 1, as the lines above it"),
        ("a:\n  - b: 1\n   c: 2\n", "3:4: line 3 is indented by 3; expected 0, 2 or 4, as the lines above it"),
        ("s:\n  n: x\n    l: y\n",
         "3:5: line 3 is indented by 4, more than line 2, which has its value already; indent it by 2"),
        ("a: 'x\nb: 1\n", "1:4: the quote that opens here is not closed"),
        ('a: 1\nb: "x\nc: 1\n', "2:4: the quote that opens here is not closed"),
        ('a: "x\nb: "y"\nc: 1\n',
         "2:5: something after the closing quote of the string that opens at line 1, column 4"),
        ("a: 'it's'\n", "1:8: something after the closing quote of the string that opens at line 1, column 4"),
        ("a: b: c\n", "1:5: a second ': ' on one line; put the value in quotes"),
        ("s:\n  name\n  log: x\n", "2:3: expected 'key: value' on this line, with a space after the colon"),
        ("name:x\nlog: y\n", "1:1: expected 'key: value' on this line, with a space after the colon"),
        ("a: 1\nname\nb: 2\n", "2:1: expected 'key: value' on this line, with a space after the colon"),
        ("a: [1, 2\nb: 3\n", "1:4: the '[' that opens here is not closed: expected ',' or ']' at line 2, column 2"),
        ("a: {x: 1\nb: 3\n", "1:4: the '{' that opens here is not closed: expected ',' or '}' at line 2, column 2"),
        ("a: [\n", "1:4: the '[' that opens here is not closed: expected ',' or ']' at line 2, column 1"),
        ("a: [1, [2], {x: [3], \n",
         "1:13: the '{' that opens here is not closed: expected ',' or '}' at line 2, column 1"),
        ("a: [1, 2]]\n", "1:10: a ']' that nothing opens"),
        ("on: *\n", "1:5: a value cannot begin with '*'; put it in quotes"),
        ("a: @x\n", "1:4: a value cannot begin with '@'; put it in quotes"),
        ("a: - b\n",
         "1:4: a list begins on a line of its own, below its key; put a value that begins with '-' in quotes"),
        ("- a\nb: 1\n", "2:1: a key where a list item, '- ', is expected; is its indentation right?"),
        ("a: 1\n- b\n", "2:1: a list item where a key is expected; is its indentation right?"),
    ],
)
@pytest.mark.parametrize("loader", ["libyaml", "python"])
def test_what_is_not_yaml_is_told_in_plain_words_whichever_parser_reads_it(text, expected, loader):
    if loader == "libyaml":
        with pytest.raises(DuctileError) as caught:
            read_yaml(text.encode(), "f.yaml")
        assert caught.value.lines == (f"f.yaml:{expected}",)
        return
    with pytest.raises(yaml.MarkedYAMLError) as refused:
        list(yaml.parse(text, Loader=yaml.BaseLoader))
    (line, column), told = explain(text, refused.value)
    assert f"{line}:{column}: {told}" == expected


def test_an_escape_that_yaml_does_not_know_is_told_with_what_to_write():
    with pytest.raises(DuctileError) as caught:
        read_yaml(b'a: "C:\\Users"\n', "f.yaml")
    assert caught.value.lines == (
        "f.yaml:1:9: not an escape that YAML knows; write the string in single quotes, or \\\\ for a backslash",)


def test_an_alias_stands_for_its_anchor_and_has_the_place_of_it():
    document = read_yaml(b"a: &x {k: [1, 2]}\nb: *x\n", "f.yaml")
    assert document.value == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}}
    assert document.where(("b", "k", 1)) == document.where(("a", "k", 1)) == (1, 15)


def test_a_few_lines_of_aliases_cannot_ask_for_billions_of_values():
    bomb = ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
    bomb += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(DuctileError) as caught:
        read_yaml("\n".join(bomb).encode(), "f.yaml")
    assert caught.value.lines == ("f.yaml:1:12: expected at most 100,000 values in one file, got more",)


def test_aliases_cannot_nest_deeper_than_what_is_written_out():
    chain = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [[[[[*a{n - 1}]]]]]" for n in range(1, 30)]
    with pytest.raises(DuctileError) as caught:
        read_yaml("\n".join(chain).encode(), "f.yaml")
    [line] = caught.value.lines
    assert line.endswith(": expected at most 100 levels, got more through aliases")


@pytest.mark.parametrize(
    ("path", "at_key", "place"),
    [
        (("plugins", "echo", "retry"), False, (3, 12)),
        (("plugins", "echo", "retry"), True, (3, 5)),
        (("plugins", "echo", "env", 1), False, (4, 14)),
        (("plugins", "echo", "missing"), False, (3, 5)),
        (("plugins", "echo", "missing", "deeper", 3), True, (3, 5)),
        (("elsewhere",), False, (1, 1)),
        ((), False, (1, 1)),
    ],
)
def test_a_path_has_the_place_of_its_value_or_key_or_deepest_ancestor(path, at_key, place):
    document = read_yaml(b"plugins:\n  echo:\n    retry: {}\n    env: [A, B]\n", "f.yaml")
    assert document.where(path, at_key) == place


def test_a_problem_of_the_whole_document_has_no_path():
    assert read_yaml(b"# x\n[]\n", "f.yaml").locate("dir/f.yaml", Problem((), "wrong")) == "dir/f.yaml:2:1: wrong"


def test_columns_count_characters_and_not_bytes():
    assert read_yaml("é: {ü: 1, x: 2}\n".encode(), "f.yaml").where(("é", "x")) == (1, 14)


def test_the_last_value_of_a_repeated_key_counts_and_the_others_are_named_up_to_a_few():
    document = read_yaml(b"a: {b: 1}\n" * 1000, "f.yaml")
    assert document.value == {"a": {"b": 1}}
    assert located("a: {b: 1}\n" * 1000) == [
        "f.yaml:1000:1: a: repeated key, also at line 1, column 1 and line 2, column 1 and line 3, column 1 and 996"
        " more places"]
    assert document.where(("a", "b")) == (1000, 8)


@pytest.mark.parametrize("content", [b"a: 1\n", b"- 1\n", b"- a\n- *b\n"])
def test_a_file_has_a_bounded_number_of_values_and_is_not_read_beyond_them(content):
    with pytest.raises(DuctileError) as caught:
        read_yaml(b"- &b 0\n" * content.startswith(b"-") + content * 1000, "f.yaml", most_values=100)
    [line] = caught.value.lines
    assert line.endswith("expected at most 100 values in one file, got more")
    assert int(line.split(":")[1]) <= 202
