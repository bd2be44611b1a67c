"""The only room that imports torch: model packages, pixels, detectors, the worker."""
