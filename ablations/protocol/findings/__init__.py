"""Findings, a file each. `ablations.protocol.registry` lists them."""
