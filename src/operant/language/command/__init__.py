"""The command line of text tasks: files in, records out, and the demo."""
