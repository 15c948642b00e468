"""The manual of `ductilectl` has every command, option, exit code, key of the monitor and key of a document."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl.json_keys import DOCUMENTS, WITHOUT, places
from ductile import errors
from ductile.ctl import commandline
from ductile.ctl.monitor import render
from ductile.ctl.monitor.state import HELP
from support.manuals import examples, parts, plain, section
from support.pages import options

PAGE = "ductilectl.1"
COMMANDS = {part.split()[0]: found for part, found in parts(PAGE, "COMMANDS").items()}
CTL = Path(__file__).resolve().parents[2] / "ductile" / "ctl"
ATTEMPT = DOCUMENTS["logs"][0]


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command that help names."""
    actions = commandline._parser([])._actions
    [commands] = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    return dict(commands.choices)


PARSERS = parsers()
COMMON = {"-h", "--help", "-c", "--config", "--json", "--utc"}


def arguments(parser: argparse.ArgumentParser) -> list[str]:
    """Return the positional arguments as a synopsis has them."""
    return [f"[{action.metavar}]" if action.nargs == "?" else action.metavar
            for action in parser._actions if not action.option_strings]


def test_every_command_is_explained_in_the_order_of_the_help() -> None:
    assert list(COMMANDS) == list(PARSERS)


@pytest.mark.parametrize("name", PARSERS)
def test_a_command_has_the_arguments_that_are_told(name: str) -> None:
    assert COMMANDS[name].part.split()[1:] == arguments(PARSERS[name])


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_of_a_command_is_explained_and_no_other(name: str) -> None:
    known = {spelling for action in PARSERS[name]._actions for spelling in action.option_strings}
    assert options(COMMANDS[name].entries) == known - COMMON


@pytest.mark.parametrize("name", PARSERS)
def test_an_option_with_a_value_says_so(name: str) -> None:
    takes = {spelling for action in PARSERS[name]._actions for spelling in action.option_strings if action.nargs != 0}
    told = {spelling for entry in COMMANDS[name].entries if re.search(r" [A-Z]+$", entry.tag)
            for spelling in entry.names if spelling.startswith("-")}
    assert told == takes - COMMON


def test_the_options_of_all_commands_are_explained() -> None:
    known = {spelling for action in commandline._parser([])._actions for spelling in action.option_strings}
    assert options(section(PAGE, "OPTIONS").entries) == known
    assert known >= COMMON


@pytest.mark.parametrize("name", PARSERS)
def test_a_command_has_an_example(name: str) -> None:
    calls = [line for each in examples(PAGE) if each.kind == "sh" for line in each.text.splitlines()]
    assert [line for line in calls if line.startswith(f"ductilectl {name}")]


@pytest.mark.parametrize(("name", "option"), [("queue", "-n"), ("logs", "-n"), ("run", "COMMAND"), ("run", "--type")])
def test_a_default_of_the_command_line_is_told(name: str, option: str) -> None:
    [action] = [each for each in PARSERS[name]._actions if option in (*each.option_strings, each.metavar)]
    default = re.search(r"default: (\w+)", action.help)[1]
    source = (Path(__file__).resolve().parents[2] / "contrib" / "man" / PAGE).read_text()
    text = source[source.index(f".SS {name}" if f".SS {name}\n" in source else f'.SS "{name} '):]
    assert re.search(rf"\b{default}\b[^A-Z]*\bby\s+default|\b{default}\n\(the default\)", text[:1500])


def test_every_exit_code_is_explained() -> None:
    used = {node.id for file in CTL.glob("*.py") for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Name) and node.id.startswith("EXIT_")}
    # What a daemon calls a failure of the system is one of reading and writing here.
    expected = {getattr(errors, name) for name in used - {"EXIT_SYSTEM"}}
    assert {int(entry.tag) for entry in section(PAGE, "EXIT CODES").entries} == expected


def test_the_keys_of_the_monitor_are_those_that_it_shows() -> None:
    [keys] = [each.text for each in examples(PAGE) if each.kind == "keys"]
    assert keys.splitlines() == list(HELP)
    [monitor] = [found for part, found in parts(PAGE, "COMMANDS").items() if part == "monitor"]
    source = (Path(__file__).resolve().parents[2] / "contrib" / "man" / PAGE).read_text()
    assert monitor.entries == ()
    assert f"{render.LEAST_COLUMNS} columns and {render.LEAST_ROWS} rows" in source


