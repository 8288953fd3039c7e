"""What a model is looked at for besides training: one analysis a file, each ending in a record and a section."""
