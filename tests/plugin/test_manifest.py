"""What a manifest may say, in which forms, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from ductile.plugin.manifest import Command, Manifest, manifest_name, missing_keys, parse_manifest

SMALLEST = {"name": "echo", "version": "0.1.0", "protocol": 2, "entrypoint": "run.sh", "commands": ["poll"]}
NAME = "expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit, got"
INSIDE = "expected a path inside the plugin's directory, without '..', got"


def problems_of(value):
    manifest, problems = parse_manifest(value)
    assert manifest is None
    return [str(problem) for problem in problems]


def parsed(**changes):
    manifest, problems = parse_manifest({**SMALLEST, **changes})
    assert problems == []
    return manifest


def test_the_smallest_manifest_has_empty_optional_parts():
    assert parsed() == Manifest(
        name="echo",
        version="0.1.0",
        protocol=2,
        entrypoint="run.sh",
        description="",
        commands={"poll": Command(name="poll", type=None, description="")},
        required_keys=(),
        private_state=frozenset(),
    )


def test_a_full_manifest_is_read_whole():
    manifest = parsed(
        description="Says back\n  what it was told\n",
        config_keys={"required": ["client_id", "client_secret"], "optional": ["message"]},
        private_state=["session", "session"],
    )
    assert manifest.description == "Says back what it was told"
    assert manifest.required_keys == ("client_id", "client_secret")
    assert manifest.private_state == {"session"}


@pytest.mark.parametrize(
    "commands",
    [
        [{"name": "poll", "type": "read", "description": "Fetches"}, {"name": "sync", "type": "write"}, "health"],
        {"poll": {"type": "read", "description": "Fetches"}, "sync": {"type": "write", "schema": {}}, "health": None},
    ],
    ids=["list", "mapping"],
)
def test_commands_are_read_in_every_form(commands):
    assert parsed(commands=commands).commands == {
        "poll": Command(name="poll", type="read", description="Fetches"),
        "sync": Command(name="sync", type="write", description=""),
        "health": Command(name="health", type=None, description=""),
    }


def test_keys_of_a_richer_gateway_are_ignored():
    richer = {"capabilities": ["net"], "schema": {"type": "object"}, "name2": None}
    assert parsed(**richer) == parsed()


def test_null_stands_for_an_absent_optional_key():
    assert parsed(config_keys=None, private_state=None, description=None) == parsed()


@pytest.mark.parametrize(("version", "text"), [(0.1, "0.1"), (2, "2"), ("1.0-rc1", "1.0-rc1")])
def test_a_version_is_text_and_may_look_like_a_number(version, text):
    assert parsed(version=version).version == text


@pytest.mark.parametrize("name", ["a", "0", "A-b_c", "x" * 64])
def test_a_good_name_names_plugin_and_command(name):
    manifest = parsed(name=name, commands=[name])
    assert (manifest.name, list(manifest.commands)) == (name, [name])


@pytest.mark.parametrize("name", ["-a", "_a", "a b", "a.b", "é", "a/b", "x" * 65, "a\n", "٣", ""])
def test_a_bad_name_is_refused_for_plugin_and_command(name):
    assert problems_of({**SMALLEST, "name": name, "commands": [name]}) == [
        f"name: {NAME} {name!r}",
        f"commands[0]: {NAME} {name!r}",
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": True}, "version: expected a string, got true"),
        ({"version": []}, "version: expected a string, got a list"),
        ({"version": ""}, "version: expected a string, got an empty string"),
        ({"protocol": 3}, "protocol: expected 1 or 2, got 3"),
        ({"protocol": True}, "protocol: expected 1 or 2, got true"),
        ({"protocol": "2"}, "protocol: expected 1 or 2, got '2'"),
        ({"protocol": []}, "protocol: expected 1 or 2, got a list"),
        ({"entrypoint": "/bin/sh"}, f"entrypoint: {INSIDE} '/bin/sh'"),
        ({"entrypoint": "../run.sh"}, f"entrypoint: {INSIDE} '../run.sh'"),
        ({"entrypoint": "bin/../../run.sh"}, f"entrypoint: {INSIDE} 'bin/../../run.sh'"),
        ({"entrypoint": "run\n.sh"}, "entrypoint: expected a path of printable characters, got 'run\\n.sh'"),
        ({"entrypoint": ["run.sh"]}, "entrypoint: expected a string, got a list"),
        ({"entrypoint": ""}, "entrypoint: expected a string, got an empty string"),
        ({"description": 5}, "description: expected a string, got 5"),
        ({"description": "a\x1b[2J"}, "description: expected a string of printable characters, got 'a\\x1b[2J'"),
        ({"commands": "poll"}, "commands: expected a list or a mapping, got 'poll'"),
        ({"commands": []}, "commands: expected at least one command"),
        ({"commands": {}}, "commands: expected at least one command"),
        ({"commands": ["poll", "poll"]}, "commands[1]: the command 'poll' is listed twice"),
        ({"commands": ["poll", {"name": "poll"}]}, "commands[1]: the command 'poll' is listed twice"),
        ({"commands": [{"type": "read"}]}, "commands[0]: the key 'name' is missing"),
        ({"commands": [7]}, f"commands[0]: {NAME} 7"),
        ({"commands": [{"name": "a b"}]}, f"commands[0].name: {NAME} 'a b'"),
        ({"commands": {"a b": None}}, f"commands.a b: {NAME} 'a b'"),
        ({"commands": {"poll": "fetches"}}, "commands.poll: expected a mapping, got 'fetches'"),
        (
            {"commands": [{"name": "poll", "type": "reed"}]},
            "commands[0].type: expected one of read, write, got 'reed' (did you mean 'read'?)",
        ),
        ({"config_keys": ["message"]}, "config_keys: expected a mapping, got a list"),
        ({"config_keys": {"required": "message"}}, "config_keys.required: expected a list, got 'message'"),
        ({"config_keys": {"optional": [1]}}, "config_keys.optional[0]: expected a string, got 1"),
        ({"private_state": "session"}, "private_state: expected a list, got 'session'"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(change, problem):
    assert problems_of({**SMALLEST, **change}) == [problem]


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ([], ["expected a mapping, got a list"]),
        ("echo", ["expected a mapping, got 'echo'"]),
        (
            {},
            [
                "the key 'name' is missing",
                "the key 'version' is missing",
                "the key 'protocol' is missing",
                "the key 'entrypoint' is missing",
                "the key 'commands' is missing",
            ],
        ),
    ],
)
def test_a_document_that_is_no_manifest_is_refused(value, problems):
    assert problems_of(value) == problems


def test_all_problems_are_reported_at_once():
    assert len(problems_of({**SMALLEST, "name": "", "protocol": 3, "entrypoint": "/x"})) == 3


@pytest.mark.parametrize(
    ("value", "name"),
    [({"name": "echo", "protocol": 9}, "echo"), ({"name": "a b"}, None), ({"name": 3}, None), ({}, None), ([], None)],
)
def test_a_bad_manifest_still_tells_its_name(value, name):
    assert manifest_name(value) == name


def test_required_keys_that_are_absent_or_null_are_missing():
    manifest = parsed(config_keys={"required": ["one", "two", "three", "four"], "optional": ["five"]})
    assert missing_keys(manifest, {"two": None, "three": "", "four": False}) == ("one", "two")
