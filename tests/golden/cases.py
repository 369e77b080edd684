"""Finds the golden cases: numbers that the authors' own code produced.

A file holds either several cases, arrays named ``c{k}__NAME`` with
``case_names``, or one, its arrays as they stand.  ``JAXNLT_GOLDEN=DIR`` runs
the same tests over the files of another folder.
"""

import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
FOLDER = pathlib.Path(os.environ.get("JAXNLT_GOLDEN", HERE / "data"))
consumed: set[tuple[str, str]] = set()


class Case:
    """One golden case; reading any array of it marks it as consumed."""

    def __init__(self, file: str, name: str, arrays: dict[str, np.ndarray]):
        self.file, self.name, self._arrays = file, name, arrays

    def __getitem__(self, key: str) -> np.ndarray:
        consumed.add((self.file, self.name))
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def peek(self, key: str) -> np.ndarray:
        """An array that says what the case is; does not consume it."""
        return self._arrays[key]

    def keys(self):
        return self._arrays.keys()

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names start with ``prefix``, without it."""
        return {
            key.removeprefix(prefix): self[key]
            for key in self._arrays
            if key.startswith(prefix)
        }

    def prefixes(self, ending: str) -> list[str]:
        """What stands before the ending in the names that have it."""
        found = [
            key.removesuffix(ending)
            for key in self._arrays
            if key.endswith(ending)
        ]
        assert found
        return sorted(found)

    def jnp(self, *names: str, dtype=None):
        """The named arrays as JAX arrays, converted if a dtype is given."""
        return [jnp.asarray(self[name], dtype) for name in names]

    def __repr__(self) -> str:
        return f"{self.file}-{self.name}" if self.name else self.file


def read(path: pathlib.Path) -> list[Case]:
    """All cases of one file."""
    with np.load(path) as z:
        arrays = {key: z[key] for key in z.files}
    if "case_names" not in arrays or "n_cases" not in arrays:
        return [Case(path.stem, "", arrays)]
    return [
        Case(
            path.stem,
            str(name),
            {
                key.removeprefix(f"c{k}__"): value
                for key, value in arrays.items()
                if key.startswith(f"c{k}__")
            },
        )
        for k, name in enumerate(arrays["case_names"])
    ]


def golden(*stems: str, keep=lambda cases: cases):
    """Parametrises a test over the cases of the named files, as ``case``.

    ``keep`` takes those out that the project does not reproduce; they are
    listed at the end as not consumed.
    """
    cases = [
        case
        for stem in stems
        if (path := FOLDER / f"{stem}.npz").exists()
        for case in read(path)
    ]
    return pytest.mark.parametrize("case", keep(cases), ids=repr)


def unconsumed() -> list[str]:
    """Files and cases in the folder that no test has read."""
    return [
        repr(case)
        for path in sorted(FOLDER.glob("*.npz"))
        for case in read(path)
        if (case.file, case.name) not in consumed
    ]
