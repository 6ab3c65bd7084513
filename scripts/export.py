"""Writes generators for use elsewhere: ``python scripts/export.py checkpoint=RUN_FOLDER``."""

import sys

from gan_zoo.commands import export

if __name__ == "__main__":
    sys.exit(export())
