"""The command `python -m jaxnlt.benchmark`; see `jaxnlt.bench.training`."""

import sys

from jaxnlt.bench.training import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
