"""Runs a directory of Ductile (config.yaml, plugins, pipelines) on Temporal instead of on `ductiled`."""
