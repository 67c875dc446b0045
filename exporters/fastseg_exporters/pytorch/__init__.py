"""The checkpoint as it is. Imports convert alone."""
