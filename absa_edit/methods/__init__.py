"""What is trained: one method a file, all giving an `AdaptedModel`."""
