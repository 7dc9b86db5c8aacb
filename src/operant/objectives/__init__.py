"""L2: what a strategy asks of training, as pure functions from log-probabilities and outcomes."""
