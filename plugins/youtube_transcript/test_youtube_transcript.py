"""The youtube_transcript plugin: what it makes of a watch page and of captions."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.plugin_runs import readme_config
from support.transcripts import (
    DETAILS,
    ID,
    LINK,
    Site,
    body,
    encoded,
    failure,
    page,
    player,
    read,
    run,
    run_process,
    track,
)

HERE = Path(__file__).resolve().parent

JSON3 = json.dumps({"wireMagic": "pb3", "events": [
    {"tStartMs": 0, "dDurationMs": 2000, "segs": [{"utf8": "Iron is hard,\nsteel is harder."}]},
    {"tStartMs": 2100, "dDurationMs": 1500, "segs": [{"utf8": "Isn\u2019t it? 2 < 3 &amp; <i>so</i> on\u200b"}]},
    {"tStartMs": 9000, "dDurationMs": 1500, "segs": [{"utf8": "After a pause."}]},
]})
TEXT = "Iron is hard, steel is harder. Isn\u2019t it? 2 < 3 & so on\n\nAfter a pause.\n"

# Automatic captions as json3: words with offsets, and an event of a line break between the lines.
ROLLING_JSON3 = json.dumps({"wireMagic": "pb3", "events": [
    {"tStartMs": 0, "dDurationMs": 30_000, "id": 1, "wpWinPosId": 1, "wsWinStyleId": 1},
    {"tStartMs": 160, "dDurationMs": 4400, "wWinId": 1, "segs": [
        {"utf8": "hello", "acAsrConf": 0}, {"utf8": " and", "tOffsetMs": 320}, {"utf8": " welcome", "tOffsetMs": 640}]},
    {"tStartMs": 2389, "dDurationMs": 2171, "wWinId": 1, "aAppend": 1, "segs": [{"utf8": "\n"}]},
    {"tStartMs": 2399, "dDurationMs": 6000, "wWinId": 1, "segs": [
        {"utf8": "to"}, {"utf8": " the", "tOffsetMs": 100}, {"utf8": " show", "tOffsetMs": 300}]},
    {"tStartMs": 7000, "dDurationMs": 4000, "wWinId": 1, "segs": [
        {"utf8": "first"}, {"utf8": " question", "tOffsetMs": 300}]},
]})
# The same as WebVTT: each line is shown anew, stands still for a moment, and is shown above the next.
ROLLING_VTT = """WEBVTT
Kind: captions
Language: en

STYLE
::cue(c.colorE5E5E5) { color: rgb(229,229,229); }

NOTE made by a machine
in two lines

00:00:00.160 --> 00:00:02.389 align:start position:0%
 
hello<00:00:00.480><c> and</c><00:00:00.800><c> welcome</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello and welcome
 

00:00:02.399 --> 00:00:06.990 align:start position:0%
hello and welcome
to<00:00:02.499><c> the</c><00:00:02.699><c.colorE5E5E5> show</c>

00:00:06.990 --> 00:00:07.000 align:start position:0%
to the show
 

00:00:07.000 --> 00:00:09.000 align:start position:0%
to the show
first<00:00:07.300><c> question</c>

00:00:09.000 --> 00:00:09.010 align:start position:0%
first question
 
