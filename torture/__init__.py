"""What operant survives: kills, full disks, damaged files, odd input, hostile programs, long hours. Run by hand."""
