"""`python -m ductile_temporal worker|gateway|status|state|emit`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.converter import default as default_converter
from temporalio.service import RPCError
from temporalio.worker import Worker

from ductile import embed
from ductile.errors import DuctileError
from ductile_temporal import gateway, worker, workflows
from ductile_temporal.codec import FileCodec


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ductile_temporal", description=__doc__)
    parser.add_argument("--temporal", metavar="HOST:PORT", default=os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233"),
                        help="the server; default: $TEMPORAL_ADDRESS, or %(default)s")
    parser.add_argument("--namespace", default=os.environ.get("TEMPORAL_NAMESPACE", "default"))
    parser.add_argument("-c", "--config", type=Path, required=True,
                        help="a config.yaml, or the directory that holds it")
    parser.add_argument("--shared", metavar="DIR", type=Path, required=True,
                        help="a directory that all machines share: workspaces and large payloads")
    commands = parser.add_subparsers(dest="command", required=True)
    found = commands.add_parser("worker", help="run plugins, one at a time")
    found.add_argument("--local", metavar="DIR", type=Path, required=True,
                       help="a directory of this worker alone, on a local disk")
    found = commands.add_parser("gateway", help="take webhooks")
    found.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:8081")
    found = commands.add_parser("status", help="show plugins, or the jobs of one chain")
    found.add_argument("chain", nargs="?")
    found = commands.add_parser("state", help="show or set the state of a plugin")
    found.add_argument("plugin")
    found.add_argument("--set", metavar="FILE", type=Path, dest="new")
    found = commands.add_parser("emit", help="hand an event to pipelines, and to the routes of a plugin")
    found.add_argument("type")
    found.add_argument("--payload", metavar="JSON", type=json.loads, default={})
    found.add_argument("--source", metavar="PLUGIN")
    options = parser.parse_args()
    if options.config.is_dir():
        options.config /= "config.yaml"
    return options


async def connect(address: str, namespace: str, shared: Path) -> Client:
    """Return a client that keeps large payloads in files. Raises RuntimeError if the server cannot be reached."""
    converter = dataclasses.replace(default_converter(), payload_codec=FileCodec(shared / "payloads"))
    return await Client.connect(address, namespace=namespace, data_converter=converter)


async def _main(options: argparse.Namespace) -> int:
    shared = options.shared.absolute()
    client = await connect(options.temporal, options.namespace, shared)
    match options.command:
        case "worker":
            options.local.mkdir(mode=0o700, parents=True, exist_ok=True)
            return await worker.serve(client, worker.Place(config=options.config, shared=shared,
                                                           local=options.local.absolute()))
        case "gateway":
            stopped = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stopped.set)
            host, _, port = options.listen.rpartition(":")
            await gateway.serve(client, options.config, shared, (host.strip("[]"), int(port)), stopped)
        case "status":
            _show(await (_chain(client, options.chain) if options.chain else _status(client)))
        case "state":
            await _state(client, options.plugin, options.new)
        case "emit":
            return await _emit(client, options, shared)
    return 0


async def _status(client: Client) -> dict[str, Any]:
    """Return how many chains there are by outcome, and what each plugin does."""
    chains: dict[str, int] = {}
    plugins: dict[str, Any] = {}
    for status in ("Running", "Completed", "Failed"):
        found = await client.count_workflows(f"WorkflowType = 'Chain' AND ExecutionStatus = '{status}'")
        chains[status.lower()] = found.count
    async for each in client.list_workflows("WorkflowType = 'Plugin' AND ExecutionStatus = 'Running'"):
        name = each.id.partition("/")[2]
        try:
            plugins[name] = await client.get_workflow_handle(each.id).query(workflows.Plugin.queue)
        except RPCError as error:
            plugins[name] = f"no worker answers: {error.message}"
    return {"chains": chains, "plugins": plugins}


async def _chain(client: Client, chain: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await client.get_workflow_handle(chain).query(workflows.Chain.jobs)
    return found


async def _state(client: Client, plugin: str, new: Path | None) -> None:
    """Show a plugin's state, or set it. Neither needs a worker, so that nothing runs while a state is carried over."""
    if new is not None:
        await client.start_workflow(
            workflows.Plugin.run, workflows.Held(), id=workflows.plugin_workflow(plugin),
            task_queue=workflows.TASK_QUEUE, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="set_state", start_signal_args=[json.loads(new.read_text())])
        return
    async with Worker(client, task_queue=workflows.TASK_QUEUE, workflows=worker.WORKFLOWS):
        _show(await client.get_workflow_handle(workflows.plugin_workflow(plugin)).query(workflows.Plugin.state))


async def _emit(client: Client, options: argparse.Namespace, shared: Path) -> int:
    site = embed.open_site(options.config, shared, os.environ)
    jobs = embed.arrivals(site, {"type": options.type, "payload": options.payload}, options.source)
    for job in jobs:
        await gateway.start_chain(client, job)
        print(gateway.chain_workflow(job))
    if not jobs:
        print(f"nothing subscribes to {options.type}", file=sys.stderr)
    return 0 if jobs else 1


def _show(found: Any) -> None:
    print(json.dumps(found, indent=2))


def main() -> int:
    """Run a command and return its exit code."""
    try:
        return asyncio.run(_main(_arguments()))
    except DuctileError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (RPCError, RuntimeError) as error:
        print(f"Temporal: {error}", file=sys.stderr)
        return 69


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Not sys.exit: a thread of temporalio 1.35 sometimes aborts an interpreter that finalizes.
    os._exit(status)
