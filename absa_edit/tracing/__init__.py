"""Causal tracing: corrupt the input, restore one hidden state at a time, see what brings the answer back."""
