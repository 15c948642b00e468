"""The summarize plugin, by itself and with a command: what it leaves in the workspace."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from ductile.protocol import Response
from support import steps
from support.notified import ENVIRON, failure
from support.plugin_runs import readme_config

HERE = Path(__file__).resolve().parent
LECTURE = """Welcome to the kitchen. Today we bake sourdough bread at home. Sourdough bread needs a starter.
A starter is flour and water in which wild yeast lives. You feed the starter each day with flour and water.
My neighbour has a small dog. The weather was nice yesterday. Mix the flour, the water and the starter to make the
dough. Let the dough rest for an hour. I forgot where my keys are. Fold the dough four times while it rests. Bake the
bread in a hot pot. Subscribe for more!"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    (made / "transcript.txt").write_text(LECTURE, encoding="utf-8")
    return made


def do(workspace: Path, payload: object = None, *, command: str = "handle", seconds_left: float = 60,
       config: object) -> Response:
    return steps.run(HERE, encoded(workspace, config, payload, command, seconds_left), workspace)


def do_as_process(workspace: Path, config: object, *, environ: dict[str, str] = ENVIRON, stderr: bytes = b"",
                  code: int = 0) -> Response:
    given = encoded(workspace, config, None, "handle", 60)
    return steps.run_process(HERE, given, workspace, stderr=stderr, environ=environ, code=code)


def encoded(workspace: Path, config: object, payload: object, command: str, seconds_left: float) -> bytes:
    return steps.request(workspace, config, payload, command=command, seconds_left=seconds_left)


def made(workspace: Path, response: Response) -> str:
    """Return the summary, after a look at everything that says so."""
    assert (response.status, response.error) == ("ok", None)
    text = (workspace / "summary.txt").read_text(encoding="utf-8")
    (event,) = response.events
    assert event.type == "summary.ready"
    assert event.payload.keys() == {"summary_path", "summary_words", "summarizer"}
    assert event.payload["summary_path"] == str(workspace / "summary.txt")
    assert text == text.strip() + "\n"
    return text.strip()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def only_inherited(workspace: Path) -> bool:
    return {path.name for path in workspace.iterdir()} == {"transcript.txt"}


# By itself

def test_it_takes_the_sentences_that_say_most_in_their_order(workspace):
    response = do(workspace, config={"sentences": 3})
    assert made(workspace, response) == (
        "Today we bake sourdough bread at home.\n\n"
        "A starter is flour and water in which wild yeast lives.\n\n"
        "Mix the flour, the water and the starter to make the dough.")
    assert response.events[0].payload["summarizer"] == "extractive"
    assert response.events[0].payload["summary_words"] == 30
    assert response.result == "91 words summed up in 30"


@pytest.mark.parametrize(("config", "count"), [({}, 5), ({"sentences": None}, 5), ({"sentences": 1}, 1),
                                               ({"sentences": 2}, 2), ({"sentences": 50}, 12)])
def test_it_takes_as_many_sentences_as_it_may(workspace, config, count):
    # The call to subscribe has three words: that is no sentence that says something.
    assert len(made(workspace, do(workspace, config=config)).split("\n\n")) == count


def test_captions_without_punctuation_are_taken_in_pieces(workspace):
    captions = " ".join(re.findall(r"\w+", (LECTURE + " ") * 3)).lower()
    (workspace / "transcript.txt").write_text(captions, encoding="utf-8")
    pieces = made(workspace, do(workspace, config={"sentences": 3})).split("\n\n")
    assert len(pieces) == 3
    assert all(piece in captions and 20 <= len(piece.split()) <= 30 for piece in pieces)
    assert captions.index(pieces[0]) < captions.index(pieces[1]) < captions.index(pieces[2])


