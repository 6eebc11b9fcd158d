"""Transactions become features, in history and at request time, by the same functions."""
