"""Pipelines: what their files say, compiled to graphs of steps."""
