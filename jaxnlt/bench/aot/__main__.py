"""``python -m jaxnlt.bench.aot``."""

import sys

from jaxnlt.bench.aot import command

if __name__ == "__main__":
    sys.exit(command.main(sys.argv))
