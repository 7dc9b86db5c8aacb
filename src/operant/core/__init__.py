"""L0: checks, log-space arithmetic, seeds and records. Knows neither strategies nor tasks."""
