"""Ductile: a small, durable gateway for personal automation."""

__version__ = "0.1.0"
