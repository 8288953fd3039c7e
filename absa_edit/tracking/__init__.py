"""Where curves, tables and adapters go besides the run folder: Weights & Biases, or nowhere."""
