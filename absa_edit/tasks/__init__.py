"""What is asked of a text: one task a file, each with its labels, the words that answer, and its prompt."""
