"""An anchor and a named transformation of it, with a warp of x."""
