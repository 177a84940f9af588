"""Short visits to a machine with one GPU and no network: what is carried there, what runs there, what comes back."""
