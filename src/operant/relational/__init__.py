"""L1, room B: predict a task outside the bank as a known anchor task plus a known transformation. Imports core only."""
