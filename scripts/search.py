"""Searches options' values: ``python scripts/search.py search=learning_rates model=dcgan``."""

import sys

from gan_zoo.commands import search

if __name__ == "__main__":
    sys.exit(search())
