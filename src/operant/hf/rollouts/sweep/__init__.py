"""Several samplers on the same prompts: evaluations at several temperatures, and plans that compare rollouts."""
