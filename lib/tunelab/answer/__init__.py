"""Answers: one loop that decodes any number of columns (`generation`), and base and tuned side by side on one resident
base (`comparison`). Uses `fast`, `techniques` and `run`; one thread owns a model.
"""
