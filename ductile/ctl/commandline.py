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
_LOG_ROWS = 20
_WAIT_SECONDS = 10
_CONFIG_HELP = "a config.yaml, or the directory that holds it"
_JSON_HELP = "show one JSON document"
_A_JOB = "1a2b3c4d"
_LANGUAGES = ("sh", "python")
_COMPLETED = ("plugins", "pipelines", "jobs", "dead", "queued", "ended")

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of a fixed width: argparse takes longer to ask for the terminal's than to do all else."""

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
    """Return what a command line says; `name` is the command's. `nearest` returns a hint for a mistyped command.

    Raises SystemExit: for --help and --version, and with 64 for a command line that is wrong.
    """
    parser = _parser(arguments)
    parser.nearest = nearest
    return parser.parse_args(arguments)


def _parser(arguments: Sequence[str]) -> Parser:
    """Return the parser of the command that is asked for, or of all where help or an error may name them."""
    parser = Parser(prog="ductilectl", description="Look at ductiled and its jobs, and change what waits.",
                    allow_abbrev=False, formatter_class=_Help)
    parser.add_argument("-c", "--config", metavar="PATH", help=_CONFIG_HELP)
    parser.add_argument("--json", action="store_true", help=_JSON_HELP)
    parser.add_argument("--version", action="version", version=f"ductilectl {ductile.__version__}")
    commands = parser.add_subparsers(prog="ductilectl", metavar="COMMAND", required=True)
    asked = _asked_for(arguments)
    if asked is not None and asked in _HIDDEN:
        _HIDDEN[asked](commands, asked)
        return parser
    for name, add in _COMMANDS.items():
        if asked not in _COMMANDS or name == asked:
            add(commands, name)
    return parser


def _asked_for(arguments: Sequence[str]) -> str | None:
    """Return the command in a command line, None where another option than ours stands before it."""
    left = iter(arguments)
    for argument in left:
        if argument in ("-c", "--config"):
            next(left, None)
        elif not argument.startswith("-"):
            return argument
        elif argument != "--json":
            return None
    return None


def _command(commands: Commands, name: str, about: str, example: str, more: str = "", *,
             json_help: str = _JSON_HELP) -> Parser:
    """Add a command. `example` is its arguments in a call, a line for each of several; `more` stands below `about`."""
    calls = "".join(f"\n  ductilectl {name} {line}".rstrip() for line in example.split("\n"))
    parser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.\n\n{more}".rstrip(), allow_abbrev=False,
        formatter_class=_Help, epilog=f"example:{calls}",
    )
    _add_common(parser, json_help)
    parser.set_defaults(name=name)
    return parser


def _add_common(parser: Parser, json_help: str) -> None:
    # Both may stand before the command and after it; absent here must not undo what stood before.
    parser.add_argument("-c", "--config", metavar="PATH", default=argparse.SUPPRESS, help=_CONFIG_HELP)
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=json_help)


def _add_init(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "write a starter configuration that runs as it stands", "~/ductile", """\
It has the echo plugin on a schedule, a webhook for it, whose secret is in
secrets.env, and a directory for plugins of your own. The port is 8081, or the
next free one. Nothing is overwritten.""")
    parser.add_argument("directory", metavar="DIR", nargs="?", default=".",
                        help="where to; made if need be (default: .)")


def _add_check(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "check the configuration and the plugins, and name every problem",
                      "--database", """\
What is wrong with the configuration makes it 78, damage in the database 65.
Variables have to be set as they are for the daemon.""")
    parser.add_argument("--database", action="store_true", help="run SQLite's full check of the database besides")


def _add_status(commands: Commands, name: str) -> None:
    _command(commands, name, "show the daemon, the queue and each plugin's last and next run", "--json", """\
The last column says what blocks a plugin's next run: disabled, not
loaded, unhealthy, its breaker open, its window closed, the queue full.""")


def _add_plugins(commands: Commands, name: str) -> None:
    _command(commands, name, "show every plugin found, and why one was not loaded", "", """\
Those that no entry of the configuration uses are shown, too; they never run.""")


