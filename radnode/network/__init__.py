"""The only room that imports pynetdicom: listener, Storage SCP and SCU, TLS."""
