"""What is refused before anything compiles."""
