"""The configuration file: from strict YAML to one frozen, checked value."""
