"""Decides which jobs an event becomes, and what a chain of jobs carries."""
