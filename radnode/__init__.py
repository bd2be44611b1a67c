"""radnode: a DICOM node with embedded inference."""

__version__ = "0.1.0"
