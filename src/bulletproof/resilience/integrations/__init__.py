"""Bridges to other software, one file each; nothing imports them but you."""
