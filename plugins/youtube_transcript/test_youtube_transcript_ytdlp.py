"""The youtube_transcript plugin with a yt-dlp in PATH that leaves files as the real one does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ductile.protocol import Response
from support.transcripts import ENVIRON, ID, LINK, Site, encoded, failure, run, run_process

INFO = {"id": ID, "title": "Talk: \"Steel\" & more", "channel": "The Forge", "uploader": "Forge, The", "duration": 212,
        "subtitles": {"en": [{"ext": "vtt"}], "live_chat": [{"ext": "json"}]},
        "automatic_captions": {"en": [], "de": []}}
ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.389 align:start position:0%
 
hello<00:00:00.480><c> and</c><00:00:00.800><c> welcome</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello and welcome
 

00:00:02.399 --> 00:00:04.000 align:start position:0%
hello and welcome
to<00:00:02.499><c> the</c><00:00:02.699><c> show</c>
"""
PLAIN = "WEBVTT\n\n00:01.000 --> 00:02.000\nyes\n\n00:02.000 --> 00:03.000\nyes\n"


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "work%(id)s space"
    made.mkdir()
    return made


def install(tmp_path: Path, script: str, files: dict[str, str]) -> Path:
    """Install a yt-dlp that records its arguments, leaves these files where `-o` says, and runs a script."""
    kept = tmp_path / "kept"
    kept.mkdir(exist_ok=True)
    for name, text in files.items():
        (kept / name).write_text(text, encoding="utf-8")
    program = tmp_path / "bin" / "yt-dlp"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"""#!/bin/sh
printf '%s\\n' "$@" >'{tmp_path}/arguments'
while [ "$1" != -o ]; do shift; done
place=$(printf %s "${{2%/*}}" | sed 's/%%/%/g')
for file in '{kept}'/*; do [ ! -f "$file" ] || cp -- "$file" "$place/"; done
echo '[info] {ID}: Downloading subtitles: en'
{script}
""", encoding="utf-8")
    program.chmod(0o755)
    return program


def files(info: object = INFO, **tracks: str) -> dict[str, str]:
    named = {f"{ID}.{language.replace('_', '-')}.vtt": text for language, text in tracks.items()}
    return {f"{ID}.info.json": json.dumps(info), **named}


def read(tmp_path: Path, workspace: Path, **config: object) -> Response:
    """Run the plugin with that yt-dlp first in PATH, and a site that nobody should ask."""
    config = {"base_url": "http://127.0.0.1:9", **config}
    environ = {"PATH": f"{tmp_path / 'bin'}:{ENVIRON['PATH']}"}
    return run(encoded(workspace, LINK, config), workspace, environ=environ)


def left(workspace: Path) -> list[str]:
    return sorted(path.name for path in workspace.iterdir())


def test_captions_by_yt_dlp_become_two_files_and_an_event(tmp_path, workspace):
    install(tmp_path, "", files(en=PLAIN))
    response = read(tmp_path, workspace)
    (event,) = response.events
    assert (response.status, response.result) == ("ok", f"2 words of video {ID} in en")
    assert event.type == "youtube.transcript"
    assert event.payload == {"video_id": ID, "title": INFO["title"], "transcript_path": f"{workspace}/transcript.txt",
                             "language": "en", "words": 2}
    assert (workspace / "transcript.txt").read_text(encoding="utf-8") == "yes yes\n"
    assert json.loads((workspace / "video.json").read_text(encoding="utf-8")) == {
        "id": ID, "title": INFO["title"], "channel": "The Forge", "url": LINK, "duration_seconds": 212,
        "language": "en", "captions": "manual", "source": "yt-dlp",
    }
    assert left(workspace) == ["transcript.txt", "video.json"]


def test_it_is_asked_for_captions_alone_and_in_the_workspace(tmp_path, workspace):
    install(tmp_path, "", files(en=PLAIN))
    read(tmp_path, workspace, languages=["en", "pt-BR"])
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    output = arguments.pop(arguments.index("-o") + 1)
    assert re.fullmatch(r"(.+)/\.yt-dlp-\w+/%\(id\)s\.%\(ext\)s", output)[1] == str(workspace).replace("%", "%%")
    assert arguments == [
        "--ignore-config", "--no-playlist", "--no-progress", "--skip-download", "--write-subs", "--write-auto-subs",
        "--sub-langs", "en(?-i:-[A-Z]{2})?,pt-BR(?-i:-[A-Z]{2})?", "--sub-format", "vtt", "--write-info-json", "-o",
        "--", LINK]


@pytest.mark.parametrize(("name", "asked"), [("en", True), ("en-GB", True), ("en-de", False), ("eng", False),
                                             ("en-orig", False), ("de", False)])
def test_the_languages_are_those_of_the_country_and_not_machine_translations(tmp_path, workspace, name, asked):
    install(tmp_path, "", files(en=PLAIN))
    read(tmp_path, workspace)
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    # As yt-dlp matches them.
    pattern = re.compile(arguments[arguments.index("--sub-langs") + 1], re.IGNORECASE)
    assert (pattern.fullmatch(name) is not None) is asked


@pytest.mark.parametrize(
    ("by_hand", "tracks", "languages", "chosen"),
    [
        (["en"], {"en": PLAIN}, ["en"], ("en", "manual", "yes yes\n")),
        ([], {"en": ROLLING}, ["en"], ("en", "automatic", "hello and welcome to the show\n")),
        ([], {"en": PLAIN}, ["en"], ("en", "automatic", "yes yes\n")),
        (["en-GB"], {"en": ROLLING, "en_GB": PLAIN}, ["en"], ("en-GB", "manual", "yes yes\n")),
        (["de", "en"], {"en": PLAIN, "de": PLAIN}, ["de", "en"], ("de", "manual", "yes yes\n")),
    ],
)
def test_the_track_is_chosen_as_from_a_page(tmp_path, workspace, by_hand, tracks, languages, chosen):
    info = {**INFO, "subtitles": {name: [] for name in by_hand}}
    install(tmp_path, "", files(info, **tracks))
    assert read(tmp_path, workspace, languages=languages).status == "ok"
    described = json.loads((workspace / "video.json").read_text(encoding="utf-8"))
    text = (workspace / "transcript.txt").read_text(encoding="utf-8")
    assert (described["language"], described["captions"], text) == chosen


