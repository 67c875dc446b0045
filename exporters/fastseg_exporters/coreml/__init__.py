"""Core ML packages, and their evaluation away from macOS. Imports convert."""
