"""What a process imports, and what it does not need to."""

from __future__ import annotations

import subprocess
import sys


def test_a_receiver_does_without_pydicom_and_numpy() -> None:
    program = (
        "import sys, hilum.gateway.app, hilum.cli.store; "
        "print([m for m in ('numpy', 'pydicom', 'alembic.command') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_pydicom_is_imported_when_it_is_used() -> None:
    script = (
        "import sys, hilum.net, hilum.services.datasets\n"
        "assert 'pydicom' not in sys.modules\n"
        "hilum.services.datasets.decode(b'', '1.2.840.10008.1.2')\n"
        "assert 'pydicom' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
