"""Bars of any origin: read, parsed, checked, repaired, split, and fetched from vendors."""
