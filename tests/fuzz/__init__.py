"""Input that nobody in their right mind sends, made by rule and by chance, for every reader of what comes from outside.

All of it is in the ordinary test run. `python -m tests.fuzz.soap --seconds 600` goes on for longer.
"""
