"""Hilum: DICOM networking for asyncio, and a gateway on it."""

__version__ = "0.1.0"
