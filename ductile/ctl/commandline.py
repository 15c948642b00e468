"""The command line of `ductilectl`: every command with its options, its help and an example."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import ductile
from ductile.arguments import Parser
from ductile.units import parse_duration

_HELP_COLUMNS = 79
_QUEUE_ROWS = 100
_RUNS = 5
_JOB_ROWS = 50
_LOG_ROWS = 20
_WAIT_SECONDS = 10
_CONFIG_HELP = "a config.yaml, or the directory that holds it"
_JSON_HELP = "show one JSON document"
_UTC_HELP = "show times in UTC, not in local time"
_PAYLOAD_HELP = "@FILE reads it from a file, - from standard input"
_JOB_HELP = "its id, or at least the first four characters of it"
_A_JOB = "1a2b3c4d"
_STATUSES = ("queued", "waiting", "running", "succeeded", "dead", "deduped")
_LANGUAGES = ("sh", "python", "node")
_SHELLS = ("bash", "zsh", "fish")

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of a fixed width: asking for that of the terminal takes argparse longer than all else."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_HELP_COLUMNS)

    def _set_color(self, color: bool) -> None:
        # Python 3.14 calls this for every option; the base class loads two dozen modules for it.
        self._theme = _NoColors()
        self._decolor = str


class _NoColors:
    """A theme of argparse that has no escape sequence for anything."""

    def __getattr__(self, part: str) -> str:
        return ""


def parse(arguments: Sequence[str], nearest: Callable[[str, Iterable[str]], str]) -> argparse.Namespace:
    """Return the options of a command line; `name` is the command. `nearest` returns a hint for a mistyped command.

    Raises SystemExit: for --help and --version, and with 64 for an invalid command line.
    """
    if _asked_for(arguments) in ("help", "complete"):
        asked = _asked_for(arguments)
        place = next(index for index, word in enumerate(arguments)
                     if word == asked and list(arguments[index - 1:index]) not in (["-c"], ["--config"]))
        words = [*arguments[:place], *arguments[place + 1:]]
        if asked == "complete":
            # For shells: the words of another command line, and no help or error names it.
            return argparse.Namespace(name=asked, words=words, json=False, utc=False, config=None)
        # `help run` is `run --help`.
        arguments = [*words, "--help"]
    parser = _parser(arguments)
    parser.nearest = nearest
    return parser.parse_args(arguments)


def _parser(arguments: Sequence[str]) -> Parser:
    """Return the parser of the given command, or of all if help or an error may name them."""
    parser = Parser(prog="ductilectl", description="Inspect and control ductiled and its jobs.",
                    allow_abbrev=False, formatter_class=_Help,
                    epilog="`ductilectl help COMMAND` explains a command, with an example.")
    parser.add_argument("-c", "--config", metavar="PATH", help=_CONFIG_HELP)
    parser.add_argument("--json", action="store_true", help=_JSON_HELP)
    parser.add_argument("--utc", action="store_true", help=_UTC_HELP)
    parser.add_argument("--version", action="version", version=f"ductilectl {ductile.__version__}")
    commands = parser.add_subparsers(prog="ductilectl", metavar="COMMAND", required=True)
    asked = _asked_for(arguments)
    for name, add in _COMMANDS.items():
        if asked not in _COMMANDS or name == asked:
            add(commands, name)
    return parser


def all_parsers() -> tuple[Parser, dict[str, Parser], dict[str, str]]:
    """Return the parser of everything, those of the commands, and what each command does."""
    top = _parser([])
    [commands] = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    return top, dict(commands.choices), {each.dest: each.help or "" for each in commands._choices_actions}


def _asked_for(arguments: Sequence[str]) -> str | None:
    """Return the command in a command line, None if an unknown option is before it."""
    left = iter(arguments)
    for argument in left:
        if argument in ("-c", "--config"):
            next(left, None)
        elif not argument.startswith("-"):
            return argument
        elif argument not in ("--json", "--utc"):
            return None
    return None


def _command(commands: Commands, name: str, about: str, example: str, more: str = "", *,
             json_help: str = _JSON_HELP) -> Parser:
    """Add a command. `example` has the arguments of a call, one call a line; `more` is shown below `about`."""
    calls = "".join(f"\n  ductilectl {name} {line}".rstrip() for line in example.split("\n"))
    parser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.\n\n{more}".rstrip(), allow_abbrev=False,
        formatter_class=_Help, epilog=f"example:{calls}",
    )
    _add_common(parser, json_help)
    parser.set_defaults(name=name)
    return parser


def _add_common(parser: Parser, json_help: str) -> None:
    # Both may come before or after the command; the default must not undo what came before.
    parser.add_argument("-c", "--config", metavar="PATH", default=argparse.SUPPRESS, help=_CONFIG_HELP)
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=json_help)
    parser.add_argument("--utc", action="store_true", default=argparse.SUPPRESS, help=_UTC_HELP)


def _add_init(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "write a starter configuration that works as it is", "~/ductile", """\
It contains the echo plugin on a schedule, a webhook for it with its secret in
secrets.env, and a directory for your own plugins. The port is 8081, or the
next free one. Nothing is overwritten.""")
    parser.add_argument("directory", metavar="DIR", nargs="?", default=".",
                        help="the directory; created if missing (default: .)")


def _add_check(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "check the configuration and the plugins, and show every problem",
                      "--database", """\
