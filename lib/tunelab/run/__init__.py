"""A run on disk: its directory (`run`), what it reports (`events`), where it stands (`progress`), who works on it
(`heartbeat`), which rows it learned from (`trained`), what was measured of it (`reports`). Uses what comes before it in
the order; imports no torch.
"""
