"""Peers beside us in one run, in one table: ``python -m bench`` (see ``--help``).

Linux only: the sender uses epoll, sendfile and memory files, and figures of the servers' process
trees come from /proc.
"""
