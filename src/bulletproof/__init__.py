"""Bulletproof."""
