from __future__ import annotations

import pytest

from ductile.validation import Problem, Section, as_boolean, as_choice, as_integer, as_text, dotted, kind_of, nearest


def read(value, path=("plugins", "echo")) -> tuple[Section, list[Problem]]:
    problems: list[Problem] = []
    return Section(value, path, problems), problems


def texts(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems]


@pytest.mark.parametrize("path, text", [
    ((), ""), (("a",), "a"), (("a", "b"), "a.b"),
    (("plugins", "echo", "schedule", 0, "every"), "plugins.echo.schedule[0].every"),
    ((0, "a"), "[0].a"), (("a", 1, 2), "a[1][2]"),
])
def test_a_place_is_written_as_the_operator_reads_it(path, text):
    assert dotted(path) == text


def test_a_problem_with_the_whole_document_has_no_place():
    assert str(Problem((), "it is empty")) == "it is empty"


@pytest.mark.parametrize("name, known, hint", [
    ("schedul", ["schedule", "timeouts"], " (did you mean 'schedule'?)"),
    ("Schedule", ["schedule"], " (did you mean 'schedule'?)"),
    ("xyz", ["schedule", "timeouts"], ""),
    ("schedule", [], ""),
    ("", ["schedule"], ""),
])
def test_the_nearest_known_name_is_offered_where_one_is_near(name, known, hint):
    assert nearest(name, known) == hint


@pytest.mark.parametrize("value, text", [
    (None, "null"), (True, "true"), (False, "false"), ({}, "a mapping"), ([], "a list"), (5, "5"),
    ("soon", "'soon'"),
])
def test_a_value_is_named_in_the_operators_words(value, text):
    assert kind_of(value) == text


# A section


@pytest.mark.parametrize("value, text", [
    ([], "plugins.echo: expected a mapping, got a list"),
    ("x", "plugins.echo: expected a mapping, got 'x'"),
    (False, "plugins.echo: expected a mapping, got false"),
])
def test_what_is_no_mapping_is_one_problem_and_reads_as_empty(value, text):
    section, problems = read(value)
    assert section.text("name", "default") == "default"
    section.finish()
    assert texts(problems) == [text]


@pytest.mark.parametrize("value", [None, {}, {"name": None}])
def test_what_is_absent_is_the_default(value):
    section, problems = read(value)
    found = (section.text("name", "x"), section.boolean("on", True), section.integer("count", 3, least=1, most=9),
             section.choice("level", "info", ["info"]), section.texts("names"), section.raw("any", 7),
             section.has("name"))
    section.finish()
    assert (found, problems) == (("x", True, 3, "info", (), 7, False), [])


def test_what_is_there_is_read():
    section, problems = read({
        "name": "x", "on": False, "count": 9, "level": "warn", "names": ["a", "b"], "sub": {"k": 1}})
    found = (section.text("name"), section.boolean("on", True), section.integer("count", 3, least=1, most=9),
             section.choice("level", "info", ["info", "warn"]), section.texts("names"), section.section("sub").raw("k"))
    section.finish()
    assert (found, problems) == (("x", False, 9, "warn", ("a", "b"), 1), [])


def test_every_problem_is_collected_and_the_defaults_stand_in():
    section, problems = read({"name": "", "on": "yes", "count": 10, "level": "inf", "names": ["a", "", 1], "sub": 5})
    found = (section.text("name", "x"), section.boolean("on", True), section.integer("count", 3, least=1, most=9),
             section.choice("level", "warn", ["info", "warn"]), section.texts("names"),
             section.section("sub").written_keys())
    assert found == ("x", True, 3, "warn", ("a",), ())
    assert texts(problems) == [
        "plugins.echo.name: expected a string, got an empty string",
        "plugins.echo.on: expected true or false, got 'yes'",
        "plugins.echo.count: expected a number from 1 to 9, got 10",
        "plugins.echo.level: expected one of info, warn, got 'inf' (did you mean 'info'?)",
        "plugins.echo.names[1]: expected a string, got ''",
        "plugins.echo.names[2]: expected a string, got 1",
        "plugins.echo.sub: expected a mapping, got 5",
    ]


def test_a_list_that_is_none_is_one_problem():
    section, problems = read({"names": "a"})
    assert section.texts("names") == ()
    assert texts(problems) == ["plugins.echo.names: expected a list, got 'a'"]


def test_an_unknown_key_names_the_nearest_that_was_asked_for():
    section, problems = read({"schedul": 1, "zzz": 2, 5: 3, "enabled": True})
    section.boolean("enabled", True)
    section.raw("schedule")
    section.finish()
    assert texts(problems) == [
        "plugins.echo.schedul: unknown key (did you mean 'schedule'?)", "plugins.echo.zzz: unknown key",
        "plugins.echo[5]: unknown key",
    ]
    assert all(problem.at_key for problem in problems)


def test_a_missing_key_is_a_problem_with_the_section():
    section, problems = read({"name": "x", "version": None})
    section.require("name", "version", "commands")
    assert texts(problems) == [
        "plugins.echo: the key 'version' is missing", "plugins.echo: the key 'commands' is missing"]


def test_a_parsers_value_error_is_the_problems_text():
    section, problems = read({"every": "soon"})
    assert section.read("every", 60, int) == 60
    assert texts(problems) == ["plugins.echo.every: invalid literal for int() with base 10: 'soon'"]


def test_a_problem_in_a_section_within_has_the_whole_place():
    section, problems = read({"retry": {"max": 0}})
    section.section("retry").integer("max", 1, least=1, most=100)
    assert texts(problems) == ["plugins.echo.retry.max: expected a number from 1 to 100, got 0"]


# Single values


@pytest.mark.parametrize("parse, value, text", [
    (as_text, None, "expected a string, got null"),
    (as_text, 5, "expected a string, got 5"),
    (as_text, "", "expected a string, got an empty string"),
    (as_text, "a\0b", "a string must not contain a NUL character"),
    (as_boolean, 1, "expected true or false, got 1"),
    (as_boolean, "true", "expected true or false, got 'true'"),
    (lambda value: as_integer(value, least=1, most=5), True, "expected a whole number, got true"),
    (lambda value: as_integer(value, least=1, most=5), 2.0, "expected a whole number, got 2.0"),
    (lambda value: as_integer(value, least=1, most=5), 0, "expected a number from 1 to 5, got 0"),
    (lambda value: as_integer(value, least=1, most=5), 6, "expected a number from 1 to 5, got 6"),
    (lambda value: as_choice(value, ("read", "write")), "rea",
     "expected one of read, write, got 'rea' (did you mean 'read'?)"),
    (lambda value: as_choice(value, ("read", "write")), None, "expected one of read, write, got null"),
    (lambda value: as_choice(value, ("read", "write")), [], "expected one of read, write, got a list"),
])
def test_a_wrong_value_is_refused_with_the_reason(parse, value, text):
    with pytest.raises(ValueError) as caught:
        parse(value)
    assert str(caught.value) == text


@pytest.mark.parametrize("parse, value", [
    (as_text, "x"), (as_boolean, False), (lambda value: as_integer(value, least=1, most=5), 1),
    (lambda value: as_integer(value, least=1, most=5), 5), (lambda value: as_choice(value, ("read",)), "read"),
])
def test_a_right_value_is_returned(parse, value):
    assert parse(value) == value
