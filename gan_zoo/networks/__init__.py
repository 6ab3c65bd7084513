"""Plain torch networks, by family. They know nothing of Lightning, losses or data."""
