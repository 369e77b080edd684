"""Says at the end which golden files and cases no test consumed."""

from . import cases


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section(f"golden vectors of {cases.FOLDER}")
    left = cases.unconsumed()
    for name in left:
        terminalreporter.write_line(f"no test consumed: {name}")
    if not left:
        terminalreporter.write_line("every file and case was consumed")
