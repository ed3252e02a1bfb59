"""Sound recognition straight from the waveform."""

__version__ = "0.1.0"
