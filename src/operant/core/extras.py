"""The optional dependencies: which modules an extra of the package brings, and the line that names a missing one."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS = {
    "hf": (
        *("transformers", "trl", "peft", "accelerate", "datasets", "math_verify", "latex2sympy2_extended"),
        *("jsonargparse", "yaml", "rich"),
    ),
    "report": ("jsonargparse", "yaml", "rich", "altair", "vl_convert", "PIL"),
    "endpoint": ("openai",),
    "gym": ("reasoning_gym",),
}
"""Extra -> the modules of its distributions."""


def require(what: str, *extras: str) -> None:
    """Refuse what lacks its optional dependencies. They are looked up and not imported, which would take seconds.

    Args:
        what: what needs them, such as "operant train".
        extras: names in :data:`EXTRAS`.

    Raises:
        ImportError: if one is not installed.
    """
    lacking = next((module for extra in extras for module in EXTRAS[extra] if not _is_there(module)), None)
    if lacking is not None:
        raise ImportError(
            f"{what} needs {lacking}, which is not installed. Run: pip install 'operant[{','.join(extras)}]'"
        )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # it is blocked, by a finder or by None in sys.modules
        return False
