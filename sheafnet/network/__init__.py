"""What crosses between nodes: frames, channels, sockets, and the ledger of their bytes."""