def test_the_lines_of_captions_are_no_sentences(workspace):
    (workspace / "transcript.txt").write_text("the first half of\nit and the other half.", encoding="utf-8")
    assert made(workspace, do(workspace, config={})) == "the first half of it and the other half."


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Он рассказал о хлебе. Хлеб пекут из муки и воды. Погода была хорошей вчера. Хлеб и мука.",
         "Хлеб пекут из муки и воды."),
        ("猫が好きです。パンの生地を休ませてからパンを焼きます。パンです。",
         "パンの生地を休ませてからパンを焼きます。"),
        ("आज हम रोटी बनाएंगे। मौसम अच्छा है। रोटी के लिए आटा और पानी मिलाएं और रोटी सेंकें।",
         "रोटी के लिए आटा और पानी मिलाएं और रोटी सेंकें।"),
        ("one", "one"),
        ("Too short.", "Too short."),
        ("It costs 3.5 dollars in the U.S. and more there!", "It costs 3.5 dollars in the U.S. and more there!"),
    ],
)
def test_any_language_and_length_has_a_summary(workspace, text, sentences):
    (workspace / "transcript.txt").write_text(text, encoding="utf-8")
    assert made(workspace, do(workspace, config={"sentences": 1})) == sentences


def test_the_same_transcript_gives_the_same_summary(workspace):
    (workspace / "transcript.txt").write_text(" ".join(f"w{n % 97} x{n % 89}" for n in range(4000)), encoding="utf-8")
    environs = [ENVIRON | {"PYTHONHASHSEED": seed} for seed in "123"]
    texts = {made(workspace, do_as_process(workspace, {}, environ=environ)) for environ in environs}
    assert len(texts) == 1


def test_a_long_run_of_marks_costs_little_time(workspace):
    (workspace / "transcript.txt").write_text("." * 300_000 + '"' * 300_000 + " the end is here", encoding="utf-8")
    assert do(workspace, config={}).status == "ok"


def test_bytes_that_are_no_text_are_replaced(workspace):
    (workspace / "transcript.txt").write_bytes(b"\xef\xbb\xbfone \xff two\x00 three")
    assert made(workspace, do(workspace, config={})) == "one \ufffd two three"


# The transcript

@pytest.mark.parametrize("form", ["{workspace}/other.txt", "other.txt", "{workspace}/./other.txt"])
def test_the_payload_says_where_the_transcript_is(workspace, form):
    (workspace / "other.txt").write_text("The other one.", encoding="utf-8")
    payload = {"transcript_path": form.format(workspace=workspace)}
    assert made(workspace, do(workspace, payload, config={})) == "The other one."


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.txt", "{workspace}/../outside.txt", "{workspace}-2/x",
                                  "link", "", "a\0b", 5, None, ["x"]])
def test_a_path_out_of_the_workspace_is_not_followed(workspace, path):
    (workspace.parent / "outside.txt").write_text("root", encoding="utf-8")
    (workspace / "link").symlink_to("/etc/passwd")
    path = path.format(workspace=workspace) if isinstance(path, str) else path
    assert "bread" in made(workspace, do(workspace, {"transcript_path": path}, config={}))


def test_the_names_of_both_files_can_be_configured(workspace):
    (workspace / "in.txt").write_text("The other one.", encoding="utf-8")
    response = do(workspace, config={"input": "in.txt", "output": "out.md"})
    assert response.events[0].payload["summary_path"] == str(workspace / "out.md")
    assert (workspace / "out.md").read_text(encoding="utf-8") == "The other one.\n"


@pytest.mark.parametrize("payload", [None, [], "text", 5])
def test_any_payload_will_do(workspace, payload):
    assert made(workspace, do(workspace, payload, config={}))


@pytest.mark.parametrize("content", [b"", b" \n\t\n", b"\xef\xbb\xbf", b"... -- !"])
def test_an_empty_transcript_is_not_tried_again(workspace, content):
    (workspace / "transcript.txt").write_bytes(content)
    assert failure(do(workspace, config={})) == ("the transcript is empty", False)
    assert only_inherited(workspace)


def test_a_missing_transcript_is_not_tried_again(workspace):
    (workspace / "transcript.txt").unlink()
    missing = ": there is no such transcript in the workspace"
    assert failure(do(workspace, config={})) == (f"transcript.txt{missing}", False)
    payload = {"transcript_path": f"{workspace}/a/b.txt"}
    assert failure(do(workspace, payload, config={})) == (f"a/b.txt{missing}", False)
    os.mkfifo(workspace / "transcript.txt")
    assert failure(do(workspace, config={})) == (f"transcript.txt{missing}", False)


def test_a_transcript_of_absurd_size_is_not_read(workspace):
    with (workspace / "transcript.txt").open("wb") as file:
        file.truncate(4 * 1024 * 1024 + 1)
    assert failure(do(workspace, config={})) == ("transcript.txt: larger than 4 MiB, that is no transcript", False)


# The summary

