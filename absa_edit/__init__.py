"""Trace where a language model decides aspect sentiment, and train only that."""

__version__ = "0.1.0"