Exits with 78 for configuration errors, and with 65 for a damaged database.
Variables must be set as they are for the daemon.""")
    parser.add_argument("--database", action="store_true", help="also run SQLite's full check of the database")


def _add_status(commands: Commands, name: str) -> None:
    _command(commands, name, "show the daemon, the queue and each plugin's last and next run", "--json", """\
The last column says why the next run of a plugin is blocked: disabled, not
loaded, paused, unhealthy, circuit breaker open, outside its window, queue
full.""")


def _add_plugins(commands: Commands, name: str) -> None:
    _command(commands, name, "show every plugin found, and why one was not loaded", "", """\
Plugins that are not configured are shown too; they never run.""")


def _add_schedule(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show when schedules run next, and why one will not", "\necho --next 10", """\
Times are in the zone of the schedule, with --utc in UTC. The time of the next
run is drawn; for those after it, the jitter gives a range.""")
    parser.add_argument("plugin", metavar="PLUGIN", nargs="?", type=_word, help="only the schedules of this plugin")
    parser.add_argument("--next", metavar="N", dest="count", type=_positive, default=_RUNS,
                        help=f"show the next N runs (default: {_RUNS})")


def _add_queue(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show queued and running jobs, oldest first", "-n 20", """\
A job with the status `waiting` has failed and will be retried.""")
    parser.add_argument("-n", metavar="N", dest="limit", type=_count, default=_QUEUE_ROWS,
                        help=f"show at most N jobs (default: {_QUEUE_ROWS})")


def _add_jobs(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show jobs, newest first, with their last error",
                      "--failed --since 1d\n--plugin echo --since 2026-11-30 --until 07:30", """\
Jobs that have not ended come first, then the others by when they ended. The
filters combine. A time is a duration such as 1d (that long ago), a time of
day such as 07:30 (the last one), a date, or both.""")
    status = parser.add_mutually_exclusive_group()
    status.add_argument("--failed", action="store_true", help="only jobs that failed permanently (--status dead)")
    status.add_argument("--status", metavar="STATUS", choices=_STATUSES, help=f"only jobs with this status:"
                        f" {', '.join(_STATUSES)}")
    parser.add_argument("--plugin", metavar="PLUGIN", type=_word, help="only jobs of this plugin")
    parser.add_argument("--pipeline", metavar="NAME", type=_word, help="only jobs of this pipeline")
    _take_times(parser, "only jobs that ended at this time or later, and those that have not ended",
                "only jobs that ended before this time")
    parser.add_argument("-n", "--limit", metavar="N", dest="limit", type=_count, default=_JOB_ROWS,
                        help=f"show at most N jobs (default: {_JOB_ROWS})")


def _take_times(parser: Parser, since: str, until: str) -> None:
    parser.add_argument("--since", metavar="TIME", help=since)
    parser.add_argument("--until", metavar="TIME", help=until)


def _add_run(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "queue one job of a plugin",
                      "echo handle --payload '{\"message\": \"hello\"}' --wait", """\
The id of the job is printed. If the daemon is down, the job waits until it
starts; only --wait needs a running daemon.""")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)
    parser.add_argument("command", metavar="COMMAND", nargs="?", type=_word, default="poll", help="(default: poll)")
    parser.add_argument("--payload", metavar="JSON", help=f"add an event with this payload; {_PAYLOAD_HELP}")
    parser.add_argument("--type", metavar="TYPE", dest="event_type", type=_word,
                        help="the type of the event (default: manual)")
    parser.add_argument("--wait", action="store_true", help="wait and show the outcome; exit with 1 if the job fails")


def _add_emit(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "publish an event to matching pipelines and routes",
                      "weighed --source scale --payload '{\"kg\": 81}'", """\
