"""The full-screen monitor: what it knows, what it shows, how it reaches the terminal."""
