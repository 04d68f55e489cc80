"""Verbs: the functions that users call to run something, and their results."""
