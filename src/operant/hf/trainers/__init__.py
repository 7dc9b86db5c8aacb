"""TRL's SFT, GRPO and RLOO trainers with the loss or the credit of a test-time strategy."""
