"""Training of ct-nodule: synthetic nodules in real lung, one network, a signed package of the level series."""