"""
ROLLING_TEXT = "hello and welcome to the show\n\nfirst question\n"


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


def said(workspace: Path) -> str:
    return (workspace / "transcript.txt").read_text(encoding="utf-8")


def asked(site: Site) -> list[str]:
    """Return the forms in which the track was asked for."""
    return [form for path in site.requests for form in re.findall("fmt=([a-z0-9]+)", path)]


# What comes of it

def test_captions_become_two_files_and_an_event(site, workspace):
    site.has(track(), json3=JSON3)
    response = run_process(encoded(workspace, LINK, {"base_url": site.url, "ytdlp": False}), workspace)
    (event,) = response.events
    assert (response.status, response.result) == ("ok", f"17 words of video {ID} in en")
    assert event.type == "youtube.transcript"
    assert event.payload == {
        "video_id": ID, "title": DETAILS["title"], "transcript_path": f"{workspace}/transcript.txt", "language": "en",
        "words": 17,
    }
    assert said(workspace) == TEXT
    assert json.loads((workspace / "video.json").read_text(encoding="utf-8")) == {
        "id": ID, "title": DETAILS["title"], "channel": "The Forge", "url": LINK, "duration_seconds": 212,
        "language": "en", "captions": "manual", "source": "watch page",
    }
    assert sorted(path.name for path in workspace.iterdir()) == ["transcript.txt", "video.json"]


def test_the_page_is_asked_in_english_and_the_signed_url_of_the_track_is_left_as_it_is(site, workspace):
    site.has(track(url=f"/api/timedtext?v={ID}&fmt=srv3&ei=x%2Cy&sig=A.B+C&name=\u00e9 e"), json3=JSON3)
    assert read(site, workspace).status == "ok"
    assert site.requests == [
        f"/watch?v={ID}&hl=en", f"/api/timedtext?v={ID}&ei=x%2Cy&sig=A.B+C&name=%C3%A9%20e&fmt=json3"]
    assert [headers["accept-language"] for headers in site.headers] == ["en", "en"]


def test_the_url_of_the_track_may_be_whole(site, workspace):
    site.has(track(url=f"{site.url}/api/timedtext?v={ID}"), json3=JSON3)
    assert read(site, workspace).status == "ok"


def test_a_redirect_within_the_site_is_followed(site, workspace):
    site.has(track(), json3=JSON3)
    site.answers["/moved"] = site.answers["/watch"]
    site.answers["/watch"] = body("", status=302, location="/moved")
    assert read(site, workspace).status == "ok"
    assert site.requests[1] == "/moved"


@pytest.mark.parametrize(
    "link",
    [
        LINK, f"http://youtube.com/watch?v={ID}", f"https://m.youtube.com/watch?feature=share&v={ID}&t=42s#x",
        f"https://music.youtube.com/watch?v={ID}&list=PL1", f"https://youtu.be/{ID}?si=abc", f"https://youtu.be/{ID}/",
        f"https://www.youtube.com/shorts/{ID}", f"https://www.youtube.com/embed/{ID}?start=1", f" {LINK}\n",
        f"https://www.youtube.com/live/{ID}?feature=share", f"https://www.youtube-nocookie.com/embed/{ID}",
        f"HTTPS://WWW.YouTube.com/watch/?v={ID}",
        # As people paste them.
        f"https://youtu.be/watch?v={ID}", f"{LINK}?t=30", f"https://youtu.be/{ID}&t=30", f"{LINK}\u201d", f'{LINK}"',
        f"https://youtu.be/{ID}\u200b", f"https://www.youtube.com/shorts/{ID}\u2019", f"\ufeff\u200b{LINK}",
        f"https://youtu.be/{ID}%E2%80%8B", f"\u201c{LINK}\u201d",
    ],
)
def test_every_kind_of_link_leads_to_the_video(site, workspace, link):
    site.has(track(), json3=JSON3)
    assert read(site, workspace, link=link).status == "ok"
    assert site.requests[0] == f"/watch?v={ID}&hl=en"


@pytest.mark.parametrize(
    ("link", "error"),
    [
        (None, "the payload has no url"), (5, "the payload has no url"),
        ("", "not a link to YouTube: "), ("words", "not a link to YouTube: words"),
        (f"https://example.org/watch?v={ID}", f"not a link to YouTube: https://example.org/watch?v={ID}"),
        (f"https://youtube.com.example.org/watch?v={ID}",
         f"not a link to YouTube: https://youtube.com.example.org/watch?v={ID}"),
        (f"https://notyoutube.com/watch?v={ID}", f"not a link to YouTube: https://notyoutube.com/watch?v={ID}"),
        (f"file://youtube.com/watch?v={ID}", f"not a link to YouTube: file://youtube.com/watch?v={ID}"),
        ("http://[youtu.be", "not a link to YouTube: http://[youtu.be"),
        ("https://youtu.be/", "the link leads to no video of YouTube: https://youtu.be/"),
        (f"https://youtu.be/{ID}x", f"the link leads to no video of YouTube: https://youtu.be/{ID}x"),
        ("https://www.youtube.com/@forge", "the link leads to no video of YouTube: https://www.youtube.com/@forge"),
        ("https://www.youtube.com/watch?v=../../..", "the link leads to no video of YouTube: "
         "https://www.youtube.com/watch?v=../../.."),
        (f"https://www.youtube.com/results?v={ID}",
         f"the link leads to no video of YouTube: https://www.youtube.com/results?v={ID}"),
        ("https://www.youtube.com/embed/videoseries?list=PL1",
         "the link leads to no video of YouTube: https://www.youtube.com/embed/videoseries?list=PL1"),
        ("https://www.youtube.com/embed/live_stream?channel=UC1",
         "the link leads to no video of YouTube: https://www.youtube.com/embed/live_stream?channel=UC1"),
        (f"{LINK}x?t=30", f"the link leads to no video of YouTube: {LINK}x?t=30"),
    ],
)
def test_any_other_link_is_refused_without_asking_anybody(site, workspace, link, error):
    assert failure(read(site, workspace, link=link)) == (error, False)
    assert (site.requests, list(workspace.iterdir())) == ([], [])


# Which track

MANUAL, ASR, BRITISH, GERMAN = track("en"), track("en", automatic=True), track("en-GB"), track("de")


@pytest.mark.parametrize(
    ("tracks", "languages", "asked_for"),
    [
        ([ASR, MANUAL], ["en"], "lang=en&"), ([ASR], ["en"], "lang=en&kind=asr"),
        ([ASR, GERMAN], None, "lang=en&kind=asr"),
        ([ASR, BRITISH], ["en"], "lang=en-GB"), ([BRITISH, MANUAL], ["en"], "lang=en&"),
        ([MANUAL, BRITISH], ["EN-gb"], "lang=en-GB"), ([MANUAL, GERMAN], ["de", "en"], "lang=de"),
        ([ASR, GERMAN], ["en", "de"], "lang=en&kind=asr"), ([GERMAN], ["fr", "de"], "lang=de"),
        ([track("eng"), GERMAN], ["en", "de"], "lang=de"),
    ],
)
def test_the_languages_choose_and_manual_comes_before_automatic(site, workspace, tracks, languages, asked_for):
    site.has(*tracks, json3=JSON3)
    response = read(site, workspace, languages=languages)
    assert response.status == "ok"
    assert f"{asked_for.removesuffix('&')}&fmt=json3" in site.requests[1]
    described = json.loads((workspace / "video.json").read_text(encoding="utf-8"))
    assert described["captions"] == ("automatic" if "asr" in asked_for else "manual")
    assert described["language"] == response.events[0].payload["language"]


@pytest.mark.parametrize(
    ("tracks", "error"),
    [
        ([], f"video {ID} has no captions"),
        ([GERMAN, track("fr", automatic=True)],
         f"video {ID} has no captions in en, ga, only in de, fr: add one of them to languages"),
        ([track(f"q{letter}") for letter in "abcdefghijk"],
         f"video {ID} has no captions in en, ga, only in qa, qb, qc, qd, qe, qf, qg, qh, qi, qj and more: "
         "add one of them to languages"),
    ],
)
def test_a_video_without_the_captions_is_given_up(site, workspace, tracks, error):
    site.has(*tracks)
    assert failure(read(site, workspace, languages=["en", "ga"])) == (error, False)
    assert list(workspace.iterdir()) == []


# Text

@pytest.mark.parametrize("documents", [{"json3": ROLLING_JSON3}, {"json3": "", "vtt": ROLLING_VTT},
                                       {"vtt": ROLLING_VTT}, {"json3": "<transcript/>", "vtt": ROLLING_VTT},
                                       {"json3": ROLLING_VTT}, {"json3": "{", "vtt": "\ufeff" + ROLLING_VTT},
                                       {"json3": '{"events": [5]}', "vtt": ROLLING_VTT.replace("\n", "\r\n")},
                                       {"json3": "[" * 99_999, "vtt": ROLLING_VTT.replace("\n \n", "\n\n")}])
def test_automatic_captions_are_said_once_in_every_form(site, workspace, documents):
    site.has(ASR, **documents)
    assert read(site, workspace).status == "ok"
    assert said(workspace) == ROLLING_TEXT


REFRAIN = ["row the boat", "merrily", "merrily", "merrily"]


def test_a_refrain_of_automatic_captions_is_no_overlap(site, workspace):
    cues = enumerate(REFRAIN)
    events = [{"tStartMs": 1000 * number, "dDurationMs": 1500, "segs": [{"utf8": line}]} for number, line in cues]
    site.has(ASR, json3=json.dumps({"events": events}))
    assert read(site, workspace).status == "ok"
    assert said(workspace) == "row the boat merrily merrily merrily\n"


@pytest.mark.parametrize("track_", [MANUAL, ASR])
def test_a_refrain_of_webvtt_that_does_not_roll_is_no_overlap(site, workspace, track_):
    cues = [f"00:0{number}.000 --> 00:0{number + 1}.000\n{line}\n" for number, line in enumerate(REFRAIN)]
    site.has(track_, vtt="\n".join(["WEBVTT\n", *cues]))
    assert read(site, workspace).status == "ok"
    assert said(workspace) == "row the boat merrily merrily merrily\n"


def test_karaoke_made_by_hand_is_no_overlap(site, workspace):
    cues = [f"00:0{number}.000 --> 00:0{number + 1}.000\n<00:0{number}.500>{line}\n"
            for number, line in enumerate(REFRAIN)]
    site.has(MANUAL, vtt="\n".join(["WEBVTT\n", *cues]))
    assert read(site, workspace).status == "ok"
    assert said(workspace) == "row the boat merrily merrily merrily\n"


def test_captions_that_roll_are_said_once_without_the_times_of_their_words(site, workspace):
    site.has(ASR, vtt=re.sub(r"<[0-9:.]+>|</?c[^>]*>", "", ROLLING_VTT))
    assert read(site, workspace).status == "ok"
    assert said(workspace) == ROLLING_TEXT.replace("\n\n", " ")


def test_webvtt_is_asked_for_only_where_the_json_is_not_to_be_had(site, workspace):
    site.has(ASR, json3=ROLLING_JSON3, vtt=ROLLING_VTT)
    read(site, workspace)
    site.has(ASR, json3="")
    read(site, workspace)
    assert asked(site) == ["json3", "json3", "vtt"]


@pytest.mark.parametrize(
    ("vtt", "text"),
    [
        ("WEBVTT\n\n1\n00:01.000 --> 00:02.000\n<v Ann>Tom &amp; Jerry&nbsp;&lt;3</v>\n\n2\n"
         "00:02.500 --> 00:03.000\nyes\n\n00:03.000 --> 00:04.000\nyes", "Tom & Jerry <3 yes yes\n"),
        ("WEBVTT\n\n100:00:01.000 --> 100:00:02.000 line:0\na <b>bold</b> <i>word</i>\nin two lines",
         "a bold word in two lines\n"),
        ("WEBVTT - a title\n\n00:01.000 --> 00:02.000\none\n\nNOTE two\n\n00:04.999 --> 00:05.000\nthree\n\n"
         "00:08.000 --> 00:09.000\n<c></c>\n\n00:08.000 --> 00:09.000\nfour\n", "one three\n\nfour\n"),
        # A cue right after another, and right after the header.
        ("WEBVTT\n\n00:01.000 --> 00:02.000\none\n00:02.000 --> 00:03.000\ntwo\n", "one two\n"),
        ("WEBVTT\n00:01.000 --> 00:02.000\none\n\n00:02.000 --> 00:03.000\ntwo\n", "one two\n"),
        ("WEBVTT\nKind: captions\n00:01.000 --> 00:02.000\none\n", "one\n"),
        ("WEBVTT\n\nNOTE a\nb\n00:01.000 --> 00:02.000\none\n\nSTYLE\n00:02.000 --> 00:03.000\ntwo\n", "one two\n"),
        ("WEBVTT\n\n00:01.000-->00:02.000\none\n\n2\n00:02.000--> 00:03.000 line:0\ntwo\n", "one two\n"),
        ("WEBVTT\n\n0:00:01 --> 0:00:02\none\n\n00:09.5 --> 00:10\ntwo\n", "one\n\ntwo\n"),
        # What only begins as a comment does is said.
        ("WEBVTT\n\n00:01.000 --> 00:02.000\none\n\nNOTEBOOKS\nand STYLE --> grace\n\nSTYLES",
         "one NOTEBOOKS and STYLE --> grace STYLES\n"),
    ],
)
def test_captions_made_by_hand_keep_every_word(site, workspace, vtt, text):
    site.has(MANUAL, vtt=vtt)
    assert read(site, workspace).status == "ok"
    assert said(workspace) == text


def test_texts_of_strangers_are_made_fit_for_a_response(site, workspace):
    events = [{"tStartMs": 0, "segs": [{"utf8": "half \ud83d\0 and \u202e turned"}]}]
    site.has(MANUAL, json3=json.dumps({"events": events}))
    details = {"title": "a\0b\n\ud83dc" + "d" * 999, "author": 5, "lengthSeconds": "long"}
    site.answers["/watch"] = body(page(player(MANUAL, details=details)))
    (event,) = read(site, workspace).events
    assert event.payload["title"] == "a b c" + "d" * 294 + "\u2026"
    assert said(workspace) == "half and turned\n"
    described = json.loads((workspace / "video.json").read_text(encoding="utf-8"))
    assert (described["channel"], described["duration_seconds"]) == (None, None)


@pytest.mark.parametrize("document", [json.dumps({"events": []}), "WEBVTT\n\n00:01.000 --> 00:02.000\n \n"])
def test_captions_without_a_word_are_given_up(site, workspace, document):
    site.has(MANUAL, json3=document)
    assert failure(read(site, workspace)) == (f"the captions of video {ID} hold no words", False)


def test_what_an_earlier_step_has_sealed_is_left_to_it(site, workspace, tmp_path):
    earlier = tmp_path / "earlier.txt"
    earlier.write_text("earlier", encoding="utf-8")
    earlier.chmod(0o400)
    (workspace / "transcript.txt").hardlink_to(earlier)
    site.has(MANUAL, json3=JSON3)
    assert read(site, workspace).status == "ok"
    assert (earlier.read_text(encoding="utf-8"), said(workspace)) == ("earlier", TEXT)
    assert stat.S_IMODE((workspace / "transcript.txt").stat().st_mode) & stat.S_IWUSR


def test_a_workspace_that_cannot_be_used_is_tried_again(site, workspace):
    site.has(MANUAL, json3=JSON3)
    (workspace / "transcript.txt").mkdir()
    assert failure(read(site, workspace)) == ("the workspace cannot be used: Is a directory", True)


# What is configured wrongly

A_BASE = "base_url: expected http://HOST or https://HOST in ASCII, without user, password and query"
LANGUAGES = "languages: expected a list of language codes such as en or pt-BR"
PROGRAM = "ytdlp: expected the program's name or path, or false"
SECONDS = "timeout: expected seconds, over 0, at most 3600"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ([], "config: expected a mapping"),
        ({"language": "en"}, "config: unknown key 'language', expected one of languages, ytdlp, base_url, timeout"),
        ({"languages": "en"}, LANGUAGES), ({"languages": []}, LANGUAGES), ({"languages": ["-all"]}, LANGUAGES),
        ({"languages": ["en,de"]}, LANGUAGES), ({"languages": [".*"]}, LANGUAGES), ({"languages": [5]}, LANGUAGES),
        ({"ytdlp": True}, PROGRAM), ({"ytdlp": ""}, PROGRAM), ({"ytdlp": ["yt-dlp"]}, PROGRAM),
        ({"ytdlp": "no-such-program"},
         "ytdlp: no-such-program is not found or not executable: install it, or set ytdlp: false"),
        ({"base_url": "file:///etc/passwd"}, A_BASE), ({"base_url": "www.youtube.com"}, A_BASE),
        ({"base_url": "https://a:b@c"}, A_BASE), ({"base_url": "https://a?b"}, A_BASE),
        ({"base_url": "http://[a"}, A_BASE),
        ({"base_url": "https://a:99999"}, A_BASE), ({"base_url": "https://"}, A_BASE), ({"base_url": 5}, A_BASE),
        ({"base_url": f"https://{'a' * 64}.example"}, A_BASE),
        ({"timeout": 0}, SECONDS), ({"timeout": True}, SECONDS), ({"timeout": "5s"}, SECONDS),
        ({"timeout": 3601}, SECONDS),
    ],
)
def test_a_wrong_configuration_is_named_and_not_tried_again(workspace, config, error):
    for command in ("handle", "health"):
        assert failure(run(encoded(workspace, LINK, config, command=command), workspace)) == (error, False)


def test_health_says_what_would_be_used_and_asks_nobody(site, workspace):
    config = {"ytdlp": False, "base_url": f"{site.url}/", "timeout": None}
    response = run(encoded(workspace, None, config, command="health"), workspace)
    assert (response.status, response.result) == ("ok", f"would use the watch page at {site.url}")
    assert site.requests == []


def test_another_command_is_refused(workspace):
    assert failure(run(encoded(workspace, LINK, {"ytdlp": False}, command="poll"), workspace)) == (
        "youtube_transcript has no such command", False)


@pytest.mark.parametrize("place", [None, "", "relative"])
def test_a_request_without_a_workspace_is_refused(workspace, place):
    request = {"command": "handle", "config": {"ytdlp": False}, "event": {"payload": {"url": LINK}},
               "workspace_dir": place}
    assert failure(run(json.dumps(request).encode(), workspace)) == ("workspace_dir: expected an absolute path", False)


def test_the_example_of_the_readme_is_a_good_configuration(tmp_path):
    assert readme_config(HERE, tmp_path)
