"""Files of rollouts as operant and other libraries write them, read into the rows of ``rows.py``."""
