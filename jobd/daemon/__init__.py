"""The daemon: one loop that joins scheduler, store, sockets and pool."""