Every pipeline that starts on this event runs, and with --source every route
of that plugin. The ids of the jobs are printed. Exits with 1 if nothing
subscribes to the event.""")
    parser.add_argument("event_type", metavar="EVENT", type=_word, help="the type of the event")
    parser.add_argument("--payload", metavar="JSON", help="the payload of the event (default: {});"
                        f" {_PAYLOAD_HELP}")
    parser.add_argument("--source", metavar="PLUGIN", type=_word, help="publish it as if this plugin had emitted it")
    parser.add_argument("--dry-run", action="store_true", dest="dry_run",
                        help="show the jobs and their payloads; queue nothing")


def _add_logs(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show finished attempts with their output",
                      f"echo -f\n--failed --since 1d\n{_A_JOB} --grep timeout", """\
For each attempt: the time, the job, the outcome, its log lines, its result
and its standard error. Of the running job it shows the standard error so far.
`ductilectl inspect` shows events.""")
    parser.add_argument("target", metavar="PLUGIN|JOB", nargs="?", type=_word,
                        help="only attempts of this plugin, or of this job")
    parser.add_argument("-f", "--follow", action="store_true",
                        help="follow new attempts and the running job; with --json, one document a line")
    parser.add_argument("-n", metavar="N", dest="limit", type=_count,
                        help=f"show the last N attempts (default: {_LOG_ROWS}, with --since all)")
    _take_times(parser, "only attempts that ended at this time or later", "only attempts that ended before this time")
    parser.add_argument("--failed", action="store_true", help="only attempts that did not succeed")
    parser.add_argument("--grep", metavar="REGEX", help="only attempts whose output or error matches")


def _add_inspect(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show one job, its attempts, and the whole chain it belongs to", _A_JOB, """\
The chain is a tree. For each job it shows the status, how its baggage differs
from that of the job before it, the files it made, and where each event went,
or why it went nowhere.""")
    _take_job(parser)
    parser.add_argument("--context", action="store_true", help="show the whole baggage of each job")


def _add_retry(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "put a dead job back in its place in the queue, or all of them",
                      f"{_A_JOB}\n--all-failed --plugin echo --since 1d", """\
It gets as many further attempts as its plugin has. Exits with 1 if the job
has not failed permanently. See `ductilectl replay` to rerun other jobs.

--all-failed says how many jobs there are and asks. Cancelled jobs stay dead.""")
    parser.add_argument("job", metavar="JOB", nargs="?", type=_word, help=_JOB_HELP)
    parser.add_argument("--all-failed", action="store_true", help="retry all jobs that failed permanently")
    parser.add_argument("--plugin", metavar="PLUGIN", type=_word, help="with --all-failed: only jobs of this plugin")
    parser.add_argument("--since", metavar="TIME", help="with --all-failed: only jobs that failed at this time or"
                        " later, such as 1d or 07:30")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _add_cancel(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "end a queued or running job", _A_JOB, """\
The job becomes dead, and can be retried. A running plugin is ended as at its
deadline. Exits with 1 if the job succeeded first.""")
    _take_job(parser)
    parser.add_argument("--no-wait", action="store_true", help="do not wait until a running job has ended")


def _add_replay(commands: Commands, name: str) -> None:
    _take_job(_command(commands, name, "run a job again with the event, the context and the files it started with",
                       _A_JOB, """\
The rest of its pipeline follows, and nothing is dropped as a duplicate. Exits
with 1 if files that the job started with are gone."""))


def _add_pipelines(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show the pipelines, or one as a tree", "video-wisdom", """\
The hash of a pipeline changes when anything that it does changes.""")
    parser.add_argument("pipeline", metavar="NAME", nargs="?", type=_word,
                        help="show the steps of this pipeline, with calls expanded")
    parser.add_argument("--mermaid", action="store_true", help="with NAME: as a Mermaid diagram")


def _take_job(parser: Parser) -> None:
    parser.add_argument("job", metavar="JOB", type=_word, help=_JOB_HELP)


def _add_pause(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "have the jobs of a plugin wait until it is resumed", "echo", """\
A job that runs goes on. Webhooks and routes to the plugin are accepted, and
its schedules stay due once. It stays paused when the daemon restarts.""")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)


def _add_resume(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "have the jobs of a paused plugin run again", "echo")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)


def _add_reset(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "close a plugin's circuit breakers and clear its failures", "echo", """\
Its `init` is queued again if it has not succeeded.""")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)


def _add_health(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "run the health command of one plugin or all, outside the queue", "echo", """\
Nothing is stored. Exits with 1 if a plugin is unhealthy; one without a health
command is unknown. Variables must be set as they are for the daemon.""")
    parser.add_argument("plugin", metavar="PLUGIN", nargs="?", type=_word, help="(default: every enabled one)")


def _add_test(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "run a plugin outside the queue and the database, and show what it did",
                      "echo\necho handle --event event.json --state state.json\n./plugins/mine\n"
                      "echo --request request.json", """\
