"""The note plugin: what it files, once, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from ductile.protocol import Response, decode_response
from support import ordinary, steps
from support.notified import ENVIRON, failure

HERE = Path(__file__).resolve().parent
NOBODY = 65534
URL = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
# As the plugin sees it in the pipeline, with what all the steps before it said.
PAYLOAD = {"url": URL, "title": "How to bake", "channel_id": "1162000000000000001",
           "origin_user_id": "80351110224678912", "origin_plugin": "webhook:/webhooks/discord",
           "origin_event_type": "webhook", "origin_job_id": steps.ROOT_JOB, "video_id": "dQw4w9WgXcQ",
           "summary_words": 3, "summarizer": "extractive"}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    (made / "transcript.txt").write_text("The whole talk.\n", encoding="utf-8")
    (made / "summary.txt").write_text("The short of it.\n", encoding="utf-8")
    return made


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def do(workspace: Path, notes: Path | str, payload: object = None, *, command: str = "handle", tags: object = None,
       environ: dict[str, str] | None = None, job_id: str = "j-1", **event: object) -> Response:
    given = steps.request(workspace, {"directory": str(notes), "tags": tags}, PAYLOAD if payload is None else payload,
                          command=command, job_id=job_id, **event)
    return steps.run(HERE, given, workspace, environ=ENVIRON | {"TZ": "UTC"} | (environ or {}))


def filed(notes: Path, response: Response) -> str:
    """Return the name of the note that an answer tells of, after a look at everything that says so."""
    assert (response.status, response.error) == ("ok", None)
    (event,) = response.events
    assert (event.type, event.payload.keys()) == ("note.filed", {"note_path", "note_title"})
    assert (notes / event.payload["note_path"]).is_file()
    return event.payload["note_path"]


def names(notes: Path) -> list[str]:
    return sorted(path.name for path in notes.iterdir())


def front_matter(note: Path) -> dict:
    """Return the front matter as a YAML reader sees it."""
    empty, block, body = note.read_text(encoding="utf-8").split("---\n", 2)
    assert empty == "" and body.startswith("\n# ")
    return yaml.safe_load(block)


# The note

def test_a_note_has_front_matter_summary_and_transcript(workspace, notes):
    response = do(workspace, notes, PAYLOAD | {"channel": "The Kitchen"}, tags=["video", "to read"])
    assert filed(notes, response) == "2026-02-08-how-to-bake.md"
    assert response.events[0].payload["note_title"] == "How to bake"
    assert response.result == "filed as 2026-02-08-how-to-bake.md"
    assert (notes / "2026-02-08-how-to-bake.md").read_text(encoding="utf-8") == f"""---
title: "How to bake"
url: "{URL}"
channel: "The Kitchen"
source: "webhook:/webhooks/discord"
ductile_job: "{steps.ROOT_JOB}"
source_event: "e-1"
tags: ["video", "to read"]
date: 2026-02-08T10:00:00+00:00
---

# How to bake

<{URL}>

## Summary

The short of it.

## Transcript

