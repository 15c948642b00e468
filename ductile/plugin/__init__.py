"""Plugins on disk: what their manifests say and which of them may be trusted."""
