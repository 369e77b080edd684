"""``python -m jaxnlt.clean``."""

import sys

from jaxnlt import clean

if __name__ == "__main__":
    sys.exit(clean.main(sys.argv))
