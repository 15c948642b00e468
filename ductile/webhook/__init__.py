"""Webhooks: proving where they come from and taking them in."""
