"""Does the harness measure right? It measures systems whose delays are known."""
