"""Operators with networks that are trained on ordered pairs of bank tasks."""
