"""Shows what a paper claims: ``python scripts/reproduce.py claim=NAME``; ``--help`` tells more."""

import sys

from gan_zoo.commands import reproduce

if __name__ == "__main__":
    sys.exit(reproduce())