def _add_queue(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show the jobs that wait or run, oldest first", "-n 20", """\
A job with the status `waiting` has failed and waits for its next attempt.""")
    parser.add_argument("-n", metavar="N", dest="limit", type=_count, default=_QUEUE_ROWS,
                        help=f"at most so many (default: {_QUEUE_ROWS})")


def _add_run(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "queue one job of a plugin",
                      "echo handle --payload '{\"message\": \"hello\"}' --wait", """\
Its id is printed. While the daemon is down the job waits; only --wait needs
the daemon.""")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)
    parser.add_argument("command", metavar="COMMAND", nargs="?", type=_word, default="poll", help="(default: poll)")
    parser.add_argument("--payload", metavar="JSON", help="give it an event with this payload")
    parser.add_argument("--type", metavar="TYPE", dest="event_type", type=_word,
                        help="the type of its event (default: manual)")
    parser.add_argument("--wait", action="store_true", help="show the outcome: 0 succeeded, 1 not")


def _add_emit(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "hand an event to whatever takes it",
                      "weighed --source scale --payload '{\"kg\": 81}'", """\
Every pipeline that starts on it takes it, and with --source the routes of
that plugin. The ids of the jobs are printed; where nothing takes it, 1.""")
    parser.add_argument("event_type", metavar="EVENT", type=_word, help="its type")
    parser.add_argument("--payload", metavar="JSON", help="what it says (default: {})")
    parser.add_argument("--source", metavar="PLUGIN", type=_word, help="as if this plugin had emitted it")


def _add_logs(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show finished attempts with what their plugins said", "echo -f", """\
Of each: when it ended, its job, how it ended, its log lines and its standard
error. Events and results are in `ductilectl inspect`.""")
    parser.add_argument("plugin", metavar="PLUGIN", nargs="?", type=_word, help="of this plugin alone")
    parser.add_argument("-f", "--follow", action="store_true",
                        help="go on with those that end from now on; as JSON, a document a line")
    parser.add_argument("-n", metavar="N", dest="limit", type=_count, default=_LOG_ROWS,
                        help=f"the last so many (default: {_LOG_ROWS})")


def _add_inspect(commands: Commands, name: str) -> None:
    _take_job(_command(commands, name, "show one job, its attempts, and the whole chain it belongs to", _A_JOB, """\
The chain is a tree: of each job its status, what it added to the baggage, the
files it made, and where each of its events went, or why it went nowhere."""))


def _add_retry(commands: Commands, name: str) -> None:
    _take_job(_command(commands, name, "put a dead job back in its place in the queue", _A_JOB, """\
It gets as many attempts more as its plugin has. For a job that is not dead,
1; to run one that succeeded once more, see `ductilectl replay`."""))


def _add_cancel(commands: Commands, name: str) -> None:
    _take_job(_command(commands, name, "end a queued job", _A_JOB, """\
It becomes dead, and can be retried. A job that runs is not ended: 1."""))


def _add_replay(commands: Commands, name: str) -> None:
    _take_job(_command(commands, name, "run a job once more, from the event, the context and the files it began with",
                       _A_JOB, """\
The rest of its pipeline follows. What it leads to is never dropped as a
duplicate. Where files that it began with are gone, 1."""))


def _add_pipelines(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show the pipelines, or one as a tree", "video-wisdom", """\
With a hash, which changes when anything that a pipeline does changes.""")
    parser.add_argument("pipeline", metavar="NAME", nargs="?", type=_word, help="show its steps, calls expanded")
    parser.add_argument("--mermaid", action="store_true", help="with NAME: as a Mermaid diagram")


def _take_job(parser: Parser) -> None:
    parser.add_argument("job", metavar="JOB", type=_word, help="its id, or four characters of it or more")


def _add_reset(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "close a plugin's circuit breakers and forget its failures", "echo", """\
Its `init` is queued again, too, where that has not succeeded.""")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)


def _add_health(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "run the health command of one plugin or all, outside the queue", "echo", """\
Nothing is stored. Exits with 1 if a plugin is unhealthy; one without a health
command is unknown. Variables have to be set as they are for the daemon.""")
    parser.add_argument("plugin", metavar="PLUGIN", nargs="?", type=_word, help="(default: every enabled one)")


def _add_test(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "run a plugin outside the queue and the database, and show all that it did",
                      "echo\necho handle --event event.json --state state.json\n./plugins/mine\n"
                      "echo --request request.json", """\
Shown are the request, the response with every fault of the protocol, what the
plugin said on standard error, the files that it left in its workspace, which
is then removed, how it ended, and the time. Nothing is stored. It is 0 where
a job would succeed, else 1.

In the request, config is shown as it stands in the file, with ${NAME} for what
comes from a variable, so that it can be passed on; the plugin was given the
values. The event, the state and what the plugin says are shown as they are.

A PLUGIN with a / in it is a plugin's directory, which need not be configured:
its config is empty. A FILE of - is standard input.""")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word, help="a configured plugin, or a plugin's directory")
    parser.add_argument("command", metavar="COMMAND", nargs="?", type=_word,
                        help="(default: the request's; handle with an event, else poll)")
    parser.add_argument("--event", metavar="FILE", help="an event as JSON; what has no `type` is the payload of one")
    parser.add_argument("--state", metavar="FILE", help="what the plugin remembers, as JSON (default: {})")
    parser.add_argument("--request", metavar="FILE", help="a request that was shown before, or all that test --json"
                        " shows: its command, event, state and context")


def _add_new_plugin(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "make the directory of a new plugin that runs as it stands",
                      "weather --lang python", """\
It has a manifest, a program with examples of events, state and logs to be
changed, and a README. What to do next is printed. Nothing is overwritten.""")
    parser.add_argument("plugin", metavar="NAME", type=_word, help="1 to 64 letters, digits, '-' and '_'")
    parser.add_argument("--lang", dest="language", choices=_LANGUAGES, default=_LANGUAGES[0],
                        help=f"what its program is written in: {' or '.join(_LANGUAGES)} (default: {_LANGUAGES[0]})")
    parser.add_argument("--dir", metavar="DIR", dest="directory",
                        help="where to make it (default: the first directory of plugins_dir)")


def _add_backup(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "copy the database as it is at this moment, while the daemon runs",
                      "/srv/backup/ductile-$(date +%F).db\n--keep 14 /srv/backup", """\
The copy is checked in full. The name is there with the whole copy or not at
all, whatever is killed, and nothing is ever overwritten. In it are jobs, logs,
states, contexts, schedules and breakers. Not in it: the configuration,
secrets, plugins and pipelines, which are files to be copied by other means,
and the files in workspaces, which are kept for workspace.ttl alone.

To restore: ductilectl restore FILE.""")
    parser.add_argument("file", metavar="FILE", help="a file that is not there yet, or a directory: the name of the"
                                                     " copy then has the time in it")
    parser.add_argument("--keep", metavar="N", type=_positive, help="remove all dated copies in the directory but the"
                                                                    " last N, once the new one is there")


def _add_restore(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "put a backup in place of the database", "/srv/backup/ductile-2026-02-08.db", """\
Stop ductiled first. FILE is checked in full and copied; one of an older
version is good. What it replaces is kept beside it, as state.db.before-TIME
with its -wal and -shm. Jobs that were queued or running when the backup was
made will run, again where they have run since: it says how many. A job that
began with files of a workspace that is gone fails. An interrupted restore is
completed by the next one; until then ductiled does not start.""")
    parser.add_argument("file", metavar="FILE", help="a copy of `ductilectl backup`, a state.db.rescued-TIME or a"
                                                     " state.db.before-TIME")


def _add_complete(commands: Commands, name: str) -> None:
    # For contrib/completion: no help, which would list it among the commands.
    parser = commands.add_parser(name, allow_abbrev=False)
    _add_common(parser, _JSON_HELP)
    parser.set_defaults(name=name)
    parser.add_argument("kind", choices=_COMPLETED)
    parser.add_argument("prefix")


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
    parser = _command(commands, name, "show what a plugin remembers, or change it", "echo --set state.json", """\
As JSON in any case. A job that runs meanwhile lays its own changes over it.""")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--set", metavar="FILE", dest="file", help="put a JSON object in its place (-: standard input)")
    change.add_argument("--clear", action="store_true", help="forget it all")


def _add_monitor(commands: Commands, name: str) -> None:
    about = "watch daemon, jobs and plugins on the whole screen; ? shows the keys"
    # It has no document: --json is taken in order to be refused with a reason.
    _command(commands, name, about, "", """\
It only reads, but for the keys that run, retry, replay, cancel and reset; the
key ? shows them all.""", json_help=argparse.SUPPRESS)


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
    "pipelines": _add_pipelines, "queue": _add_queue, "run": _add_run, "emit": _add_emit, "logs": _add_logs,
    "inspect": _add_inspect, "retry": _add_retry, "replay": _add_replay, "cancel": _add_cancel, "reset": _add_reset,
    "health": _add_health, "test": _add_test, "reload": _add_reload, "wait": _add_wait, "state": _add_state,
    "backup": _add_backup, "restore": _add_restore, "new-plugin": _add_new_plugin, "monitor": _add_monitor,
}
# For programs: neither help nor an error names them.
_HIDDEN: Mapping[str, Callable[[Commands, str], None]] = {"complete": _add_complete}
