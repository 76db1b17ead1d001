"""Answers: one loop that decodes any number of columns (`generation`), and columns side by side on one resident base
(`comparison`), answered by the one thread that owns it (`owner`). Uses `fast`, `techniques` and `run`.
"""
