"""PS3.7 and PS3.8 without I/O: PDUs, the upper-layer state machine, command sets, messages.

Standard library only; no clock (time is an argument), no logging, no tasks.
"""
