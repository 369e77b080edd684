"""The command ``python -m jaxnlt.benchmark``; see bench/training.py."""

import sys

from jaxnlt.bench.training import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
