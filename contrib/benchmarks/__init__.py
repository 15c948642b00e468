"""What Ductile promises in speed and memory, measured beside a bare loop in the same run."""
