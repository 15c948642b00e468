"""The command line of `ductilectl`: every command with its options, its help and an example."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

import ductile
from ductile.arguments import Parser

_HELP_COLUMNS = 79
_QUEUE_ROWS = 100
_LOG_ROWS = 20
_CONFIG_HELP = "a config.yaml, or the directory that holds it"
_JSON_HELP = "show one JSON document"
_A_JOB = "1a2b3c4d"

Commands = argparse._SubParsersAction


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of a fixed width: argparse takes longer to ask for the terminal's than to do all else."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_HELP_COLUMNS)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what a command line says; `name` is the command's.

    Raises SystemExit: for --help and --version, and with 64 for a command line that is wrong.
    """
    return _parser(arguments).parse_args(arguments)


def _parser(arguments: Sequence[str]) -> Parser:
    """Return the parser of the command that is asked for, or of all where help or an error may name them."""
    parser = Parser(prog="ductilectl", description="Look at ductiled and its jobs, and change what waits.",
                    allow_abbrev=False, formatter_class=_Help)
    parser.add_argument("-c", "--config", metavar="PATH", help=_CONFIG_HELP)
    parser.add_argument("--json", action="store_true", help=_JSON_HELP)
    parser.add_argument("--version", action="version", version=f"ductilectl {ductile.__version__}")
    commands = parser.add_subparsers(prog="ductilectl", metavar="COMMAND", required=True)
    asked = _asked_for(arguments)
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


def _command(commands: Commands, name: str, about: str, example: str) -> Parser:
    parser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", allow_abbrev=False, formatter_class=_Help,
        epilog=f"example:\n  ductilectl {name} {example}".rstrip(),
    )
    # Both may stand before the command and after it; absent here must not undo what stood before.
    parser.add_argument("-c", "--config", metavar="PATH", default=argparse.SUPPRESS, help=_CONFIG_HELP)
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=_JSON_HELP)
    parser.set_defaults(name=name)
    return parser


def _add_init(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "write a starter configuration that runs as it stands", "~/ductile")
    parser.add_argument("directory", metavar="DIR", nargs="?", default=".",
                        help="where to; made if need be (default: .)")


def _add_check(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "check the configuration and the plugins, and name every problem",
                      "--database")
    parser.add_argument("--database", action="store_true", help="run SQLite's full check of the database besides")


def _add_status(commands: Commands, name: str) -> None:
    _command(commands, name, "show the daemon, the queue and each plugin's last and next run", "--json")


def _add_plugins(commands: Commands, name: str) -> None:
    _command(commands, name, "show every plugin found, and why one was not loaded", "")


def _add_queue(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show the jobs that wait or run, oldest first", "-n 20")
    parser.add_argument("-n", metavar="N", dest="limit", type=_count, default=_QUEUE_ROWS,
                        help=f"at most so many (default: {_QUEUE_ROWS})")


def _add_run(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "queue one job of a plugin",
                      "echo handle --payload '{\"message\": \"hello\"}' --wait")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)
    parser.add_argument("command", metavar="COMMAND", nargs="?", type=_word, default="poll", help="(default: poll)")
    parser.add_argument("--payload", metavar="JSON", help="give it an event with this payload")
    parser.add_argument("--type", metavar="TYPE", dest="event_type", type=_word,
                        help="the type of its event (default: manual)")
    parser.add_argument("--wait", action="store_true", help="show the outcome: 0 succeeded, 1 not")


def _add_emit(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "hand an event to whatever takes it",
                      "weighed --source scale --payload '{\"kg\": 81}'")
    parser.add_argument("event_type", metavar="EVENT", type=_word, help="its type")
    parser.add_argument("--payload", metavar="JSON", help="what it says (default: {})")
    parser.add_argument("--source", metavar="PLUGIN", type=_word, help="as if this plugin had emitted it")


def _add_logs(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show finished attempts with what their plugins said", "echo -f")
    parser.add_argument("plugin", metavar="PLUGIN", nargs="?", type=_word, help="of this plugin alone")
    parser.add_argument("-f", "--follow", action="store_true",
                        help="go on with those that end from now on; as JSON, a document a line")
    parser.add_argument("-n", metavar="N", dest="limit", type=_count, default=_LOG_ROWS,
                        help=f"the last so many (default: {_LOG_ROWS})")


def _add_inspect(commands: Commands, name: str) -> None:
    _take_job(_command(commands, name, "show one job, its attempts, and the whole chain it belongs to", _A_JOB))


def _add_retry(commands: Commands, name: str) -> None:
    _take_job(_command(commands, name, "put a dead job back in its place in the queue", _A_JOB))


def _add_cancel(commands: Commands, name: str) -> None:
    _take_job(_command(commands, name, "end a queued job", _A_JOB))


def _take_job(parser: Parser) -> None:
    parser.add_argument("job", metavar="JOB", type=_word, help="its id, or four characters of it or more")


def _add_reset(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "close a plugin's circuit breakers and forget its failures", "echo")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)


def _add_health(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "run the health command of one plugin or all, outside the queue", "echo")
    parser.add_argument("plugin", metavar="PLUGIN", nargs="?", type=_word, help="(default: every enabled one)")


def _add_reload(commands: Commands, name: str) -> None:
    _command(commands, name, "have the daemon read its configuration anew, and show what changed", "")


def _add_state(commands: Commands, name: str) -> None:
    parser = _command(commands, name, "show what a plugin remembers, or change it", "echo --set state.json")
    parser.add_argument("plugin", metavar="PLUGIN", type=_word)
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--set", metavar="FILE", dest="file", help="put a JSON object in its place (-: standard input)")
    change.add_argument("--clear", action="store_true", help="forget it all")


def _word(text: str) -> str:
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected printable text, got {text!r}")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 999999999, got {text!r}")
    return int(text)


_COMMANDS: Mapping[str, Callable[[Commands, str], None]] = {
    "init": _add_init, "check": _add_check, "status": _add_status, "plugins": _add_plugins, "queue": _add_queue,
    "run": _add_run, "emit": _add_emit, "logs": _add_logs, "inspect": _add_inspect, "retry": _add_retry,
    "cancel": _add_cancel, "reset": _add_reset, "health": _add_health, "reload": _add_reload, "state": _add_state,
}
