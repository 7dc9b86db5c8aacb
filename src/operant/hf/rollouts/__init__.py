"""Rollouts of a model: prompts, sampling, verification and curves; the verbs evaluate and plan."""
