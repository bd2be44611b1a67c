"""What every training ends with: a manifest as TOML, and a signed package in its place."""
