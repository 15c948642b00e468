"""What a chain of events has been told, and how it is handed on."""
