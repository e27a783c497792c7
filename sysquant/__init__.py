"""Notebook-first research-to-live toolkit for trading: what you promoted is what trades."""

__version__ = "0.1.0"
