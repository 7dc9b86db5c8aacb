"""Rollouts from an OpenAI-compatible server."""
