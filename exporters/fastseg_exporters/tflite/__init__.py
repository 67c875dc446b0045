"""TFLite, float and full int8. Imports convert."""
