"""The app: `python -m playground`. It holds no training, data or metric logic; that is `tunelab`'s."""
