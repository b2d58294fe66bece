"""The bolt page file."""
