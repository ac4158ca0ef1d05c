"""The modality node and what it does in a round. No Ray, no sockets."""