def using(*functions: str) -> set[str]:
    """Return the commands whose module calls one of these functions, or imports a module of `ctl` that does."""
    texts = {file.stem: file.read_text() for file in CTL.glob("*.py") if file.stem != "main"}
    calling = {name for name, text in texts.items() if any(f"{each}(" in text for each in functions)
               for node in ast.walk(ast.parse(text))
               if isinstance(node, ast.Call) and ast.unparse(node.func) in functions}
    calling |= {name for name, text in texts.items()
                for module in re.findall(r"^from ductile\.ctl\.(\w+) import", text, re.MULTILINE) if module in calling}
    return {"test" if name == "plugin_test" else name for name in calling} & set(PARSERS)


@pytest.mark.parametrize(("sentence", "commands"), [
    (r"\.BR (.+)\nafter they have cleaned up, and exit with 128 plus the signal's number",
     using("deferred_signals") | {"monitor"}),
    (r"\.BR (.+)\nshow their progress", using("progress")),
])
def test_a_sentence_names_the_commands_that_it_is_about(sentence: str, commands: set[str]) -> None:
    source = (Path(__file__).resolve().parents[2] / "contrib" / "man" / PAGE).read_text()
    [named] = re.findall(sentence, source)
    assert set(re.findall(r"\w+", named)) - {"and"} == commands


# Documents


def fonts(source: str) -> Iterator[tuple[bool, str]]:
    """Yield the texts of an entry's body in turn, each with whether it is set in bold."""
    for line in source.splitlines():
        macro, _, rest = line.partition(" ") if line.startswith(".") else ("", "", line)
        if macro in ("", ".B"):
            yield macro == ".B", plain(rest)
        else:
            assert macro in (".BR", ".RB"), line
            for index, (quoted, word) in enumerate(re.findall(r'"([^"]*)"|(\S+)', rest)):
                yield (index % 2 == 0) == (macro == ".BR"), plain(quoted or word)
        yield False, " "


def levels(source: str) -> set[str]:
    """Return the keys that an entry tells, each behind those above it: what stands in parentheses is below the key
    before them.
    """
    found: set[str] = set()
    above: list[str] = []
    key, said, excepting = "", "", False
    for is_bold, text in fonts(source):
        if not is_bold:
            said += text
            for bracket in re.findall(r"[()]", text):
                above = [*above, key] if bracket == "(" else above[:-1]
            continue
        before, said = " ".join(said.split()[-2:]), ""
        excepting = before.endswith("except") or (excepting and before in (",", "and"))
        if before == "columns of":
            found |= {each.tag for each in section("ductiled.8", "TABLES", text).entries}
        elif excepting:
            found.remove(text)
        elif before == "as in":
            found |= {".".join([*above, key, each]) for each in told(text)}
        elif not before.endswith("see") and not text.startswith("--"):
            key = text
            found.add(".".join([*above, key]))
    assert above == [], source
    return found


def promised(command: str) -> set[str]:
    """Return every key of a command's documents, each behind those above it."""
    found = {place for call, form in DOCUMENTS.items() if call.split()[0] == command for place in places(form)}
    return {place.replace("[]", "").lstrip(".") for place in found} - {""}


def told(command: str) -> set[str]:
    """Return the keys that the manual tells for a command, those of another that it refers to among them."""
    [entry] = [each for each in section(PAGE, "JSON").entries if each.tag == command]
    return levels(entry.source)


@pytest.mark.parametrize(("source", "expected"), [
    (".BR a \", \" b .", {"a", "b"}), (".B a\n.RB ( b ); \n.BR c .", {"a", "a.b", "c"}),
    (".BR a ,\na list\n.RB ( b ;\n.B c\n.RB ( d ));\n.B e", {"a", "a.b", "a.c", "a.c.d", "e"}),
    (".BR a (null)\nand, with\n.BR \\-\\-all ,\n.BR b .", {"a", "b"}),
    ("The columns of\n.B paused_plugins\nexcept\n.BR plugin \", \" since ;\n.BR a .", {"a"}),
    (".B a\nas in\n.BR init ;\n.BR b .", {"a", "a.config", "a.listen", "b"}),
])
def test_a_key_is_told_at_its_level(source: str, expected: set[str]) -> None:
    assert levels(source) == expected


@pytest.mark.parametrize("command", [name for name in PARSERS if name not in WITHOUT])
def test_every_key_of_a_commands_document_is_told_and_no_other(command: str) -> None:
    assert told(command) == promised(command)


def test_every_command_with_a_document_is_told() -> None:
    assert [entry.tag for entry in section(PAGE, "JSON").entries] == [name for name in PARSERS if name not in WITHOUT]
    nothing_yet = DOCUMENTS["(any that only reads, before ductiled has run)"]
    assert {*nothing_yet, *WITHOUT} <= set(section(PAGE, "JSON").bold)
    assert set(ATTEMPT) == told("logs")
