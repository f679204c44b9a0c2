"""Realistic synthetic text from private text, with honest privacy statements."""
