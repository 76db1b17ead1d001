"""What lies below every model: the machine, measured (`hardware`), files that are whole or not there (`files`), and how
the libraries underneath shall behave (`libraries`). Uses nothing of this package but `errors`.
"""
