"""Runs side by side: read from their folders, ranked, and drawn."""