The whole talk.
"""
    assert names(notes) == ["2026-02-08-how-to-bake.md"]


def test_a_process_files_a_note_too(workspace, notes):
    given = steps.request(workspace, {"directory": str(notes)}, PAYLOAD)
    assert filed(notes, steps.run_process(HERE, given, workspace)) == "2026-02-08-how-to-bake.md"


def test_the_channel_is_known_from_the_video_too(workspace, notes):
    (workspace / "video.json").write_text(json.dumps({"id": "x", "channel": "The Kitchen"}), encoding="utf-8")
    assert front_matter(notes / filed(notes, do(workspace, notes)))["channel"] == "The Kitchen"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"channel": 5}', b"{}", b"\xff", b"[" * 100_000])
def test_a_strange_video_has_no_channel(workspace, notes, content):
    (workspace / "video.json").write_bytes(content)
    assert "channel" not in front_matter(notes / filed(notes, do(workspace, notes)))


def test_what_is_not_known_is_left_out(workspace, notes):
    assert filed(notes, do(workspace, notes, {}, source="cli")) == "2026-02-08-untitled.md"
    matter = front_matter(notes / "2026-02-08-untitled.md")
    assert matter.pop("date").isoformat() == "2026-02-08T10:00:00+00:00"
    assert matter == {"title": "untitled", "source": "cli", "ductile_job": "j-1", "source_event": "e-1"}
    assert "<" not in (notes / "2026-02-08-untitled.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("title", [None, "", " \n", 5, ["x"]])
def test_without_a_title_the_video_gives_its_id(workspace, notes, title):
    name = filed(notes, do(workspace, notes, PAYLOAD | {"title": title}))
    assert (name, front_matter(notes / name)["title"]) == ("2026-02-08-dqw4w9wgxcq.md", "dQw4w9WgXcQ")


@pytest.mark.parametrize(
    ("timestamp", "zone", "name", "date"),
    [
        ("2026-02-08T20:00:00.000Z", "Australia/Sydney", "2026-02-09-how-to-bake.md", "2026-02-09T07:00:00+11:00"),
        ("2026-02-08T02:00:00.000Z", "America/New_York", "2026-02-07-how-to-bake.md", "2026-02-07T21:00:00-05:00"),
    ],
)
def test_the_day_is_that_of_the_event_here(workspace, notes, timestamp, zone, name, date):
    assert filed(notes, do(workspace, notes, timestamp=timestamp, environ={"TZ": zone})) == name
    assert f"\ndate: {date}\n" in (notes / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("timestamp", [None, "soon", 5])
def test_an_event_without_a_time_is_of_now(workspace, notes, timestamp):
    assert re.fullmatch(r"20\d\d-\d\d-\d\d-how-to-bake\.md", filed(notes, do(workspace, notes, timestamp=timestamp)))


HOSTILE = [
    'quotes " \' and \\ \\" \\n', "line\nbreaks\r\n---\nurl: evil", "---", "--- ...", "a\u2028b\u2029c\u0085d",
    "\x00\x1b[2J\x7f\x9f!",
    "# *x* _y_ [a](http://b) <script> `c` | d", "{a: 1}", "- x", "!!python/object:x", "%YAML", "&a *a", "yes", "5",
    "~",
    "é ☃ 😀 👩\u200d👩\u200d👧 \u202eright to left\u2066 \ufeff", "\ufffe\uffff x", "../../etc/passwd", "/", "..",
    ".hidden", "a" * 5000, "é" * 500, "😀" * 300, "नमस्ते दुनिया " * 30,
]


@pytest.mark.parametrize("title", HOSTILE)
def test_no_title_gets_out_of_its_place(workspace, notes, title):
    payload = PAYLOAD | {"title": title, "url": title, "channel": title, "origin_plugin": title}
    name = filed(notes, do(workspace, notes, payload))
    assert names(notes) == [name]
    assert re.fullmatch(r"2026-02-08-[^/\s.]+\.md", name) and len(name.encode()) <= 120
    assert len((notes / name).read_text(encoding="utf-8").split("\n# ")) == 2
    matter = front_matter(notes / name)
    assert matter.keys() == {"title", "url", "channel", "source", "ductile_job", "source_event", "date"}
    shown = matter["title"]
    assert len(shown.splitlines()) == 1 and (matter["url"], matter["channel"], matter["source"]) == (shown,) * 3
    # Nothing but white space and what cannot be seen is lost.
    assert re.sub(r"[\s\W]", "", shown) == re.sub(r"[\s\W]", "", title)


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("How to: bake (bread)!", "how-to-bake-bread"), ("  -- Größe & Maß -- ", "größe-maß"), ("Хлеб 2.0", "хлеб-2-0"),
        ("パンの作り方", "パンの作り方"), ("e\u0301tude", "étude"), ("???", "untitled"), ("नमस्ते", "नमस्ते"),
        # 120 bytes, less the day, the ending and room for a number.
        ("a" * 500, "a" * 101), ("é" * 500, "é" * 50), ("b" * 99 + "e\u0323\u0301\u0302", "b" * 99),
    ],
)
def test_the_name_keeps_the_letters_of_the_title(workspace, notes, title, slug):
    assert filed(notes, do(workspace, notes, PAYLOAD | {"title": title})) == f"2026-02-08-{slug}.md"


def test_a_heading_says_what_the_title_says(workspace, notes):
    name = filed(notes, do(workspace, notes, PAYLOAD | {"title": "# *x* [a](b) <c>"}))
    assert "\n# \\# \\*x\\* \\[a\\](b) \\<c\\>\n" in (notes / name).read_text(encoding="utf-8")


# The texts

def test_the_payload_says_where_the_texts_are(workspace, notes):
    (workspace / "other").mkdir()
    (workspace / "other" / "s").write_text("Short.", encoding="utf-8")
    (workspace / "other" / "t").write_text("Long.", encoding="utf-8")
    payload = PAYLOAD | {"summary_path": f"{workspace}/other/s", "transcript_path": f"{workspace}/other/t"}
    text = (notes / filed(notes, do(workspace, notes, payload))).read_text(encoding="utf-8")
    assert text.endswith("\n## Summary\n\nShort.\n\n## Transcript\n\nLong.\n")


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "{workspace}/../secret", "link", "a\0b", 5])
def test_a_path_out_of_the_workspace_is_not_followed(workspace, notes, path):
    (workspace.parent / "secret").write_text("root:", encoding="utf-8")
    (workspace / "link").symlink_to("/etc/passwd")
    path = path.format(workspace=workspace) if isinstance(path, str) else path
    response = do(workspace, notes, PAYLOAD | {"summary_path": path, "transcript_path": path})
    text = (notes / filed(notes, response)).read_text(encoding="utf-8")
    assert text.endswith("\n## Summary\n\nThe short of it.\n\n## Transcript\n\nThe whole talk.\n")


@pytest.mark.parametrize(("gone", "heading"), [("summary.txt", "## Transcript"), ("transcript.txt", "## Summary")])
def test_one_of_the_texts_may_be_missing(workspace, notes, gone, heading):
    (workspace / gone).unlink()
    response = do(workspace, notes)
    text = (notes / filed(notes, response)).read_text(encoding="utf-8")
    assert re.findall("^## .*", text, re.MULTILINE) == [heading]
    assert [(line.level, line.message) for line in response.logs] == [
        ("warn", f"{gone}: there is no such text in the workspace")]


@pytest.mark.parametrize("content", [None, b"", b" \n\0"])
def test_without_any_text_there_is_no_note(workspace, notes, content):
    for path in list(workspace.iterdir()):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
    assert failure(do(workspace, notes)) == (
        "there is neither a summary nor a transcript in the workspace, no note was filed", False)
    assert not notes.exists()


def test_a_text_of_absurd_size_is_not_filed(workspace, notes):
    with (workspace / "transcript.txt").open("wb") as file:
        file.truncate(4 * 1024 * 1024 + 1)
    assert failure(do(workspace, notes)) == ("transcript.txt: larger than 4 MiB, that is no text", False)


# Once

def test_a_second_run_of_the_job_files_no_second_note(workspace, notes):
    first = do(workspace, notes)
    before = (notes / filed(notes, first)).stat()
    again = do(workspace, notes)
    assert again.result == "already filed as 2026-02-08-how-to-bake.md"
    assert again.events == first.events
    assert (names(notes), (notes / filed(notes, again)).stat().st_ino) == (["2026-02-08-how-to-bake.md"], before.st_ino)


def test_another_chain_gets_another_note(workspace, notes):
    found = [filed(notes, do(workspace, notes, PAYLOAD | {"origin_job_id": f"root-{n}"})) for n in (1, 2, 3, 2, 3, 1)]
    stem = "2026-02-08-how-to-bake"
    assert found == [f"{stem}.md", f"{stem}-2.md", f"{stem}-3.md", f"{stem}-2.md", f"{stem}-3.md", f"{stem}.md"]
    assert names(notes) == sorted(set(found))


def test_another_video_of_the_chain_gets_another_note(workspace, notes):
    assert len({filed(notes, do(workspace, notes, PAYLOAD | {"url": url})) for url in (URL, URL + "&t=5", URL)}) == 2


def test_without_a_url_another_event_gets_another_note(workspace, notes):
    payload = PAYLOAD | {"url": None}
    assert len({filed(notes, do(workspace, notes, payload, event_id=event)) for event in ("e-1", "e-2", "e-1")}) == 2


@pytest.mark.parametrize("taken", [b"", b"mine", b"---\n", b"---\ntitle: x\n---\n", b"\xff", b"---\nductile_job: x\n"])
def test_what_has_the_name_stays_as_it_is(workspace, notes, taken):
    notes.mkdir()
    (notes / "2026-02-08-how-to-bake.md").write_bytes(taken)
    assert filed(notes, do(workspace, notes)) == "2026-02-08-how-to-bake-2.md"
    assert (notes / "2026-02-08-how-to-bake.md").read_bytes() == taken


def test_links_and_directories_of_the_name_stay_too(workspace, notes, tmp_path):
    notes.mkdir()
    (notes / "2026-02-08-how-to-bake.md").symlink_to(tmp_path / "nowhere")
    (notes / "2026-02-08-how-to-bake-2.md").mkdir()
    assert filed(notes, do(workspace, notes)) == "2026-02-08-how-to-bake-3.md"
    assert not (tmp_path / "nowhere").exists()


def test_what_a_killed_run_left_behind_is_cleared_away(workspace, notes):
    notes.mkdir()
    (notes / ".note-j-1.new").write_bytes(b"half a no")
    filed(notes, do(workspace, notes))
    assert names(notes) == ["2026-02-08-how-to-bake.md"]


# The directory

def test_the_directory_is_made_with_those_above_it(workspace, tmp_path):
    notes = tmp_path / "a" / "b c"
    assert filed(notes, do(workspace, f"{notes}//../b c/"))


def test_the_home_of_the_user_is_found(workspace, tmp_path):
    response = do(workspace, "~/notes", environ={"HOME": str(tmp_path / "home")})
    assert filed(tmp_path / "home" / "notes", response)


def test_a_directory_that_cannot_be_one_is_named(workspace, notes):
    notes.write_text("a file", encoding="utf-8")
    assert failure(do(workspace, notes)) == (f"directory: {notes}: File exists", True)
    assert failure(do(workspace, notes / "x")) == (f"directory: {notes}/x: Not a directory", True)


def as_nobody(workspace: Path, notes: Path, command: str = "handle") -> Response:
    workspace.parent.chmod(0o755)
    for path in workspace.iterdir():
        path.chmod(0o444)
    # A copy, for the checkout may be below a directory that is closed to others.
    plugins = workspace.parent / "plugins"
    for name in ("note", "lib"):
        shutil.copytree(HERE.parent / name, plugins / name, ignore=shutil.ignore_patterns("test_*", "__pycache__"),
                        dirs_exist_ok=True)
    given = steps.request(workspace, {"directory": str(notes)}, PAYLOAD, command=command)
    path = f"{ordinary.program('python').parent}:{os.environ['PATH']}"
    return steps.run_process(plugins / "note", given, workspace, environ=ENVIRON | {"PATH": path}, as_user=NOBODY)


@pytest.fixture
def reachable(tmp_path: Path) -> None:
    """Let an ordinary user through to the test's directory."""
    closed = [path for path in tmp_path.parents if not path.stat().st_mode & stat.S_IXOTH]
    modes = {path: path.stat().st_mode for path in closed}
    for path in closed:
        path.chmod(modes[path] | 0o711)
    yield
    for path, mode in modes.items():
        path.chmod(mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which takes root")
def test_a_directory_that_may_not_be_written_is_left_as_it_is(workspace, notes, reachable):
    notes.mkdir(mode=0o755)
    assert failure(as_nobody(workspace, notes)) == (f"directory: {notes}: Permission denied", True)
    assert failure(as_nobody(workspace, notes, "health")) == (f"directory: {notes}: cannot be written", False)
    assert names(notes) == []
    assert failure(as_nobody(workspace, notes.parent / "new")) == (
        f"directory: {notes.parent}/new: Permission denied", True)
    assert not (notes.parent / "new").exists()


def test_a_note_that_does_not_fit_leaves_nothing_behind(workspace, notes):
    (workspace / "transcript.txt").write_text("word " * 50_000, encoding="utf-8")
    given = steps.request(workspace, {"directory": str(notes)}, PAYLOAD)
    done = subprocess.run(
        ["prlimit", "--fsize=100000", HERE / "run.py"], input=given, env=ENVIRON, cwd=workspace, capture_output=True,
        check=True, timeout=60)
    assert failure(decode_response(done.stdout)) == (f"directory: {notes}: File too large", True)
    assert names(notes) == []


def test_health_says_where_notes_would_go_and_makes_nothing(workspace, notes):
    assert do(workspace, notes / "new", command="health").result == f"would file notes in {notes}/new"
    assert not notes.exists()
    notes.write_text("a file", encoding="utf-8")
    for place in (notes, notes / "new"):
        assert failure(do(workspace, place, command="health")) == (f"directory: {notes}: not a directory", False)


@pytest.mark.parametrize("job_id", ["../x", "", "a/b", "x" * 65])
def test_a_job_id_that_is_none_names_no_file(workspace, notes, job_id):
    assert failure(do(workspace, notes, job_id=job_id)) == ("job_id: expected letters, digits and hyphens", False)