It shows the request, the response with every protocol fault, standard error,
the files left in the workspace, the outcome and the time. The workspace is
removed, and nothing is stored. Exits with 1 unless a job would succeed.

In the request, config is shown as in the file, with ${NAME} for variables, so
that you can share it; the plugin received the values. The event, the state
and the output of the plugin are shown unchanged.

If PLUGIN contains a /, it is the directory of a plugin that need not be
configured; its config is empty. A FILE of - is standard input.""")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word, help="a configured plugin, or a plugin's directory")
    parser.add_argument("command", metavar="COMMAND", nargs="?", type=_word,
                        help="(default: the request's; handle with an event, else poll)")
    parser.add_argument("--event", metavar="FILE", help="an event as JSON; an object without `type` is its payload")
    parser.add_argument("--state", metavar="FILE", help="the state of the plugin, as JSON (default: {})")
    parser.add_argument("--request", metavar="FILE", help="a request that was shown before, or all that test --json"
                        " shows: its command, event, state and context")


def _add_new_plugin(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "create the directory of a new plugin that works as it is",
                      "weather --lang python", """\
It contains a manifest, a program with examples of events, state and logs to
edit, and a README. The next steps are printed. Nothing is overwritten.""")
    parser.add_argument("plugin", metavar="NAME", type=_word, help="1 to 64 letters, digits, '-' and '_'")
    parser.add_argument("--lang", dest="language", choices=_LANGUAGES, default=_LANGUAGES[0],
                        help=f"the language of its program: {', '.join(_LANGUAGES)} (default: {_LANGUAGES[0]})")
    parser.add_argument("--dir", metavar="DIR", dest="directory",
                        help="the parent directory (default: the first one of plugins_dir)")


def _add_backup(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "copy the database as it is at this moment, while the daemon runs",
                      "/srv/backup/ductile-$(date +%F).db\n--keep 14 /srv/backup", """\
The copy is checked in full. The file appears only once it is complete, even
after a crash, and nothing is overwritten. It contains jobs, logs, states,
contexts, schedules and breakers. It does not contain the configuration,
secrets, plugins and pipelines, which you copy as files, or the files in
workspaces, which are kept for workspace.ttl only.

To restore: ductilectl restore FILE.""")
    parser.add_argument("file", metavar="FILE", help="a new file, or a directory: then the name has the time in it")
    parser.add_argument("--keep", metavar="N", type=_positive, help="keep the last N dated copies in the directory")


def _add_restore(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "put a backup in place of the database", "/srv/backup/ductile-2026-02-08.db", """\
Stop ductiled first. FILE is checked in full and copied; it may be of an older
version. The replaced database is kept beside it as state.db.before-TIME with
its -wal and -shm. Jobs that were queued or running in the backup will run,
even if they have run since; their number is shown. A job whose input files
are gone fails. The next restore completes an interrupted one; until then
ductiled does not start.""")
    parser.add_argument("file", metavar="FILE", help="a copy of `ductilectl backup`, a state.db.rescued-TIME or a"
                                                     " state.db.before-TIME")


def _add_completion(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "print the completion script of a shell", "bash", """\
For bash: eval "$(ductilectl completion bash)"
For zsh, after compinit: eval "$(ductilectl completion zsh)"
For fish: ductilectl completion fish | source""")
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=f"{', '.join(_SHELLS)}")


def _add_edit(commands: Commands, name: str) -> None:
    _command(commands, name, "edit the configuration, check it and reload", "", """\
