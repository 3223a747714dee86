"""Coverage-guided fuzzing of the protocol core, for as long as it is let; not part of the suite.

::

    pip install atheris
    python -m tests.fuzz.atheris_wire established -max_total_time=600 corpus/

The first argument is one of ``TARGETS``; the rest are libFuzzer's.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["hilum"]):
    from tests.fuzz.test_wire_fuzz import TARGETS


def main() -> None:
    """Fuzz one target."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
