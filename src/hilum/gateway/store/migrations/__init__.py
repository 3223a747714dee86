"""Database revisions, run by `hilum.gateway.store.database.upgrade`."""
