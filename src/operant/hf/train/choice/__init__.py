"""What held-out prompts choose: learning rates, steps and temperatures."""
