"""The command `python -m jaxnlt COMMAND ...`; see commands.py."""

from jaxnlt import commands

if __name__ == "__main__":
    commands.entry()
