"""Each job's own directory: made, handed on, sealed, removed."""
