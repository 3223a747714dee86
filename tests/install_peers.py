"""Install the peers that tests talk to, where that is possible: Debian, as root.

Elsewhere nothing is changed; the tests that need a missing peer are skipped with the line that
installs it (and fail where ``CI`` is set).
"""

from __future__ import annotations

import os
import shutil
import subprocess

PACKAGES = {
    "storescu": "dcmtk",
    "Orthanc": "orthanc",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "strace": "strace",
}


def main() -> None:
    """Install what is missing."""
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted({p for tool, p in PACKAGES.items() if not shutil.which(tool, path=search)})
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        print(f"peers not installed; on Debian: apt-get install {' '.join(missing)}")
        return
    # RUNLEVEL=1: the packages' own services are not started.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    done = subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL)
    print(f"{'installed' if done.returncode == 0 else 'could not install'}: {' '.join(missing)}")


if __name__ == "__main__":
    main()
