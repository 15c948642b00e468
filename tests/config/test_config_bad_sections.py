"""What is said about the sections of the configuration that are not plugins, webhooks or routes."""

from __future__ import annotations

import pytest

from config.config_files import lines, load_text

MALFORMED = [
    ("sevice: {}\n", ["1:1: sevice: unknown key (did you mean 'service'?)"]),
    ("servic:\n  name: x\n", ["1:1: servic: unknown key (did you mean 'service'?)"]),
    ("[]\n", ["1:1: expected a mapping, got a list"]),
    ("just a text\n", ["1:1: expected a mapping, got 'just a text'"]),
    ("service: 5\n", ["1:10: service: expected a mapping, got 5"]),
    ("service: []\n", ["1:10: service: expected a mapping, got a list"]),
    ("service:\n  name: 5\n", ["2:9: service.name: expected a string, got 5"]),
    ("service:\n  name: ''\n", ["2:9: service.name: expected a string, got an empty string"]),
    ("service:\n  nmae: x\n", ["2:3: service.nmae: unknown key (did you mean 'name'?)"]),
    ("service: {tick_interval: 60}\n", ["1:26: service.tick_interval: expected a duration such as 30s, got 60"]),
    (
        "service: {tick_interval: soon}\n",
        [
            "1:26: service.tick_interval: expected a duration such as 30s, got 'soon'",
        ],
    ),
    (
        "service: {tick_interval: 0s}\n",
        [
            "1:26: service.tick_interval: expected a duration from 1s to 36500d, got '0s'",
        ],
    ),
    (
        "service: {tick_interval: 999999999w}\n",
        [
            "1:26: service.tick_interval: expected a duration from 1s to 36500d, got '999999999w'",
        ],
    ),
    (
        "service: {log_level: warning}\n",
        [
            "1:22: service.log_level: expected one of debug, info, warn, error"
            ", got 'warning' (did you mean 'warn'?)",
        ],
    ),
    ("service: {log_level: on}\n", ["1:22: service.log_level: expected one of debug, info, warn, error, got 'on'"]),
    ("service: {log_format: txt}\n", ["1:23: service.log_format: expected one of auto, json, text, got 'txt'"
                                      " (did you mean 'text'?)"]),
    ("service: {log: true}\n", ["1:16: service.log: expected a string, got true"]),
    (
        "service: {dedupe_ttl: 40d}\n",
        [
            "1:23: service.dedupe_ttl: expected no more than service.job_log_retention, got 40d",
        ],
    ),
    (
        "service: {job_log_retention: 12h}\n",
        [
            "1:10: service.dedupe_ttl: expected no more than service.job_log_retention, got the default of 24h",
        ],
    ),
    (
        "service: {job_log_retention: 0s}\n",
        [
            "1:30: service.job_log_retention: expected a duration from 1s to 36500d, got '0s'",
        ],
    ),
    ("service: {max_hops: 0}\n", ["1:21: service.max_hops: expected a number from 1 to 1000, got 0"]),
    ("service: {max_hops: many}\n", ["1:21: service.max_hops: expected a whole number, got 'many'"]),
    ("service: {max_hops: 020}\n", ["1:21: service.max_hops: expected a whole number, got '020'"]),
    ("service: {max_hops: 1_000}\n", ["1:21: service.max_hops: expected a whole number, got '1_000'"]),
    ("service: {max_hops: 2.5}\n", ["1:21: service.max_hops: expected a whole number, got 2.5"]),
    ("service: {max_hops: true}\n", ["1:21: service.max_hops: expected a whole number, got true"]),
    (
        "service: {max_queue_depth: -1}\n",
        [
            "1:28: service.max_queue_depth: expected a number from 1 to 10000000, got -1",
        ],
    ),
    (
        "service: {shutdown_grace: [30s]}\n",
        [
            "1:27: service.shutdown_grace: expected a duration such as 30s, got a list",
        ],
    ),
    (
        "service: {env_file: ./missing.env}\n",
        [
            "1:21: service.env_file: DIR/missing.env: cannot be read: No such file or directory",
        ],
    ),
    (
        "service: {env_file: '${HOME_DIR}/secrets.env'}\n",
        [
            "1:21: service.env_file: expected a path without variables, which are known only when it is read",
        ],
    ),
    ("service: {env_file: [x]}\n", ["1:21: service.env_file: expected a string, got a list"]),
    ("state: {path: 5}\n", ["1:15: state.path: expected a string, got 5"]),
    ("state: {pth: x}\n", ["1:9: state.pth: unknown key (did you mean 'path'?)"]),
    ("state: ./state.db\n", ["1:8: state: expected a mapping, got './state.db'"]),
    ("workspace: {ttl: 1:30}\n", ["1:18: workspace.ttl: expected a duration such as 30s, got '1:30'"]),
    ("workspace: {path: ''}\n", ["1:19: workspace.path: expected a string, got an empty string"]),
    ("pipelines_dir: [a]\n", ["1:16: pipelines_dir: expected a string, got a list"]),
]


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_each_wrong_value_of_a_section_is_named_at_its_place(tmp_path, text, expected):
    assert lines(load_text(tmp_path, text)) == expected
