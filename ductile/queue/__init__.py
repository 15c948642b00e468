"""Jobs and the one queue that holds them."""
