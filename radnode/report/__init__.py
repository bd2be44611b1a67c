"""The only room that imports highdicom: structured reports and their UIDs."""
