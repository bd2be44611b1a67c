"""Training of cxr-opacity: data, net, fit, evaluate, card. Run it with `scripts/train-cxr`."""
