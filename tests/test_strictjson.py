from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ductile.strictjson import JSONRefused, Limit, canonical, decode, encode, is_longer
from support.launch import in_a_child

MIB = 1024 * 1024


def refusal(data: bytes | str) -> str:
    with pytest.raises(JSONRefused) as caught:
        decode(data)
    return str(caught.value)


@pytest.mark.parametrize(("data", "expected"), [
    (b"null", None),
    (b"true", True),
    (b" \t\r\n{} \n", {}),
    (b"[]", []),
    (b"5", 5),
    (b"-0.5e-3", -0.0005),
    (b'"text"', "text"),
    ("\"caf\u00e9\"", "caf\u00e9"),
    ("\"caf\u00e9\"".encode(), "caf\u00e9"),
    (b'"\\ud83d\\ude00"', "\U0001f600"),
    (b'"\\\\ud800 \\\\u0000"', "\\ud800 \\u0000"),
    (b'"\\\\\\u00e9"', "\\\u00e9"),
    (b'{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}', {"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}),
    (b"1.7976931348623157e308", 1.7976931348623157e308),
    (b"1e-999", 0.0),
    ("9" * 4300, int("9" * 4300)),
    ("-" + "9" * 4300, -int("9" * 4300)),
    ('"' + "9" * 4301 + '"', "9" * 4301),
    ("0." + "3" * 5000, 1 / 3),
    ('"' + "[{" * 300 + '"', "[{" * 300),
    ('["' + "[{" * 300 + '"]', ["[{" * 300]),
])
def test_strict_json_is_read(data: bytes | str, expected: Any) -> None:
    assert decode(data) == expected


@pytest.mark.parametrize(("data", "expected"), [
    (b"", "line 1, column 1: expected a value"),
    (b" \n ", "line 2, column 2: expected a value"),
    (b"nope", "line 1, column 1: expected a value"),
    (b"{}{}", "line 1, column 3: expected the end, got more after the first value"),
    (b"{}\n[1]", "line 2, column 1: expected the end, got more after the first value"),
    (b"01", "line 1, column 2: expected the end, got more after the first value"),
    (b"[1,]", "line 1, column 4: expected a value"),
    (b"[1,\n ]", "line 2, column 2: expected a value"),
    (b'{"a": 1, }', "line 1, column 10: expected a key in double quotes"),
    (b"[1 2]", "line 1, column 4: expected ','"),
    (b'{"a" 1}', "line 1, column 6: expected ':'"),
    (b"{'a': 1}", "line 1, column 2: expected a key in double quotes"),
    (b'["a\nb"]', "line 1, column 4: a control character in a string must be escaped"),
    (b'["a\0b"]', "line 1, column 4: a control character in a string must be escaped"),
    (b"[1]\0", "line 1, column 4: expected the end, got more after the first value"),
    (b'["abc', "line 1, column 2: a string that begins here is not closed"),
    (b'["\\x"]', "line 1, column 3: an unknown escape"),
    (b'["\\u12"]', "line 1, column 4: an unknown escape"),
])
def test_a_fault_of_form_names_its_place(data: bytes, expected: str) -> None:
    assert refusal(data) == expected


@pytest.mark.parametrize(("data", "expected"), [
    (b"NaN", "NaN is not allowed"),
    (b'{"a": [Infinity]}', "Infinity is not allowed"),
    (b"[-Infinity]", "-Infinity is not allowed"),
    (b"[1e999]", "the number 1e999 is too large for a double"),
    (b"-1.5E+400", "the number -1.5E+400 is too large for a double"),
    ("9" * 400 + ".0", "the number 999999999999999999999999999999999999999… is too large for a double"),
    ("9" * 4301, "a whole number of 4,301 digits, at most 4,300 are allowed"),
    ('{"a": -' + "9" * 4301 + "}", "a whole number of 4,301 digits, at most 4,300 are allowed"),
])
def test_a_number_that_others_cannot_read_is_refused(data: bytes | str, expected: str) -> None:
    assert refusal(data) == expected


@pytest.mark.parametrize(("data", "expected"), [
    (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is repeated"),
    (b'[{"x": {"": 1, "": 1}}]', "the key '' is repeated"),
    (b'{"a": 1, "\\u0061": 2}', "the key 'a' is repeated"),
    (b'{"a\\nb": 1, "a\\nb": 2}', "the key 'a\\nb' is repeated"),
    (b'{"' + b"k" * 100 + b'": 1, "' + b"k" * 100 + b'": 2}', "the key '" + "k" * 59 + "…' is repeated"),
])
def test_a_repeated_key_is_named(data: bytes, expected: str) -> None:
    assert refusal(data) == expected


@pytest.mark.parametrize(("data", "expected"), [
    (b'["\\ud800"]', "line 1, column 3: a lone surrogate is not allowed"),
    (b'["\\uDFFF"]', "line 1, column 3: a lone surrogate is not allowed"),
    (b'["\\ude00\\ud83d"]', "line 1, column 3: a lone surrogate is not allowed"),
    (b'["\\ud83d\\ude00\\ud83d"]', "line 1, column 15: a lone surrogate is not allowed"),
    (b'["\\ud83d\\ud83d\\ude00"]', "line 1, column 3: a lone surrogate is not allowed"),
    (b'["\\ud83d\\\\ude00"]', "line 1, column 3: a lone surrogate is not allowed"),
    (b'{"\\udc00": 1}', "line 1, column 3: a lone surrogate is not allowed"),
    (b'{"a":\n "\\\\\\ud800"}', "line 2, column 5: a lone surrogate is not allowed"),
    ('["\ud800"]', "line 1, column 3: a lone surrogate is not allowed"),
    (b'["a\\u0000"]', "line 1, column 4: a NUL is not allowed"),
    (b'{"\\u0000": 1}', "line 1, column 3: a NUL is not allowed"),
])
def test_a_lone_surrogate_or_nul_is_refused_in_keys_and_values(data: bytes | str, expected: str) -> None:
    assert refusal(data) == expected


@pytest.mark.parametrize(("data", "expected"), [
    (b'"\xff"', "byte 2: not UTF-8"),
    (b'"caf\xe9"', "byte 5: not UTF-8"),
    (b'"\xed\xa0\x80"', "byte 2: not UTF-8"),
    (b'"\xc0\x80"', "byte 2: not UTF-8"),
    (b'"\xf0\x9f\x98', "byte 2: not UTF-8"),
    (b"\xef\xbb\xbf{}", "starts with a byte order mark, expected UTF-8 without one"),
    ("\ufeff{}", "starts with a byte order mark, expected UTF-8 without one"),
    ("{}".encode("utf-16"), "byte 1: not UTF-8"),
])
def test_anything_but_bare_utf8_is_refused(data: bytes | str, expected: str) -> None:
    assert refusal(data) == expected


@pytest.mark.parametrize(("opening", "middle", "closing"), [
    ("[", "", "]"), ('{"a":', "1", "}"), ("[", '{"a":[]}', "]"),
])
def test_nesting_is_allowed_up_to_100(opening: str, middle: str, closing: str) -> None:
    own = middle.count("[") + middle.count("{")
    deepest = opening * (100 - own) + middle + closing * (100 - own)
    assert encode(decode(deepest)) == deepest
    assert refusal(opening + deepest + closing) == "nested more than 100 deep"


def test_many_brackets_side_by_side_are_not_nesting() -> None:
    assert decode("[" + "[]," * 1000 + "{}]") == [[]] * 1000 + [{}]


# Made where they are used: as constants all of them would be there during all other tests.
HOSTILE = {
    "100,000 nested lists": (lambda: b"[" * 100_000 + b"]" * 100_000, "nested more than 100 deep"),
    "lists": (lambda: b"[" * 10 * MIB, "nested more than 100 deep"),
    "objects": (lambda: b'{"a":' * 2 * MIB, "nested more than 100 deep"),
    "digits": (lambda: b"7" * 10 * MIB, "a whole number of 10,485,760 digits, at most 4,300 are allowed"),
    "digits and a point": (lambda: b"7" * 10 * MIB + b".0",
                           "the number " + "7" * 39 + "… is too large for a double"),
    "exponent": (lambda: b"1e" + b"7" * 10 * MIB, "the number 1e" + "7" * 37 + "… is too large for a double"),
    "backslashes": (lambda: b'"' + b"\\" * 10 * MIB, "line 1, column 1: a string that begins here is not closed"),
    "pairs": (lambda: b'"' + b"\\ud83d\\ude00" * 873_813 + b'\\ud800"',
              "line 1, column 10485758: a lone surrogate is not allowed"),
    "blanks": (lambda: b" " * 10 * MIB, "line 1, column 10485761: expected a value"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_ten_mebibytes_of_malice_are_refused(what: str) -> None:
    # Where one of these took more than linear time, the test would not end.
    made, expected = HOSTILE[what]
    assert refusal(made()) == expected


LIMIT = Limit(values=6, members=3)


@pytest.mark.parametrize("data", [
    b"[1, [], {}, [ ], { }]", b"[[[[[[]]]]]]", b"[1,2,3,4,5]", b'["a,b,[{:", "\\"]},,", "\\\\", 4, 5]',
    b'{"a": 1, "b": {"c": {}}}', '["[,\u00e9]"]'.encode(), "[1,2,3,4,5]", b'{"a,,,,": [1, 2, ":::"]}',
])
def test_a_document_of_as_many_values_as_are_allowed_is_read(data: bytes | str) -> None:
    assert decode(data, limit=LIMIT) == json.loads(data)


@pytest.mark.parametrize(("data", "expected"), [
    (b"[1, [], {}, [ ], { }, 6]", "more than 6 values"),
    (b"[[[[[[[]]]]]]]", "more than 6 values"),
    (b'[{}, {"a": [1, 2, 3]}]', "more than 6 values"),
    (b'["\\\\", "\\"", 3, 4, 5, "6"]', "more than 6 values"),
    ("[1,2,3,4,5,6]", "more than 6 values"),
    (b'{"a": 1, "b": 2, "c": 3, "d": 4}', "more than 3 keys in mappings"),
    (b'[{"a": {"b" : {"c": {"d": 4}}}}]', "more than 3 keys in mappings"),
])
def test_a_document_of_more_values_than_are_allowed_is_refused(data: bytes | str, expected: str) -> None:
    with pytest.raises(JSONRefused) as caught:
        decode(data, limit=LIMIT)
    assert str(caught.value) == expected


FILLED = '"' + "a" * MIB + '"'


@pytest.mark.parametrize("text", [
    '["\U0001f600", "é日\U0001f600\uffff\U0010ffff", "\\\\\U0001f600", "\\\\\\\\\U00010000", "\\ud83d\\ude00", ',
    '{"\U0001f600": "\\"\U0001f600", "k": ', '["\\uD83D\\udE00", ',
])
def test_a_large_document_with_characters_of_four_bytes_is_read_as_a_small_one(text: str) -> None:
    document = f"{text}{FILLED}{']' if text.startswith('[') else '}'}"
    assert decode(document.encode()) == json.loads(document)


@pytest.mark.parametrize("text", [
    '["\\\U0001f600", ', '["\\\\\\\U0001f600", ', "[\U0001f600, ", '["\U0001f600é\U0001f600", nope, ',
    '["\U0001f600",\n"\U0001f600" 5, ',
    '["\U0001f600\\ud800", ', '{"\U0001f600": 1, "\U0001f600": 2, "k": ',
])
def test_a_fault_of_a_large_document_with_characters_of_four_bytes_has_the_same_place(text: str) -> None:
    """As in a small one."""
    end = "]" if text.startswith("[") else "}"
    assert refusal(f"{text}{FILLED}{end}".encode()) == refusal(f'{text}""{end}'.encode())


@pytest.mark.parametrize("data", [b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\xf5\x80\x80\x80"])
def test_a_large_document_that_is_not_utf8_is_refused_at_the_byte(data: bytes) -> None:
    good = '["\U0001f600'.encode()
    assert refusal(good + data + FILLED.encode()) == f"byte {len(good) + 1}: not UTF-8"


# Each ten mebibytes, and what would take memory: values, turns of a pattern, pieces of a text.
GREEDY = {
    "empty lists": lambda: b'{"x":[' + b"[]," * 3_400_000 + b"[]]}",
    "escapes": lambda: b'["\\u0041' + b"\\n" * 5_000_000 + b'"]',
    "escapes without an end": lambda: b'["\\u0041' + b'\\"' * 5_000_000,
    "strings": lambda: b"[" + b'"" ,' * 2_500_000 + b"1]",
    "commas in a string": lambda: b'["' + b"," * 10_000_000 + b'"]',
    "text with one emoji": lambda: b'["' + b"a" * 10_000_000 + "\U0001f600".encode() + b'", "b"]',
}


@pytest.mark.parametrize("what", GREEDY)
def test_a_document_takes_no_more_memory_than_its_size_and_its_limit_explain(what: str) -> None:
    # Bytes, text, a copy with the escapes taken out, a string of it; with an emoji a string has four bytes for each
    # character.
    assert in_a_child(mebibytes_to_decode, GREEDY[what]()) < (80 if "emoji" in what else 60)


def mebibytes_to_decode(data: bytes) -> int:
    """Return by how much the memory of this process grew at most."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    with suppress(JSONRefused):
        decode(data, limit=Limit(values=500_000, members=300_000))
    return (_memory("VmHWM") - before) // 1024


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1])


@pytest.mark.parametrize("value", [
    {}, [], "", "text", 1, None, {"a": [1, "b", {"c": None}], "d": {}}, [[], [], {}], ["x" * 50, 12345], (1, 2),
])
def test_a_value_is_longer_than_less_than_it_surely_is(value: Any) -> None:
    length = len(encode(value))
    assert not is_longer(value, length)
    assert is_longer(value, length // 3 - 1)


def test_a_usual_response_is_read_at_the_speed_of_the_standard_library() -> None:
    data = encode({"status": "ok", "result": "done", "events": [{"type": "a.b", "payload": {"n": 1, "x": 2.5}}],
                   "state_updates": {"token": "abcdef"}, "logs": [{"level": "info", "message": "hello"}]}).encode()
    rounds: dict[Any, list[float]] = {decode: [], json.loads: []}
    for _ in range(20):
        for read, times in rounds.items():
            before = time.process_time()
            for _ in range(100):
                read(data)
            times.append(time.process_time() - before)
    # 1.6 is usual; the bound leaves room for a noisy machine, not for a walk in Python.
    assert min(rounds[decode]) < 10 * min(rounds[json.loads])


@pytest.mark.parametrize(("value", "expected"), [
    ({"b": 1, "a": [1.5, None, True]}, '{"b":1,"a":[1.5,null,true]}'),
    ("caf\u00e9\n\U0001f600", '"caf\\u00e9\\n\\ud83d\\ude00"'),
    ({}, "{}"),
])
def test_what_is_written_is_compact_ascii_on_one_line(value: Any, expected: str) -> None:
    assert encode(value) == expected


@pytest.mark.parametrize("write", [encode, canonical])
@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": float("-inf")}])
def test_nan_and_infinity_are_not_written(write: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        write(value)


def test_equal_values_have_one_canonical_form() -> None:
    assert canonical({"b": {"d": 1, "c": 2}, "a": 3}) == canonical({"a": 3, "b": {"c": 2, "d": 1}})
    assert canonical({"b": {"d": 1, "c": 2}, "a": 3}) == '{"a":3,"b":{"c":2,"d":1}}'


def test_an_ordinary_large_document_reads_as_the_standard_library_reads_it() -> None:
    value = [{"id": i, "name": f"caf\u00e9 {i}", "tags": ["[", "}"], "v": i * 1.5} for i in range(20_000)]
    data = json.dumps(value, indent=1).encode()
    assert decode(data) == value