@pytest.mark.parametrize(
    ("info", "error"),
    [
        ({**INFO, "subtitles": {}}, f"video {ID} has no captions"),
        ({**INFO, "subtitles": None}, f"video {ID} has no captions"),
        ({**INFO, "subtitles": {"de": [], "fr": [], "live_chat": []}},
         f"video {ID} has no captions in en, only in de, fr: add one of them to languages"),
    ],
)
def test_a_video_without_the_captions_is_given_up(tmp_path, workspace, info, error):
    install(tmp_path, "", files(info))
    assert failure(read(tmp_path, workspace)) == (error, False)
    assert left(workspace) == []


@pytest.mark.parametrize(
    ("said", "error", "retry"),
    [
        (f"ERROR: [youtube] {ID}: Private video. Sign in if you have been granted access",
         f"[youtube] {ID}: Private video. Sign in if you have been granted access", False),
        (f"WARNING: slow\nERROR: [youtube] {ID}: Video unavailable\n", f"[youtube] {ID}: Video unavailable", False),
        (f"ERROR: [youtube] {ID}: Video unavailable. This video has been removed by the uploader",
         f"[youtube] {ID}: Video unavailable. This video has been removed by the uploader", False),
        (f"ERROR: [youtube] {ID}: Video unavailable. This content is not available, try again later.",
         f"[youtube] {ID}: Video unavailable. This content is not available, try again later.", True),
        (f"ERROR: [youtube] {ID}: Sign in to confirm you\u2019re not a bot",
         f"[youtube] {ID}: Sign in to confirm you\u2019re not a bot", True),
        ("ERROR: Unable to download video subtitles for 'en': HTTP Error 429: Too Many Requests",
         "Unable to download video subtitles for 'en': HTTP Error 429: Too Many Requests", True),
        ("ERROR: unable to download webpage: HTTP Error 503", "unable to download webpage: HTTP Error 503", True),
        ("Traceback", "exited 3", True), ("", "exited 3", True),
    ],
)
def test_what_yt_dlp_fails_of_is_said_and_tried_again_where_it_may_pass(tmp_path, workspace, said, error, retry):
    (tmp_path / "said").write_text(said, encoding="utf-8")
    install(tmp_path, f"cat '{tmp_path}/said' >&2; exit 3", {})
    assert failure(read(tmp_path, workspace)) == (f"yt-dlp: {error}", retry)
    assert left(workspace) == []


def test_a_yt_dlp_that_is_killed_is_tried_again(tmp_path, workspace):
    install(tmp_path, "kill -9 $$", {})
    assert failure(read(tmp_path, workspace)) == ("yt-dlp: was ended by signal 9", True)


@pytest.mark.parametrize("script", ["exec sleep 999999999", "trap '' TERM; sleep 999999999; :"])
def test_a_yt_dlp_that_takes_too_long_is_ended_and_cleaned_up_after(tmp_path, workspace, script):
    install(tmp_path, script, files(en=PLAIN))
    request = encoded(workspace, LINK, {"base_url": "http://127.0.0.1:9", "timeout": 0.5})
    environ = {"PATH": f"{tmp_path / 'bin'}:{ENVIRON['PATH']}"}
    assert failure(run_process(request, workspace, environ=environ)) == ("yt-dlp was not done within 0.5 s", True)
    assert left(workspace) == []


@pytest.mark.parametrize(
    ("made", "error"),
    [
        ({}, f"yt-dlp left no readable {ID}.info.json"),
        ({f"{ID}.info.json": "{"}, f"yt-dlp left no readable {ID}.info.json"),
        ({f"{ID}.info.json": "[]"}, f"yt-dlp left no readable {ID}.info.json"),
        (files(en=""), f"yt-dlp left no captions in {ID}.en.vtt"),
        (files(en="<html>"), f"yt-dlp left no captions in {ID}.en.vtt"),
    ],
)
def test_files_that_are_missing_or_of_another_form_are_tried_again(tmp_path, workspace, made, error):
    install(tmp_path, "", made)
    assert failure(read(tmp_path, workspace)) == (error, True)
    assert left(workspace) == []


def test_a_program_that_is_none_is_tried_again(tmp_path, workspace):
    program = install(tmp_path, "", {})
    program.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    assert failure(read(tmp_path, workspace)) == (f"{program}: No such file or directory", True)


def test_another_program_can_be_named(tmp_path, workspace):
    program = install(tmp_path, "", files(en=PLAIN)).rename(tmp_path / "other")
    request = encoded(workspace, LINK, {"ytdlp": str(program)})
    assert run(request, workspace).status == "ok"


def test_false_switches_it_off(tmp_path, workspace, site):
    install(tmp_path, "", files(en=PLAIN))
    site.has()
    assert failure(read(tmp_path, workspace, ytdlp=False, base_url=site.url)) == (f"video {ID} has no captions", False)
    assert not (tmp_path / "arguments").exists()


def test_health_names_it_and_runs_nothing(tmp_path, workspace):
    program = install(tmp_path, "", {})
    request = encoded(workspace, LINK, {"ytdlp": str(program)}, command="health")
    assert run(request, workspace).result == f"would use {program}"
    assert not (tmp_path / "arguments").exists()
