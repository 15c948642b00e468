"""Steps from one version of the schema to the next, a file `NNNN.sql` each."""
