"""What a process imports, and what it does not need to."""

from __future__ import annotations

import subprocess
import sys


def test_what_a_receiver_does_without() -> None:
    program = (
        "import sys, hilum.cli.main as m; m.main(['serve', '--web', 'nonsense']); "
        "unwanted = ('numpy', 'pydicom', 'alembic', 'typer', 'click', 'rich', 'pydantic'); "
        "print([*filter(sys.modules.get, (*unwanted, 'sqlalchemy.dialects.postgresql'))])"
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
