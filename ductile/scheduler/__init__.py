"""When plugins run by the clock."""
