"""The rooms of the app, one file a tab. What several of them use stands in `parts`; they do not import each other."""
