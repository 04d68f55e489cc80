"""How it runs: private."""
