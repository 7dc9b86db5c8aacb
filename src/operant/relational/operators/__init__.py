"""Kinds of relations between tasks, one file an operator."""
