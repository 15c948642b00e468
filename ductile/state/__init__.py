"""What a plugin remembers between runs."""
