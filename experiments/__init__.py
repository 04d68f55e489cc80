"""This project's experiments: each a claim, its computation, the checks it has to pass, and the picture."""