def test_an_inherited_summary_is_replaced_and_not_written_into(workspace, tmp_path):
    ancestor = tmp_path / "summary.txt"
    ancestor.write_text("old", encoding="utf-8")
    ancestor.chmod(0o400)
    (workspace / "summary.txt").hardlink_to(ancestor)
    assert made(workspace, do(workspace, config={})) != "old"
    assert ancestor.read_text(encoding="utf-8") == "old"
    assert {path.name for path in workspace.iterdir()} == {"transcript.txt", "summary.txt"}


def test_a_summary_that_cannot_be_written_leaves_nothing_behind(workspace):
    (workspace / "summary.txt").mkdir()
    assert failure(do(workspace, config={})) == ("summary.txt: Is a directory", True)
    assert {path.name for path in workspace.iterdir()} == {"transcript.txt", "summary.txt"}


# With a command

def test_a_command_gets_the_whole_transcript_and_gives_the_summary(workspace):
    response = do(workspace, config={"command": ["sed", "-n", "s/.*kitchen.*/ $HOME * said twice /p"]})
    assert made(workspace, response) == "$HOME * said twice"
    assert response.events[0].payload == {
        "summary_path": str(workspace / "summary.txt"), "summary_words": 3, "summarizer": "command"}
    response = do(workspace, config={"command": ["cat"]})
    assert made(workspace, response) == LECTURE


def test_what_a_command_complains_of_belongs_to_the_attempt(workspace):
    config = {"command": ["sh", "-c", "echo loading >&2; echo done"]}
    response = do_as_process(workspace, config, stderr=b"loading\n")
    assert made(workspace, response) == "done"


@pytest.mark.parametrize(
    ("script", "error", "stderr"),
    [
        ("exit 3", "sh exited 3", b""),
        ("kill -9 $$", "sh was ended by signal 9", b""),
        ("echo x; echo >&2; echo one >&2; echo two >&2; echo three >&2; echo four >&2; exit 1",
         "sh exited 1: one; two; three", b"\none\ntwo\nthree\nfour\n"),
        ("printf '\\033[1mred\\tapple\\r\\n' >&2; exit 1", "sh exited 1: [1mredapple", b"\x1b[1mred\tapple\r\n"),
    ],
)
def test_a_command_that_fails_is_tried_again_and_says_why(workspace, script, error, stderr):
    assert failure(do_as_process(workspace, {"command": ["sh", "-c", script]}, stderr=stderr)) == (error, True)
    assert only_inherited(workspace)


def test_a_flood_of_complaints_is_cut_in_the_error(workspace):
    code = "import sys; sys.stderr.write('x' * 200_000); sys.exit(1)"
    response = do_as_process(workspace, {"command": python(code)}, stderr=b"x" * 200_000)
    assert failure(response) == (f"{sys.executable} exited 1: {'x' * 300}", True)


@pytest.mark.parametrize("script", [":", "echo", "echo ' \t'", "printf '\\000'", "echo ..."])
def test_a_command_that_says_nothing_is_tried_again(workspace, script):
    assert failure(do(workspace, config={"command": ["sh", "-c", script]})) == (
        "the summary is empty, made with a command", True)
    assert only_inherited(workspace)


@pytest.mark.parametrize("script", ["exec sleep 999999999", "exec >&- 2>&-; exec sleep 999999999"])
def test_a_command_that_takes_too_long_is_ended(workspace, script):
    response = do(workspace, config={"command": ["sh", "-c", script], "timeout": 0.3})
    assert failure(response) == ("sh was not done within 0.3 s", True)
    assert only_inherited(workspace)


def test_a_command_ends_before_the_step_does(workspace):
    error, retry = failure(do(workspace, config={"command": ["sleep", "999999999"]}, seconds_left=2.3))
    assert re.fullmatch(r"sleep was not done within 0(\.\d+)? s", error) and retry
    assert failure(do(workspace, config={"command": ["true"]}, seconds_left=1)) == (
        "there is no time left for a summary, give the step a longer timeout", True)


def test_what_a_command_leaves_in_the_background_is_not_waited_for(workspace, tmp_path):
    pid = tmp_path / "pid"
    try:
        script = f"sleep 999999999 & echo $! >{pid}; echo done"
        assert made(workspace, do_as_process(workspace, {"command": ["sh", "-c", script]})) == "done"
    finally:
        os.kill(int(pid.read_text()), 9)


