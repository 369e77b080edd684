"""The command ``python -m jaxnlt.data.build_nlt``; see nlt/build.py."""

import sys

from jaxnlt.data.nlt.build import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
