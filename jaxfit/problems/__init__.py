"""What is asked: axes, marks, the problem and how it is trained, checks, messages."""
