"""Programs replace functions of ``pynetdicom._handlers`` to silence parts of the log.

Hilum logs through ``logging.getLogger("hilum.sync")`` and ``"hilum.net"`` only; assigning to this
module's attributes is accepted and changes nothing.
"""