def test_a_command_need_not_read_its_input(workspace):
    (workspace / "transcript.txt").write_text("word " * 60_000, encoding="utf-8")
    assert made(workspace, do(workspace, config={"command": ["echo", "done"]})) == "done"


def test_an_endless_summary_is_refused(workspace):
    assert failure(do(workspace, config={"command": ["yes"]})) == (
        "yes printed more than 1 MiB, that is no summary", False)


@pytest.mark.parametrize(("name", "error"), [("no-such-command", "No such file or directory"),
                                             ("./transcript.txt", "Permission denied")])
def test_a_command_that_cannot_be_run_is_not_tried_again(workspace, name, error):
    assert failure(do(workspace, config={"command": [name]})) == (f"command: {name}: {error}", False)


# What is configured wrongly

ARGV = "command: expected a list of strings, the command and its arguments (a number needs quotes)"
FILE_NAME = "the name of a file in the workspace, without a directory"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ([], "config: expected a mapping"),
        *(({"sentences": wrong}, "sentences: expected a whole number from 1 to 50")
          for wrong in (0, 51, 2.5, "5", True)),
        *(({"command": wrong}, ARGV) for wrong in ("ls -l", [], [""], ["x", 5], [["x"]], ["a\0"], {"ls": 1})),
        *(({"input": wrong}, f"input: expected {FILE_NAME}")
          for wrong in ("../x", "/x", "a/b", ".x", "", ".", 5, "a\n")),
        ({"output": "../x"}, f"output: expected {FILE_NAME}"),
        ({"output": "transcript.txt"}, "output: expected another file than the input"),
        ({"input": "summary.txt"}, "output: expected another file than the input"),
        *(({"timeout": wrong, "command": ["x"]}, "timeout: expected seconds, over 0, at most 86400")
          for wrong in (0, -1, "5s", True, 1e300)),
        ({"timeout": 5}, "timeout: counts only with a command or with an endpoint, take it out"),
        ({"model": "m"}, "model: counts only with an endpoint, take it out"),
        ({"command": ["x"], "api_key": "k"}, "api_key: counts only with an endpoint, take it out"),
        ({"command": ["x"], "sentences": 5}, "sentences: counts only without command or endpoint, take it out"),
        ({"command": ["x"], "endpoint": "http://h/v1"}, "config: expected command or endpoint, got both"),
        ({"sentence": 5}, "config: unknown key 'sentence', expected one of sentences, command, endpoint, model, "
                          "api_key, prompt, max_characters, timeout, input, output"),
    ],
)
def test_a_wrong_configuration_is_named_and_not_tried_again(workspace, config, error):
    for command in ("handle", "health"):
        assert failure(do(workspace, config=config, command=command)) == (error, False)
    assert only_inherited(workspace)


def test_health_says_how_it_would_sum_up_and_runs_nothing(workspace):
    assert do(workspace, config={}, command="health").result == "would sum up by itself"
    assert do(workspace, config={"command": ["touch", "made"]}, command="health").result == "would sum up with touch"
    assert failure(do(workspace, config={"command": ["no-such-command"]}, command="health")) == (
        "command: no-such-command: not found in PATH", False)
    assert failure(do(workspace, config={"command": ["/no/such"]}, command="health")) == (
        "command: /no/such: not found", False)
    assert only_inherited(workspace)


def test_a_wrong_configuration_exits_with_78(workspace):
    assert failure(do_as_process(workspace, {"sentences": 0}, code=78)) == (
        "sentences: expected a whole number from 1 to 50", False)


@pytest.mark.parametrize("given", [b"", b'{"config": '])
def test_what_is_no_request_is_refused(workspace, given):
    assert failure(steps.run_process(HERE, given, workspace)) == ("the request is not a JSON object", False)


@pytest.mark.parametrize("command", ["poll", None, ["handle"]])
def test_another_command_is_refused(workspace, command):
    given = json.dumps({"config": {}, "command": command}).encode()
    assert failure(steps.run(HERE, given, workspace)) == ("summarize has no such command", False)


@pytest.mark.parametrize("example", [0, 1])
def test_the_examples_of_the_readme_are_good_configurations(tmp_path, example):
    assert readme_config(HERE, tmp_path, {"MODEL_API_KEY": "k"}, example=example)
