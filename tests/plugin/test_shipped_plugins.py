"""Each shipped plugin can be configured by its README alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from support import in_process
from support.plugin_runs import readme_config

PLUGINS = sorted(path.parent for path in Path(__file__).resolve().parents[2].glob("plugins/*/manifest.yaml"))

# Long enough for any endpoint, and of the form that Standard Webhooks gives secrets.
SECRET = "whsec_" + "c2VjcmV0" * 4


def readme(plugin: Path) -> str:
    return (plugin / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_its_first_example_is_a_configuration_that_the_plugin_takes(plugin, tmp_path):
    variables = {name: SECRET if "SECRET" in name else "https://example.org/x"
                 for name in re.findall(r"\$\{(\w+)\}", readme(plugin))}
    configs = readme_config(plugin, tmp_path, variables)
    keys = getattr(in_process.load(plugin), "KEYS", None) if (plugin / "run.py").exists() else None
    if isinstance(keys, dict) and "settings" in (plugin / "run.py").read_text(encoding="utf-8"):
        in_process.library().settings({"config": next(iter(configs.values()))}, keys)
    assert configs


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_its_readme_has_all_of_its_keys_and_commands(plugin):
    manifest = yaml.safe_load((plugin / "manifest.yaml").read_text(encoding="utf-8"))
    commands = [each if isinstance(each, str) else each["name"] for each in manifest["commands"]]
    keys = manifest.get("config_keys", {})
    text = readme(plugin)
    assert [name for name in (*commands, *keys.get("required", ()), *keys.get("optional", ()))
            if f"`{name}`" not in text] == []
