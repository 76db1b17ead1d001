"""One module per tab. Tabs do not import each other."""
