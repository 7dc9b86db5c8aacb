"""The claims of both papers, re-run: ``operant reproduce``."""
