"""The claims of both papers, re-run: ``operant reproduce``. A claim's ``run.py`` writes its comparisons."""

from operant.reproduce.comparisons import Comparison, write_comparisons

__all__ = ["Comparison", "write_comparisons"]
