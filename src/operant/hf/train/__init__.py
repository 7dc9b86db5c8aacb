"""``operant train``: the jobs of a run, their evaluation, records and model cards."""
