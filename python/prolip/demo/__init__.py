"""The demo on emoji: its data, its suite, its report, and the command that runs all three."""
