"""Model families on the shared layers, their contract, and their sizes."""