It opens a copy in $VISUAL, $EDITOR or vi. A copy with errors does not replace
the file: they are shown, and you can edit again. The file is replaced at once
and whole; a running daemon reloads it.""")


def _add_reload(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "reload the configuration, and show what changed key by key", "--yes", """\
Validated here first, except variables. If the daemon rejects it, the previous
configuration stays in force: exits with 78. If a plugin can no longer be
loaded, exits with 1; its jobs wait. Queued jobs of plugins that are removed or
disabled end: on a terminal you are asked first.""")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _add_wait(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "wait until the daemon is ready", "--timeout 30s", """\
Exits with 0 as soon as ductiled is ready to work, and with 69 if it is not in
time. For scripts that start the daemon in the background.""")
    parser.add_argument("--timeout", metavar="TIME", type=_duration, default=_WAIT_SECONDS,
                        help="how long to wait at most, such as 30s or 2m (default: 10s)")


def _add_state(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show or change the state of a plugin", "echo --set state.json", """\
It is JSON in any case. A job running at the same time may overwrite your
change.""")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--set", metavar="FILE", dest="file", help="replace it with a JSON object (-: standard input)")
    change.add_argument("--clear", action="store_true", help="remove it")


def _add_attempt(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "run one attempt of a job for another engine", "jobs < job.json", """\
Reads {"job": JOB, "state": STATE} from standard input, runs the attempt in
DIR without the database, and prints what follows from it as JSON.""")
    parser.add_argument("directory", metavar="DIR", help="where workspaces are; programs may share it")


def _add_webhook(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show the senders of webhooks that Ductile knows, or test an endpoint",
                      "presets github\ntest /webhooks/github --payload '{\"zen\": \"x\"}'", """\
`webhook presets` lists the presets for `preset:` at an endpoint, each with
what to enter at the sender. With NAME only that one.

`webhook test PATH` signs a payload as the endpoint's sender does and posts it
to the running daemon. The job is a real one. Exits with 1 if it is refused.
Variables must be set as they are for the daemon.""")
    parser.add_argument("action", metavar="ACTION", choices=("presets", "test"), help="presets or test")
    parser.add_argument("preset", metavar="NAME|PATH", nargs="?", type=_word,
                        help="a preset, or the path of an endpoint")
    parser.add_argument("--payload", metavar="JSON", help="with test: the body of the request (default: {});"
                        f" {_PAYLOAD_HELP}")


def _add_report(commands: Commands, name: str) -> None:
    # It has no JSON document: --json is accepted, so that the error can give a reason.
    parser = _command(commands, name, "write an HTML page: what ran, what failed and why, and what comes next",
                      "--since 30d --output report.html", """\
One file that loads nothing from elsewhere. TIME is a duration such as 7d, a
time of day such as 07:30, a date such as 2026-11-30, or both.""", json_help=argparse.SUPPRESS)
    parser.add_argument("--since", metavar="TIME", default="7d", help="from when on (default: 7d)")
    parser.add_argument("--output", metavar="FILE", help="replace this file (default and -: standard output)")


def _add_monitor(commands: Commands, name: str) -> None:
    about = "watch daemon, jobs and plugins on the whole screen; ? shows the keys"
    # It has no document: --json is accepted, so that the error can give a reason.
    _command(commands, name, about, "", """\
It only reads, except for the keys that run, retry, replay, cancel and reset.
The key ? shows all keys.""", json_help=argparse.SUPPRESS)


def _word(text: str) -> str:
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected printable text, got {text!r}")
    return text


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    if _count(text) == 0:
        raise argparse.ArgumentTypeError("expected a number from 1 to 999999999, got '0'")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 999999999, got {text!r}")
    return int(text)


_COMMANDS: Mapping[str, Callable[[Commands, str], None]] = {
    "init": _add_init, "check": _add_check, "status": _add_status, "plugins": _add_plugins,
    "pipelines": _add_pipelines, "schedule": _add_schedule, "queue": _add_queue, "jobs": _add_jobs, "run": _add_run,
    "emit": _add_emit, "logs": _add_logs, "inspect": _add_inspect, "retry": _add_retry, "replay": _add_replay,
    "cancel": _add_cancel, "pause": _add_pause, "resume": _add_resume, "reset": _add_reset, "health": _add_health,
    "test": _add_test, "edit": _add_edit, "reload": _add_reload, "wait": _add_wait, "state": _add_state,
    "backup": _add_backup, "restore": _add_restore, "new-plugin": _add_new_plugin, "webhook": _add_webhook,
    "attempt": _add_attempt, "report": _add_report, "completion": _add_completion, "monitor": _add_monitor,
}
