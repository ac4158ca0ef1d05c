"""The sheaf as mathematics: maps, losses, estimators, coboundary and Laplacian."""
