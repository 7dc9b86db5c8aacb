"""Votes over answer classes; all of them count with ``plurality``."""
