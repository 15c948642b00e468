"""The operator's command, ductilectl."""
