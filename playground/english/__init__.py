"""Every English text of the page, one file a room: who translates the page translates this folder. Labels and help of
the specs' fields stand with the fields, terms in the glossary.
"""
