"""Comparisons that findings share."""
