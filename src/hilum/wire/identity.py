"""Who we are in associations and in file meta information.

Standard: PS3.7 D.3.3.2 (implementation identification), PS3.10 7.1.
"""

from __future__ import annotations

from hilum import __version__

__all__ = ["IMPLEMENTATION_CLASS_UID", "IMPLEMENTATION_VERSION_NAME"]

# Under the root 2.25 (PS3.5 B.2): made once from a random UUID, the same in every version.
IMPLEMENTATION_CLASS_UID = "2.25.85320400778428438659356202598318398478"

# PS3.7 D.3.3.2.3 and PS3.10 allow 16 characters, so a long development version is cut.
IMPLEMENTATION_VERSION_NAME = f"HILUM_{__version__}"[:16]
