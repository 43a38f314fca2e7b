"""Where models come from: files, read into data."""
