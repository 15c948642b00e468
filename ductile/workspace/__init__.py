"""The directory of each job: create, clone, seal, remove."""
